"""Final scores of a run, and what it writes besides checkpoints and curves."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from lightning import Trainer
from lightning.pytorch.loggers import Logger
from omegaconf import OmegaConf
from torch import Tensor

from lpt.caching.entry import SetLayer
from lpt.caching.fill import hidden_state_keys
from lpt.caching.scores import ScoresKey, cached_scores
from lpt.config.resolve import to_dict
from lpt.data.datamodule import TaskDataModule
from lpt.data.eval_output import EvalOutput, prediction_columns
from lpt.data.split_file import SPLIT_FILE
from lpt.files import write_atomically
from lpt.methods.base import Method
from lpt.runs.adapter import BackboneIdentity, save_adapter
from lpt.runs.predictions import write_predictions
from lpt.runs.record import BackboneRecord, RunRecord, ScoresOrNone, SplitRecord
from lpt.runs.run_dir import ADAPTER, CONFIG_FILE, is_global_zero
from lpt.tracking.loggers import log_results
from lpt.training.callbacks.dev_history import DevHistory
from lpt.training.callbacks.progress import log_evaluation
from lpt.training.checkpoints import AtomicCheckpointIO, Checkpoint
from lpt.training.metrics import Predictions
from lpt.training.module import MethodModule
from lpt.training.plan import Plan
from lpt.training.trainer import find_callback

logger = logging.getLogger(__name__)


def score_zero_shot(
    trainer: Trainer, module: MethodModule, data: TaskDataModule, fingerprint: str
) -> dict[str, ScoresOrNone]:
    """Scores of the language model without the method, for all sets but train.

    The label scores are kept beside the cache, under the backbone's fingerprint, by runs of one
    rank.
    """
    config, split = data.config, module.model.split
    folder = None
    if config.cache.mode != "off" and trainer.world_size == 1:
        folder = Path(str(config.cache.dir))
    last = int(str(config.model.layers)) + 1
    keys = hidden_state_keys(config, trainer, split, data, fingerprint, [last])
    scores: dict[str, ScoresOrNone] = {}
    for name, examples in data.splits.sets.items():
        if name == "train":
            continue
        scores[name] = None
        if not examples.labeled_positions():
            continue
        compute = partial(_zero_shot_labels, trainer, module, data, name)
        key = ScoresKey(states=keys[SetLayer(name, last)], words=list(data.word_ids))
        found = compute() if folder is None else cached_scores(folder, key, compute)
        order = torch.tensor(examples.row_ids).argsort()
        predictions = Predictions(torch.tensor(examples.row_ids)[order], found[order])
        evaluator = module.evaluator
        scores[name] = evaluator.metrics(name, evaluator.predict(name, predictions))
        log_evaluation("zero-shot", name, scores[name])
    return scores


def _zero_shot_labels(
    trainer: Trainer, module: MethodModule, data: TaskDataModule, name: str
) -> Tensor:
    """Label scores of the language model in the order of the set, (E, labels)."""
    module.tuned = False
    _score(trainer, module, data, [name])
    module.tuned = True
    assert module.eval_scores is not None
    row_ids = torch.tensor(data.splits.sets[name].row_ids)
    return module.eval_scores.scores[torch.searchsorted(module.eval_scores.row_ids, row_ids)]


def train_and_score(
    plan: Plan,
    trainer: Trainer,
    module: MethodModule,
    data: TaskDataModule,
    checkpoint: Path | None,
) -> tuple[dict[str, ScoresOrNone], dict[str, EvalOutput]]:
    """Scores of test and the extra sets with the best checkpoint; predictions also for dev.

    A method without parameters is scored as it is; its dev scores are those of step 0.
    """
    history = find_callback(trainer, DevHistory)
    if not module.model.trainable():
        sets = {name: part for name, part in plan.splits.sets.items() if name != "train"}
        encoder = module.model.encoder(plan.encoder)
        data = TaskDataModule(plan.config, replace(plan.splits, sets=sets), encoder, plan.word_ids)
        scores, outputs = _score(trainer, module, data, list(sets))
        history.history.append({"step": 0, **(scores.pop("dev") or {})})
        return scores, outputs
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    best = find_callback(trainer, Checkpoint).best_model_path
    module.load_trainable(AtomicCheckpointIO().load_checkpoint(best)["state_dict"])
    scores, outputs = _score(trainer, module, data, data.splits.test_sets)
    assert history.best_scores is not None
    evaluator = module.evaluator
    dev = Predictions(torch.tensor(evaluator.sets["dev"].row_ids), history.best_scores)
    return scores, {"dev": evaluator.predict("dev", dev), **outputs}


def _score(
    trainer: Trainer, module: MethodModule, data: TaskDataModule, names: Sequence[str]
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
    """The record of the frozen model."""
    shared = backbone.model_dump(include={"name", "model_type", "fingerprint", "tokenizer"})
    return BackboneRecord(**shared, commit=plan.backbone.commit)


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


def save_config(plan: Plan, backbone: BackboneIdentity, run_dir: Path) -> None:
    """Write what a run to be resumed is compared with: config, sets and backbone; on rank 0.

    Raises:
        OSError: A file cannot be written.
    """
    if is_global_zero():
        write_atomically(run_dir / SPLIT_FILE, plan.split_description.to_json())
        describe_backbone(plan, backbone).write(run_dir)
        write_atomically(run_dir / CONFIG_FILE, OmegaConf.to_yaml(to_dict(plan.config)))


def save_outputs(
    plan: Plan,
    model: Method,
    backbone: BackboneIdentity,
    record: RunRecord,
    outputs: Mapping[str, EvalOutput],
    loggers: Iterable[Logger],
) -> None:
    """Write adapter and predictions, log the results, and write metrics.json last.

    `model` holds the best checkpoint; `outputs` are its predictions for dev and each test set.

    Raises:
        OSError: A file cannot be written.
    """
    task, run_dir = plan.task, Path(record.run_dir)
    save_adapter(model, run_dir / ADAPTER, backbone, plan.config, task)
    tables = {}
    for name, output in outputs.items():
        tables[name] = prediction_columns(output, task, texts=True)
        write_predictions(run_dir, name, tables[name])
        if not output.examples.labeled_positions():
            message = "None of the %d %s examples has a label: %s was predicted, but not scored."
            logger.warning(message, len(output.examples), name, name)
    log_results(loggers, record, run_dir, tables)
    record.write(run_dir)
    logger.debug("finished: dev %s, test %s", record.dev, record.test)
