"""The Lightning trainer of a run."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from lightning import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, Strategy

from lpt.config.resolve import to_dict
from lpt.config.schema import Config, LoggerConfig, TrainerConfig
from lpt.methods.base import Method
from lpt.runs.run_dir import BEST, CHECKPOINTS, LAST
from lpt.tracking.loggers import build_loggers
from lpt.training.callbacks.dev_history import DevHistory
from lpt.training.callbacks.exact_resume import EarlyStopping, RngState
from lpt.training.callbacks.last_evaluation import LastEvaluation
from lpt.training.callbacks.non_finite import NonFiniteGuard
from lpt.training.callbacks.preemption import Preemption
from lpt.training.callbacks.progress import ProgressBar
from lpt.training.callbacks.throughput import ThroughputMonitor
from lpt.training.checkpoints import AtomicCheckpointIO, Checkpoint

# For a rank that waits for the others, e.g. while rank 0 writes. Only srun without
# --kill-on-bad-exit leaves a rank waiting for one that is dead.
_COLLECTIVE_TIMEOUT = timedelta(minutes=30)
_C = TypeVar("_C", bound=Callback)


def build_trainer(
    config: Config,
    run_dir: Path,
    model: Method,
    resumed_at: int | None = None,
    *,
    bars: bool = False,
) -> Trainer:
    """The trainer with its callbacks, loggers and devices.

    Args:
        config: Resolved configuration.
        run_dir: Folder of the run.
        model: The model; its layers are sharded by FSDP.
        resumed_at: Step of the checkpoint that the run is resumed from.
        bars: Whether to show progress bars.
    """
    strategy = config.strategy
    return Trainer(
        accelerator=strategy.accelerator,
        devices=strategy.devices,
        num_nodes=strategy.num_nodes,
        strategy=build_strategy(strategy.name, model),
        precision=config.trainer.precision,  # type: ignore[arg-type]  # one of its literals
        accumulate_grad_batches=config.trainer.accumulate_grad_batches,
        gradient_clip_val=config.optim.gradient_clip_val,
        num_sanity_val_steps=config.trainer.num_sanity_val_steps,
        callbacks=[*([ProgressBar()] if bars else []), *_callbacks(config, run_dir)],
        plugins=[AtomicCheckpointIO()],
        deterministic=config.trainer.deterministic,
        logger=build_loggers(config.logger, run_dir, to_dict(config), resumed_at),
        use_distributed_sampler=False,  # the batch samplers know their rank
        default_root_dir=run_dir,
        log_every_n_steps=min(10, config.trainer.eval_every_steps or 10),
        enable_model_summary=False,
        enable_progress_bar=bars,
        **_length(config.trainer),
    )


def _length(trainer: TrainerConfig) -> dict[str, Any]:
    """Length of the training and interval of evaluations, as arguments of the trainer.

    Training counted in steps is one long epoch: its sampler goes over the data as often as needed.
    """
    length = {"max_steps": trainer.max_steps or -1, "max_epochs": trainer.max_epochs or 1}
    if trainer.eval_every_steps is None:
        return {**length, "check_val_every_n_epoch": trainer.eval_every_epochs}
    batches = trainer.eval_every_steps * trainer.accumulate_grad_batches
    return {**length, "check_val_every_n_epoch": None, "val_check_interval": batches}


def _callbacks(config: Config, run_dir: Path) -> list[Callback]:
    metric, patience = config.task.metric, config.trainer.patience
    checkpoints = run_dir / CHECKPOINTS
    stopping = EarlyStopping(f"dev/{metric}", mode="max", patience=patience or 0)
    return [
        # The first one is `trainer.checkpoint_callback`, which is tested.
        Checkpoint(checkpoints / BEST, f"dev/{metric}"),
        Checkpoint(checkpoints / LAST),
        RngState(config.seed),
        DevHistory(run_dir, metric),
        NonFiniteGuard(),
        LastEvaluation(),
        ThroughputMonitor(),
        *([LearningRateMonitor("step")] if config.logger != LoggerConfig() else []),
        *([stopping] if patience is not None else []),
        # Last: the checkpoint that it saves includes what the other callbacks noted of the step.
        Preemption(run_dir),
    ]


def build_strategy(name: str, model: Method) -> str | Strategy:
    """Lightning's strategy for `single`, `ddp` or `fsdp`."""
    if name == "single":
        return "auto"
    if name == "ddp":
        return DDPStrategy(timeout=_COLLECTIVE_TIMEOUT)
    *_, layer = model.split.upper.model.get_submodule(model.split.family.layers).children()
    # Only frozen layers are sharded. Every rank holds the whole prompt, whose gradients the module
    # averages (MethodModule.configure_gradient_clipping).
    return FSDPStrategy(
        timeout=_COLLECTIVE_TIMEOUT,
        auto_wrap_policy={type(layer)},
        ignored_states=list(model.trainable().values()),
        use_orig_params=True,
        state_dict_type="full",
    )


def find_callback(trainer: Trainer, kind: type[_C]) -> _C:
    """The callback of that class, which the trainer has."""
    return next(c for c in trainer.callbacks if isinstance(c, kind))  # type: ignore[attr-defined]
