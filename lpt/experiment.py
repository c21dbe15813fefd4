"""One run: plan, build, precompute, fit, score, save."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from lightning import seed_everything
from rich.console import Console

from lpt.caching.fill import cache_hidden_states
from lpt.config.resolve import to_dict
from lpt.config.schema import Config
from lpt.data.datamodule import TaskDataModule
from lpt.data.sources import Source
from lpt.methods.base import Method
from lpt.runs.adapter import BackboneIdentity
from lpt.runs.environment import Environment, current_environment
from lpt.runs.record import ParameterCounts, RunRecord, Selection
from lpt.runs.results_table import print_results
from lpt.runs.run_dir import SAVING_SECONDS, create_run_dir, explain_os_errors, lock_run_dir, log_to
from lpt.tracking.wandb import finished_run
from lpt.training import results
from lpt.training.callbacks.dev_history import DevHistory
from lpt.training.callbacks.preemption import Preemption
from lpt.training.callbacks.progress import in_terminal
from lpt.training.callbacks.throughput import ThroughputMonitor
from lpt.training.checkpoints import ResumePoint, check_same_backbone, find_earlier_run
from lpt.training.launcher import launch_run, needs_launch
from lpt.training.module import build_model, build_module
from lpt.training.plan import Plan, check_devices, dry_run, prepare
from lpt.training.trainer import build_trainer, find_callback

logger = logging.getLogger(__name__)


def run(
    config: Config,
    command: Sequence[str] = (),
    *,
    source: Source | None = None,
    quiet: bool = False,
    use_trained: Callable[[Plan, Method], None] | None = None,
) -> RunRecord | None:
    """Train a method and score it.

    Args:
        config: Configuration of the run.
        command: Overrides on the command line that the configuration comes from.
        source: Source of the rows; None: the one that the configuration names.
        quiet: Whether to show neither progress bars nor the results.
        use_trained: Called with the trained model at the end of a run in this process.

    Returns:
        The record of the run; None for a dry run.

    Raises:
        ConfigError: Something about the input is wrong; nothing was written.
        RunError: The run was stopped; its checkpoints are complete.
    """
    if config.dry_run:
        dry_run(config)
        return None
    started, environment = time.perf_counter(), current_environment(config.strategy.accelerator)
    check_devices(config.strategy)
    launching = needs_launch(config.strategy)
    plan = prepare(config, source=source)
    config = plan.config
    with explain_os_errors(None), ExitStack() as stack:
        if config.run_dir is not None and Path(config.run_dir).is_dir() and not launching:
            patience = SAVING_SECONDS if config.resume is not None else 0.0
            stack.enter_context(lock_run_dir(Path(config.run_dir), patience))
        earlier = find_earlier_run(config, plan.split_description)
        if launching and not isinstance(earlier, RunRecord):
            return launch_run(config, command)
        seed_everything(config.seed, workers=True, verbose=False)
        model, identity = build_model(plan)  # may be refused: before anything is written
        if earlier is not None:
            check_same_backbone(config, identity)
        if isinstance(earlier, RunRecord):
            print_results(earlier, Console(quiet=quiet))
            return earlier
        if earlier is not None:
            logger.info("Resuming from %s at step %d.", *earlier)
        run_dir = create_run_dir(config, resuming=earlier is not None)
        plan = replace(plan, config=replace(config, run_dir=str(run_dir)))
        for context in (lock_run_dir, explain_os_errors, log_to):
            stack.enter_context(context(run_dir))
        stack.enter_context(finished_run(config.logger.wandb))
        results.save_config(plan, identity, run_dir)
        record = _train(plan, model, identity, earlier, started, environment, command, quiet)
        if use_trained is not None:
            use_trained(plan, model)
        return record


def _train(
    plan: Plan,
    model: Method,
    backbone: BackboneIdentity,
    resume_point: ResumePoint | None,
    started: float,
    environment: Environment,
    command: Sequence[str],
    quiet: bool,
) -> RunRecord:
    """Precompute hidden states, score zero-shot, fit, score the best checkpoint, save."""
    config, run_dir = plan.config, Path(str(plan.config.run_dir))
    parameters = ParameterCounts(**model.count_parameters())
    data = TaskDataModule(config, plan.splits, plan.encoder, plan.word_ids)
    module = build_module(plan, model)
    checkpoint, step = resume_point or (None, None)
    trainer = build_trainer(config, run_dir, model, step, bars=in_terminal() and not quiet)
    history, monitor = find_callback(trainer, DevHistory), find_callback(trainer, ThroughputMonitor)
    monitor.run_started = started
    with find_callback(trainer, Preemption).watch():
        caching_started = time.perf_counter()
        cache = cache_hidden_states(config, trainer, model.split, data, backbone.fingerprint)
        monitor.totals["cache_seconds"] = time.perf_counter() - caching_started
        zero_shot = results.score_zero_shot(trainer, module, data, backbone.fingerprint)
        scores, outputs = results.train_and_score(plan, trainer, module, data, checkpoint)
    best, metric = history.best(), plan.task.metrics[0]
    record = RunRecord(
        run_dir=str(run_dir),
        command=list(command),
        config=to_dict(config),
        backbone=results.describe_backbone(plan, backbone),
        split=results.describe_sets(plan, data),
        metrics=plan.task.metrics,
        selection=Selection(metric=metric, step=int(best["step"]), value=best[metric]),
        dev={name: best[name] for name in plan.task.metrics},
        test=scores["test"],
        extra={name: scores[name] for name in plan.splits.test_sets if name != "test"},
        majority={name: module.evaluator.majority(name) for name in zero_shot},
        zero_shot=zero_shot,
        dev_history=history.history,
        parameters=parameters,
        cost=monitor.cost(trainer.global_step),
        cache=cache,
        environment=environment,
    )
    if trainer.is_global_zero:
        results.save_outputs(plan, model, backbone, record, outputs, trainer.loggers)
        print_results(record, Console(quiet=quiet))
    return record
