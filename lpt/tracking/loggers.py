"""Loggers of a run: CSV, TensorBoard and Weights & Biases, any number at once."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from lpt.config.resolve import flatten
from lpt.config.schema import LoggerConfig
from lpt.runs.record import RunRecord
from lpt.tracking.wandb import build_wandb_logger, log_outputs

logger = logging.getLogger(__name__)


class FaultTolerantLogger(Logger):
    """Forwards to another logger until that fails: a logger must not fail the run."""

    def __init__(self, wrapped: Logger) -> None:
        super().__init__()
        self.wrapped = wrapped
        self.enabled = True

    @property
    def name(self) -> str | None:
        return self.wrapped.name

    @property
    def version(self) -> int | str | None:
        return self.wrapped.version

    def log_hyperparams(self, *arguments: Any, **options: Any) -> None:
        """Does nothing: a run passes its configuration when it builds a logger."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._call("log_metrics", dict(metrics), step=step)

    def save(self) -> None:
        self._call("save")

    def finalize(self, status: str) -> None:
        """Lightning's end of each fit and test: only a failure ends the run; see `close`."""
        if status == "success":
            self.save()
        else:
            self._call("finalize", status)

    def log_results(self, config: Mapping[str, Any], scores: dict[str, float], step: int) -> None:
        """Log final scores and costs, for TensorBoard together with the resolved configuration."""
        if isinstance(self.wrapped, TensorBoardLogger):
            self._call("log_hyperparams", flatten(config), scores, step=step)
        else:
            self.log_metrics(scores, step=step)

    def close(self) -> None:
        """End the run; a TensorBoard logger would begin another file after this."""
        self._call("finalize", "success")

    def _call(self, method: str, *arguments: Any, **options: Any) -> None:
        if not self.enabled:
            return
        try:
            getattr(self.wrapped, method)(*arguments, **options)
        except Exception as error:  # whatever a logger raises
            self.enabled = False
            message = "Logger %s failed and is disabled for the rest of the run (%s: %s)."
            logger.warning(message, type(self.wrapped).__name__, type(error).__name__, error)


def build_loggers(
    config: LoggerConfig, run_dir: Path, resolved: dict[str, Any], resumed_at: int | None = None
) -> list[FaultTolerantLogger]:
    """The loggers that are switched on; they write to the folder of the run.

    Args:
        config: Which ones.
        run_dir: Folder of the run.
        resolved: The resolved configuration as plain types.
        resumed_at: Step at which the run is resumed; TensorBoard hides later points logged before.

    Raises:
        RunError: W&B refuses the run.
    """
    loggers: list[Logger] = []
    if config.csv:
        loggers.append(CSVLogger(run_dir, name="csv"))
    if config.tensorboard:
        options: dict[str, Any] = {"purge_step": resumed_at, "default_hp_metric": False}
        board = TensorBoardLogger(run_dir, "tensorboard", "", **options)
        board.log_hyperparams(flatten(resolved))  # to hparams.yaml; with the scores at the end
        loggers.append(board)
    if config.wandb.enabled:
        loggers.append(build_wandb_logger(config.wandb, run_dir, resolved))
    return [FaultTolerantLogger(wrapped) for wrapped in loggers]


def log_results(
    loggers: Iterable[Logger],
    record: RunRecord,
    run_dir: Path,
    predictions: Mapping[str, Mapping[str, Sequence[str]]],
) -> None:
    """Log scores and costs, and to W&B the adapter and the columns of each set's predictions."""
    for entry in loggers:
        assert isinstance(entry, FaultTolerantLogger)
        results = record.summary() | record.covariates()
        entry.log_results(record.config, results, record.cost.steps)
        if entry.enabled and isinstance(entry.wrapped, WandbLogger):
            log_outputs(entry.wrapped.experiment, run_dir, record, predictions)
        entry.close()
