"""Final scores of a run, and its record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning import Trainer

from lpt.config.resolve import to_dict
from lpt.data.datamodule import TaskDataModule
from lpt.data.eval_output import EvalOutput
from lpt.models.backbone import hub_commit
from lpt.runs.adapter import BackboneIdentity
from lpt.runs.environment import Environment
from lpt.runs.record import (
    BackboneRecord,
    CacheRecord,
    ParameterCounts,
    RunRecord,
    ScoresOrNone,
    Selection,
    SplitRecord,
)
from lpt.training.callbacks import find_callback
from lpt.training.callbacks.dev_history import DevHistory
from lpt.training.callbacks.throughput import ThroughputMonitor
from lpt.training.checkpoints import AtomicCheckpointIO, Checkpoint
from lpt.training.module import LatePromptModule
from lpt.training.plan import Plan


@dataclass(frozen=True)
class Outcome:
    """What a run computed.

    Attributes:
        backbone: Its frozen weights.
        parameters: Number of `trainable` and of all (`total`) parameters.
        cache: Which hidden states were cached.
        zero_shot: Scores without a prompt, by set.
        scores: Scores of the test sets with the best checkpoint.
        outputs: Predictions for the test sets with the best checkpoint.
    """

    backbone: BackboneIdentity
    parameters: dict[str, int]
    cache: CacheRecord
    zero_shot: dict[str, ScoresOrNone]
    scores: dict[str, ScoresOrNone]
    outputs: dict[str, EvalOutput]


def score_zero_shot(
    plan: Plan, trainer: Trainer, module: LatePromptModule, data: TaskDataModule
) -> dict[str, ScoresOrNone]:
    """Scores of the language model without a prompt, for all sets but train."""
    module.prompted = False
    trainer.validate(module, datamodule=data, verbose=False)
    scores = {"dev": module.eval_metrics}
    for name in plan.splits.test_sets:
        scores[name] = None
        if dict(plan.splits.items())[name].labelled:
            data.test_set = name
            trainer.test(module, datamodule=data, verbose=False)
            scores[name] = module.eval_metrics
    module.prompted = True
    return scores


def score_best(
    plan: Plan, trainer: Trainer, module: LatePromptModule, data: TaskDataModule
) -> tuple[dict[str, ScoresOrNone], dict[str, EvalOutput]]:
    """Scores of, and predictions for, test and the extra sets with the best checkpoint."""
    best = find_callback(trainer, Checkpoint).best_model_path
    module.load_trainable(AtomicCheckpointIO().load_checkpoint(best)["state_dict"])
    scores: dict[str, ScoresOrNone] = {}
    outputs: dict[str, EvalOutput] = {}
    for name in plan.splits.test_sets:
        data.test_set = name
        trainer.test(module, datamodule=data, verbose=False)
        assert module.eval_output is not None
        scores[name], outputs[name] = module.eval_metrics, module.eval_output
    return scores, outputs


def build_record(
    plan: Plan,
    outcome: Outcome,
    trainer: Trainer,
    data: TaskDataModule,
    *,
    environment: Environment,
    command: Sequence[str],
) -> RunRecord:
    """The record of a run, whose trainer's callbacks measured it.

    `environment` was taken at its start; `command` are its overrides on the command line.
    """
    config, names = plan.config, list(plan.task.metrics)
    history = find_callback(trainer, DevHistory)
    best, metric = history.best(), names[0]
    assert config.run_dir is not None
    return RunRecord(
        run_dir=config.run_dir,
        command=list(command),
        config=to_dict(config),
        backbone=BackboneRecord(
            name=outcome.backbone.name,
            model_type=outcome.backbone.model_type,
            fingerprint=outcome.backbone.fingerprint,
            commit=hub_commit(plan.backbone.config),
        ),
        split=_describe_sets(plan, data),
        metrics=names,
        selection=Selection(metric=metric, step=int(best["step"]), value=best[metric]),
        dev={name: best[name] for name in names},
        test=outcome.scores["test"],
        extra={name: scores for name, scores in outcome.scores.items() if name != "test"},
        majority={n: plan.evaluator.majority(n) for n, _ in plan.splits.items() if n != "train"},
        zero_shot=outcome.zero_shot,
        dev_history=history.history,
        parameters=ParameterCounts(**outcome.parameters),
        cost=find_callback(trainer, ThroughputMonitor).cost(trainer.global_step),
        cache=outcome.cache,
        environment=environment,
    )


def _describe_sets(plan: Plan, data: TaskDataModule) -> SplitRecord:
    sets = dict(plan.splits.items())
    groups = {name: len(examples.groups()) for name, examples in sets.items()}
    return SplitRecord(
        origin=plan.splits.origin,
        sizes={name: len(examples) for name, examples in sets.items()},
        groups={name: count for name, count in groups.items() if count < len(sets[name])},
        truncated={name: packed.truncated for name, packed in data.packed.items()},
        sha256=plan.split_description["sha256"],
    )
