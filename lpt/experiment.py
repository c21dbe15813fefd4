"""One run: plan, build, precompute, fit, score, save."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from lightning import Trainer, seed_everything
from rich.console import Console

from lpt.caching.fill import cache_hidden_states
from lpt.config.schema import Config
from lpt.data.datamodule import TaskDataModule, build_datamodule
from lpt.methods.late_prompt import LatePrompt
from lpt.runs.adapter import BackboneIdentity
from lpt.runs.environment import current_environment
from lpt.runs.log_file import log_to
from lpt.runs.record import RunRecord
from lpt.runs.results_table import print_results
from lpt.runs.run_dir import (
    SAVING_SECONDS,
    create_run_dir,
    explain_os_errors,
    lock_run_dir,
)
from lpt.tracking.loggers import finished_loggers
from lpt.training.callbacks import find_callback
from lpt.training.callbacks.preemption import Preemption
from lpt.training.callbacks.throughput import ThroughputMonitor
from lpt.training.checkpoints import ResumePoint
from lpt.training.launcher import launch_run, needs_launch
from lpt.training.machine import check_machine
from lpt.training.module import build_model, build_module
from lpt.training.outputs import save_config, save_outputs
from lpt.training.plan import Plan, dry_run, prepare
from lpt.training.results import Outcome, build_record, score_best, score_zero_shot
from lpt.training.resume import find_finished_run, find_resume_point
from lpt.training.trainer import build_trainer

logger = logging.getLogger(__name__)


def run(config: Config, command: Sequence[str] = ()) -> RunRecord | None:
    """Train and score one late prompt.

    Args:
        config: Configuration of the run.
        command: Overrides on the command line that the configuration comes from.

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
    check_machine(config)
    plan = prepare(config)
    config, sha256 = plan.config, plan.split_description["sha256"]
    launching = needs_launch(config.strategy)
    with explain_os_errors(None), ExitStack() as stack:
        if config.run_dir is not None and Path(config.run_dir).is_dir() and not launching:
            patience = SAVING_SECONDS if config.resume is not None else 0.0
            stack.enter_context(lock_run_dir(Path(config.run_dir), patience))
        finished = find_finished_run(config, sha256)
        if finished is not None:
            print_results(finished, Console())
            return finished
        resume_point = find_resume_point(config, sha256)
        if launching:
            return launch_run(config, command)
        seed_everything(config.seed, workers=True, verbose=False)
        model, identity = build_model(plan)  # may be refused: before anything is written
        run_dir = create_run_dir(config, resuming=resume_point is not None)
        plan = replace(plan, config=replace(config, run_dir=str(run_dir)))
        for context in (lock_run_dir, explain_os_errors, log_to):
            stack.enter_context(context(run_dir))
        stack.enter_context(finished_loggers(config.logger))
        save_config(plan.config, plan.split_description, run_dir)
        outcome, trainer, data = _train(plan, model, identity, resume_point, started)
        record = build_record(
            plan, outcome, trainer, data, environment=environment, command=command
        )
        if trainer.is_global_zero:
            save_outputs(plan, outcome, record, model, trainer.loggers)
            print_results(record, Console())
        return record


def _train(
    plan: Plan,
    model: LatePrompt,
    backbone: BackboneIdentity,
    resume_point: ResumePoint | None,
    started: float,
) -> tuple[Outcome, Trainer, TaskDataModule]:
    """Precompute hidden states, score without a prompt, fit, score with the best checkpoint."""
    config, parameters = plan.config, model.count_parameters()
    assert config.run_dir is not None
    data = build_datamodule(config, plan.splits, plan.encoder, plan.word_ids)
    module = build_module(plan, model)
    step = resume_point.step if resume_point is not None else None
    trainer = build_trainer(config, Path(config.run_dir), plan.backbone, model, step)
    monitor = find_callback(trainer, ThroughputMonitor)
    monitor.run_started = started
    with find_callback(trainer, Preemption).watch():
        caching_started = time.perf_counter()
        cache = cache_hidden_states(config, trainer, model.split, data, backbone.fingerprint)
        monitor.cache_seconds = time.perf_counter() - caching_started
        zero_shot = score_zero_shot(plan, trainer, module, data)
        checkpoint = resume_point.checkpoint if resume_point is not None else None
        if checkpoint is not None:
            logger.info("Resuming from %s at step %d.", checkpoint, step)
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        scores, outputs = score_best(plan, trainer, module, data)
    outcome = Outcome(backbone, parameters, cache, zero_shot, scores, outputs)
    return outcome, trainer, data
