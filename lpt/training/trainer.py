"""The Lightning trainer of a run."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, TQDMProgressBar
from lightning.pytorch.strategies import FSDPStrategy, Strategy
from transformers import AutoModel

from lpt.config.schema import Config, LoggerConfig, TrainerConfig
from lpt.methods.late_prompt import LatePrompt
from lpt.models.backbone import Backbone
from lpt.runs.record import PROGRESS
from lpt.tracking.loggers import build_loggers
from lpt.training.callbacks.learning_checks import LearningChecks, NonFiniteGuard
from lpt.training.callbacks.progress import DevHistory, ThroughputMonitor
from lpt.training.checkpoints import BEST, FOLDER, LAST, AtomicCheckpointIO, Checkpoint
from lpt.training.rank_monitor import Ranks
from lpt.training.resume import Preemption, RandomState


def build_trainer(
    config: Config,
    run_dir: Path,
    backbone: Backbone,
    model: LatePrompt,
    resumed_at: int | None = None,
) -> Trainer:
    """The trainer with its callbacks, loggers and devices.

    Args:
        config: The run's.
        run_dir: Its folder.
        backbone: The frozen model's family.
        model: What is trained.
        resumed_at: Step at which an earlier start of the run is taken up.
    """
    strategy, ranks = config.strategy, Ranks()
    trainer = Trainer(
        accelerator=strategy.accelerator,
        devices=strategy.devices,
        num_nodes=strategy.num_nodes,
        strategy=build_strategy(strategy.name, backbone, model),
        precision=config.trainer.precision,  # type: ignore[arg-type]  # one of its literals
        accumulate_grad_batches=config.trainer.accumulate_grad_batches,
        gradient_clip_val=config.optim.gradient_clip_val,
        num_sanity_val_steps=config.trainer.num_sanity_val_steps,
        callbacks=[ranks, *_callbacks(config, run_dir)],
        plugins=[AtomicCheckpointIO()],
        deterministic=config.trainer.deterministic,
        logger=build_loggers(config.logger, run_dir, dataclasses.asdict(config), resumed_at),
        use_distributed_sampler=False,  # the batch samplers know their rank
        default_root_dir=run_dir,
        log_every_n_steps=min(10, config.trainer.eval_every_steps or 10),
        enable_model_summary=False,
        **_length(config.trainer),
    )
    ranks.watch(trainer)
    # Signals are answered by Preemption. Lightning would send to the other ranks in the midst of
    # whatever they are about, and requeue Slurm's jobs by itself.
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    return trainer


def _length(trainer: TrainerConfig) -> dict[str, Any]:
    """How long to train and when to evaluate, in Lightning's terms.

    Training counted in steps is one long epoch: its sampler goes over the data as often as needed.
    """
    length: dict[str, Any] = {
        "max_steps": trainer.max_steps if trainer.max_steps is not None else -1,
        "max_epochs": trainer.max_epochs if trainer.max_epochs is not None else 1,
    }
    if trainer.eval_every_epochs is not None:
        return {**length, "check_val_every_n_epoch": trainer.eval_every_epochs}
    assert trainer.eval_every_steps is not None
    batches = trainer.eval_every_steps * trainer.accumulate_grad_batches
    return {**length, "check_val_every_n_epoch": None, "val_check_interval": batches}


def _callbacks(config: Config, run_dir: Path) -> list[Callback]:
    metric, checkpoints = config.task.metric, run_dir / FOLDER
    callbacks: list[Callback] = [
        # The first one is the trainer's: what is tested.
        Checkpoint(checkpoints / BEST, f"dev/{metric}"),
        Checkpoint(checkpoints / LAST),
        RandomState(),
        DevHistory(run_dir / PROGRESS, metric),
        NonFiniteGuard(),
        LearningChecks(),
        ThroughputMonitor(),
        *([LearningRateMonitor("step")] if config.logger != LoggerConfig() else []),
        TQDMProgressBar(refresh_rate=10 if sys.stderr.isatty() else 50),
    ]
    if config.trainer.patience is not None:
        callbacks.append(
            EarlyStopping(f"dev/{metric}", mode="max", patience=config.trainer.patience)
        )
    # Last: what the others noted of a step is in the checkpoint that it saves.
    return [*callbacks, Preemption(checkpoints)]


def build_strategy(name: str, backbone: Backbone, model: LatePrompt) -> str | Strategy:
    """How the devices share the work: `single`, `ddp` or `fsdp`."""
    if name == "single":
        return "auto"
    if name == "ddp":
        return "ddp"
    # Only what is frozen is sharded. The prompt is whole on every rank, and the module averages its
    # gradients (LatePromptModule.configure_gradient_clipping).
    return FSDPStrategy(
        auto_wrap_policy=_layer_classes(backbone),
        ignored_states=list(model.trainable().values()),
        use_orig_params=True,
        state_dict_type="full",
    )


def _layer_classes(backbone: Backbone) -> set[type]:
    """The layer class of the backbone, which FSDP shards by."""
    with torch.device("meta"):
        model = AutoModel.from_config(backbone.config)
    return {type(layer) for layer in model.get_submodule(backbone.family.layers)}
