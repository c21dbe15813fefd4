"""Final scores of a run, and what it writes besides checkpoints and curves."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lightning import Trainer
from lightning.pytorch.loggers import Logger
from omegaconf import OmegaConf

from lpt.config.resolve import to_dict
from lpt.data.datamodule import TaskDataModule
from lpt.data.eval_output import EvalOutput, prediction_columns
from lpt.data.split_file import SPLIT_FILE
from lpt.files import write_atomically
from lpt.methods.late_prompt import LatePrompt
from lpt.models.backbone import hub_commit
from lpt.runs.adapter import BackboneIdentity, save_adapter
from lpt.runs.record import BackboneRecord, RunRecord, ScoresOrNone, SplitRecord, write_predictions
from lpt.runs.run_dir import ADAPTER, CONFIG_FILE, is_global_zero
from lpt.tracking.loggers import log_results
from lpt.training.callbacks.progress import log_evaluation
from lpt.training.checkpoints import AtomicCheckpointIO, Checkpoint
from lpt.training.module import LatePromptModule
from lpt.training.plan import Plan
from lpt.training.trainer import find_callback

logger = logging.getLogger(__name__)


def score_zero_shot(
    trainer: Trainer, module: LatePromptModule, data: TaskDataModule
) -> dict[str, ScoresOrNone]:
    """Scores of the language model without a prompt, for all sets but train."""
    sets = {name: part for name, part in data.splits.sets.items() if name != "train"}
    labeled = [name for name, part in sets.items() if part.labeled_positions()]
    module.prompted = False
    scores, _ = _score(trainer, module, data, labeled)
    module.prompted = True
    for name, found in scores.items():
        log_evaluation("zero-shot", name, found)
    return dict.fromkeys(sets) | scores


def score_best(
    trainer: Trainer, module: LatePromptModule, data: TaskDataModule
) -> tuple[dict[str, ScoresOrNone], dict[str, EvalOutput]]:
    """Scores of, and predictions for, test and the extra sets with the best checkpoint."""
    best = find_callback(trainer, Checkpoint).best_model_path
    module.load_trainable(AtomicCheckpointIO().load_checkpoint(best)["state_dict"])
    return _score(trainer, module, data, data.splits.test_sets)


def _score(
    trainer: Trainer, module: LatePromptModule, data: TaskDataModule, names: Sequence[str]
) -> tuple[dict[str, ScoresOrNone], dict[str, EvalOutput]]:
    scores: dict[str, ScoresOrNone] = {}
    outputs: dict[str, EvalOutput] = {}
    for name in names:
        data.test_set = name
        trainer.test(module, datamodule=data, verbose=False)
        assert module.eval_output is not None
        scores[name], outputs[name] = module.eval_metrics, module.eval_output
    return scores, outputs


def describe_backbone(plan: Plan, backbone: BackboneIdentity) -> BackboneRecord:
    """The record of the frozen weights."""
    shared = backbone.model_dump(include={"name", "model_type", "fingerprint"})
    return BackboneRecord(**shared, commit=hub_commit(plan.backbone.config))


def describe_sets(plan: Plan, data: TaskDataModule) -> SplitRecord:
    """The record of the sets."""
    sets = plan.splits.sets
    groups = {name: len(examples.groups()) for name, examples in sets.items()}
    labeled = {name: len(examples.labeled_positions()) for name, examples in sets.items()}
    return SplitRecord(
        origin=plan.splits.origin,
        sizes={name: len(examples) for name, examples in sets.items()},
        groups={name: count for name, count in groups.items() if count < len(sets[name])},
        labeled={name: count for name, count in labeled.items() if 0 < count < len(sets[name])},
        truncated={name: packed.truncated for name, packed in data.packed.items()},
        warnings=list(plan.splits.warnings),
        sha256=plan.split_description.sha256,
    )


def save_config(plan: Plan, run_dir: Path) -> None:
    """Write config.yaml and split.json, which a run to be resumed is compared with; on rank 0.

    Raises:
        OSError: A file cannot be written.
    """
    if is_global_zero():
        write_atomically(run_dir / SPLIT_FILE, plan.split_description.to_json())
        write_atomically(run_dir / CONFIG_FILE, OmegaConf.to_yaml(to_dict(plan.config)))


def save_outputs(
    plan: Plan,
    model: LatePrompt,
    backbone: BackboneIdentity,
    record: RunRecord,
    outputs: Mapping[str, EvalOutput],
    loggers: Iterable[Logger],
) -> None:
    """Write adapter and predictions, log the results, and write metrics.json last.

    `model` holds the best checkpoint; `outputs` are its predictions for each test set.

    Raises:
        OSError: A file cannot be written.
    """
    task, run_dir = plan.task, Path(record.run_dir)
    save_adapter(model, run_dir / ADAPTER, backbone, plan.config, task)
    tables = {}
    for name, output in outputs.items():
        write_predictions(run_dir, name, prediction_columns(output, task))
        tables[name] = prediction_columns(output, task, texts=True)
        if not output.examples.labeled_positions():
            message = "None of the %d %s examples has a label: %s was predicted, but not scored."
            logger.warning(message, len(output.examples), name, name)
    log_results(loggers, record, run_dir, tables)
    record.write(run_dir)
    logger.debug("finished: dev %s, test %s", record.dev, record.test)
