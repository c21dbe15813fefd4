"""One run: check everything, build the parts, train, score, write down.

`run` is the whole story in a few lines.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.utilities.seed import isolate_rng
from omegaconf import OmegaConf
from rich.console import Console

from lpt.config.schema import Config
from lpt.data.datamodule import LatePromptData
from lpt.data.split_file import SPLIT
from lpt.data.tasks import UNKNOWN
from lpt.errors import ConfigError, HubError, literal_text
from lpt.files import write_atomically
from lpt.runs.adapter import BackboneIdentity, PromptDescription, TaskDescription, save_adapter
from lpt.runs.record import (
    ADAPTER,
    CONFIG,
    FINISHED,
    environment,
    predictions_file,
    print_table,
    write_metrics,
    write_predictions,
)
from lpt.runs.run_dir import (
    SAVING_SECONDS,
    claim_run_dir,
    explain_os_errors,
    is_global_zero,
    lock_run_dir,
    log_to,
)
from lpt.tracking.loggers import finished_loggers, log_end
from lpt.training.build import build_data, build_model, build_module, precompute_hidden_states
from lpt.training.callbacks.memory import peak_memory_mb
from lpt.training.callbacks.progress import DevHistory, ThroughputMonitor
from lpt.training.metrics import EvalOutput
from lpt.training.module import LatePromptModule
from lpt.training.plan import Plan, check_machine, prepare, resolve
from lpt.training.rank_monitor import Ranks
from lpt.training.resume import Preemption, ResumePoint, find_resume_point, finished_metrics
from lpt.training.trainer import build_trainer

logger = logging.getLogger(__name__)
_C = TypeVar("_C", bound=Callback)


def run(config: Config) -> dict[str, Any] | None:
    """Train and score one late prompt.

    Returns:
        What metrics.json holds; None for a dry run.

    Raises:
        ConfigError: Something about the input is wrong; nothing was written.
        RunError: The run cannot go on; what it saved is whole.
    """
    if config.dry_run:
        dry_run(config)
        return None
    finished = finished_metrics(config)
    if finished is not None:
        print_table(finished, Console())
        return finished
    check_machine(config)
    plan = prepare(config)
    if config.resume not in (None, "auto"):
        config = dataclasses.replace(config, run_dir=config.resume)
    with explain_os_errors(None), ExitStack() as held:
        return _run_alone(config, plan, held)


def _run_alone(config: Config, plan: Plan, held: ExitStack) -> dict[str, Any]:
    """The run itself, as the only process that uses its folder."""
    if config.run_dir is not None and Path(config.run_dir).is_dir():
        held.enter_context(
            lock_run_dir(Path(config.run_dir), SAVING_SECONDS if config.resume else 0)
        )
    earlier = find_resume_point(config, resolve(config, config.run_dir, plan.layer), plan.split)
    seed_everything(config.seed, workers=True, verbose=False)
    model, identity = build_model(config, plan)  # may be refused: before anything is written
    run_dir = claim_run_dir(config, plan.layer, goes_on=earlier is not None)
    held.enter_context(lock_run_dir(run_dir, 0))
    with explain_os_errors(run_dir), log_to(run_dir), finished_loggers(config.logger):
        begin(config, plan, run_dir, earlier)
        data = build_data(config, plan)
        module = build_module(config, plan, model)
        parameters = model.count_parameters()
        at = earlier.step if earlier is not None else None
        trainer = build_trainer(config, run_dir, plan.backbone, model, at)
        with _callback(trainer, Ranks), _callback(trainer, Preemption).watch():
            with isolate_rng():  # a cache that has to be filled must not change the training
                cached = precompute_hidden_states(config, plan, trainer, model, identity, data)
            metrics, answers = fit_and_score(config, plan, trainer, module, data, earlier)
        metrics |= {"parameters": parameters, "cache": cached}
        if trainer.is_global_zero:
            leave(config, plan, run_dir, trainer, module, identity, answers, metrics)
    return metrics


def begin(config: Config, plan: Plan, run_dir: Path, earlier: ResumePoint | None) -> None:
    """Write down what the run is, so that it can be gone on with."""
    resolved = resolve(config, str(run_dir), plan.layer)
    logger.debug("%s", resolved)
    if earlier is not None:
        logger.info("Going on at step %d with %s.", earlier.step, earlier.checkpoint)
    elif is_global_zero():
        text = OmegaConf.to_yaml(OmegaConf.structured(resolved))
        write_atomically(run_dir / SPLIT, json.dumps(plan.split) + "\n")
        write_atomically(run_dir / CONFIG, text)


def dry_run(config: Config) -> None:
    """Print the resolved configuration and check what can be checked without loading weights.

    Raises:
        ConfigError: A problem other than an unreachable hub.
    """
    console = Console()

    def show(config: Config) -> None:
        text = OmegaConf.to_yaml(OmegaConf.structured(config))
        console.print(literal_text(text), soft_wrap=True)

    try:
        plan = prepare(config)
    except ConfigError as error:
        show(config)
        if not isinstance(error, HubError):
            raise
        text = f"Not checked, for want of the hub:\n{error.listing}"
        console.print(literal_text(text), soft_wrap=True)
        return
    show(resolve(config, config.run_dir, plan.layer))
    sizes = ", ".join(f"{len(part)} {name}" for name, part in plan.splits.items())
    told = f"Everything checked: {sizes}, prompt at layer {plan.layer}. Nothing started."
    console.print(literal_text(told))


def fit_and_score(
    config: Config,
    plan: Plan,
    trainer: Trainer,
    module: LatePromptModule,
    data: LatePromptData,
    earlier: ResumePoint | None = None,
) -> tuple[dict[str, Any], dict[str, EvalOutput]]:
    """Zero-shot scores, training, one scoring of test with the best checkpoint.

    Args:
        config: The run's.
        plan: What it needs.
        trainer: Its trainer.
        module: What is trained.
        data: Its sets.
        earlier: What an earlier start left, to go on with.

    Returns:
        What goes into metrics.json, and the answers to test and the further sets.
    """
    started = time.perf_counter()
    zero_shot = _zero_shot(plan, trainer, module, data)
    before = peak_memory_mb(trainer.strategy.root_device)
    checkpoint = earlier.checkpoint if earlier is not None else None
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    best_path = getattr(trainer.checkpoint_callback, "best_model_path", None)
    history = _callback(trainer, DevHistory)
    best = history.best(plan.task.metric)
    # Copied now, because loading the best checkpoint takes the callbacks back to its time, too.
    dev_history, meter = list(history.history), copy.copy(_callback(trainer, ThroughputMonitor))
    answers: dict[str, EvalOutput] = {}
    scores: dict[str, dict[str, float] | None] = {}
    for name in plan.splits.answered:
        data.test_set = name
        trainer.test(module, datamodule=data, ckpt_path=best_path, verbose=False, weights_only=True)
        assert module.answers is not None
        answers[name], scores[name] = module.answers, module.scores
    metrics = _report(config, plan, data, meter, best, before) | {
        "test": scores.pop("test"),
        "extra": scores,
        "zero_shot": zero_shot,
        "dev_history": dev_history,
    }
    seconds = time.perf_counter() - started
    metrics["speed"] |= {"steps": trainer.global_step, "total_seconds": seconds}
    return metrics, answers


def _report(
    config: Config,
    plan: Plan,
    data: LatePromptData,
    meter: ThroughputMonitor,
    best: Mapping[str, float],
    memory_before: float,
) -> dict[str, Any]:
    """What metrics.json says of a run besides its scores on test and further sets."""
    names = plan.task.metrics
    sets = dict(plan.splits.items())
    return {
        "task": plan.task.name,
        "model": {**dataclasses.asdict(config.model), "layers": plan.backbone.layers},
        "prompt": {**dataclasses.asdict(config.prompt), "layer": plan.layer},
        "protocol": {
            "name": config.data.protocol,
            "k": config.data.k,
            "dev_k": config.data.dev_k,
            "draw": config.data.sampling,
            "data_seed": config.data.seed,
            "origin": plan.splits.origin,
            "sizes": {name: len(part) for name, part in sets.items()},
            "groups": {n: len(p.units()) for n, p in sets.items() if len(p.units()) < len(p)},
            "truncated": {name: part.truncated for name, part in data.packed.items()},
            "split_sha256": plan.split["sha256"],
        },
        "data": dataclasses.asdict(config.data),
        "optim": dataclasses.asdict(config.optim),
        "trainer": dataclasses.asdict(config.trainer),
        "seed": config.seed,
        "loss": plan.loss,
        "metrics": list(names),
        "selection": {"metric": names[0], "step": int(best["step"]), "value": best[names[0]]},
        "dev": {name: best[name] for name in names},
        "majority": {name: plan.evaluator.majority(name) for name in sets if name != "train"},
        "speed": {
            "train_seconds": meter.seconds,
            "examples_per_second": meter.examples_per_second,
            "padding_share": meter.padding_share,
        },
        "peak_memory_mb": {"before_training": memory_before, "training": meter.peak_memory_mb},
        "environment": environment(),
    }


def leave(
    config: Config,
    plan: Plan,
    run_dir: Path,
    trainer: Trainer,
    module: LatePromptModule,
    identity: BackboneIdentity,
    answers: Mapping[str, EvalOutput],
    metrics: dict[str, Any],
) -> None:
    """Write what a run leaves behind, metrics.json last, and print the table."""
    prompt, task = config.prompt, plan.task
    save_adapter(
        module.model,
        run_dir / ADAPTER,
        backbone=identity,
        prompt=PromptDescription(prompt.kind, plan.layer, prompt.length, prompt.bottleneck),
        task=TaskDescription(
            name=task.name,
            kind=task.template.kind,
            template=task.template.text,
            labels=list(task.labels),
            label_words=list(task.label_words),
            max_length=config.data.max_length,
            value_range=list(task.value_range) if task.value_range is not None else None,
        ),
    )
    for name, given in answers.items():
        write_predictions(run_dir / predictions_file(name), given, task)
        unknown = sum(label == UNKNOWN for label in given.part.labels)
        if unknown:
            logger.warning(
                "%d of %d %s rows have no labels: %s was predicted, but not scored.",
                *(unknown, len(given.part), name, name),
            )
    metrics["run_dir"] = str(run_dir)
    log_end(trainer.loggers, metrics, trainer.global_step, run_dir, answers, task)
    write_metrics(run_dir / FINISHED, metrics)
    logger.debug("finished: dev %s, test %s", metrics["dev"], metrics["test"])
    print_table(metrics, Console())


def _zero_shot(
    plan: Plan, trainer: Trainer, module: LatePromptModule, data: LatePromptData
) -> dict[str, dict[str, float] | None]:
    """Scores of the language model without a prompt, on all sets but train."""
    module.prompted = False
    trainer.validate(module, datamodule=data, verbose=False)
    scores = {"dev": module.scores}
    for name in plan.splits.answered:
        if dict(plan.splits.items())[name].labelled:
            data.test_set = name
            trainer.test(module, datamodule=data, verbose=False)
            scores[name] = module.scores
        else:
            scores[name] = None
    module.prompted = True
    return scores


def _callback(trainer: Trainer, kind: type[_C]) -> _C:
    return next(c for c in trainer.callbacks if isinstance(c, kind))  # type: ignore[attr-defined]
