"""Where curves go: CSV, TensorBoard, Weights & Biases, any number at once."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from lpt.config import LoggerConfig, WandbConfig
from lpt.data.tasks import Task
from lpt.files import write_atomically
from lpt.metrics import Answers
from lpt.results import summary
from lpt.run_dir import first_process
from lpt.wandb_tracking import finish, log_outcome, start_run

logger = logging.getLogger(__name__)
STEP = "trainer/global_step"


class _Forgiving:
    """A tracker that fails half-way gets nothing more, and the run goes on."""

    given_up = False

    def log_metrics(self, *arguments: Any, **named: Any) -> None:
        """Send points of curves."""
        self._try("log_metrics", *arguments, **named)

    def save(self) -> None:
        """Send what has been kept back."""
        self._try("save")

    def finalize(self, *arguments: Any) -> None:
        """Close."""
        self._try("finalize", *arguments)

    def _try(self, what: str, *arguments: Any, **named: Any) -> None:
        if self.given_up:
            return
        try:
            getattr(super(), what)(*arguments, **named)
        except Exception as error:  # whatever a tracker raises
            self.given_up = True
            logger.warning(
                "The tracker %s fails and gets nothing more; the run goes on (%s: %s).",
                *(type(self).__name__, type(error).__name__, error),
            )


class Csv(_Forgiving, CSVLogger):
    """Curves in csv/metrics.csv."""


class TensorBoard(_Forgiving, TensorBoardLogger):
    """Curves in tensorboard/."""


class Wandb(_Forgiving, WandbLogger):
    """Curves and more on Weights & Biases, or in wandb/ to be sent later."""


def build_loggers(
    config: LoggerConfig, run_dir: Path, resolved: dict[str, Any], resumed_at: int | None = None
) -> list[Logger]:
    """The loggers that are switched on.

    Args:
        config: Which ones.
        run_dir: Their files go here.
        resolved: The run's configuration as plain types, kept with the run.
        resumed_at: Step at which an earlier start of the run is taken up; its curves go on there.
    """
    loggers: list[Logger] = []
    if config.csv:
        loggers.append(_csv_logger(run_dir, resumed_at))
    if config.tensorboard:
        loggers.append(TensorBoard(run_dir, name="tensorboard", version="", purge_step=resumed_at))
    if config.wandb.enabled:
        loggers.append(_wandb_logger(config.wandb, run_dir, resolved))
    return loggers


def _csv_logger(run_dir: Path, resumed_at: int | None) -> CSVLogger:
    """The logger, with the curve of an earlier start up to where this one goes on."""
    file = run_dir / "csv" / "metrics.csv"
    earlier = file.with_name("metrics-earlier.csv")
    if resumed_at is None or not (file.is_file() or earlier.is_file()):
        return Csv(run_dir, name="csv", version="")
    # Lightning's logger begins by removing the file. Whoever is killed before the rows are back
    # leaves the copy.
    if not earlier.is_file():
        write_atomically(earlier, file.read_text(encoding="utf-8"))
    with earlier.open(encoding="utf-8", newline="") as lines:
        whole = [row for row in csv.DictReader(lines) if None not in row.values()]  # none is torn
    tracker = Csv(run_dir, name="csv", version="")
    writer: Any = tracker.experiment
    writer.metrics = [
        {name: value for name, value in row.items() if value}
        for row in whole
        if row["step"].isdecimal() and int(row["step"]) < resumed_at
    ]
    tracker.save()
    if not tracker.given_up:
        earlier.unlink()
    return tracker


def _wandb_logger(config: WandbConfig, run_dir: Path, resolved: dict[str, Any]) -> WandbLogger:
    """The logger around a run that has begun: what refuses it does so before the training."""
    run = None
    if first_process():
        run = start_run(
            config,
            run_dir,
            name=run_dir.name,
            job_type=config.job_type,
            group=config.group,
            resolved=resolved,
        )
        # Every curve is drawn against Lightning's optimizer steps, not the number of the call.
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP, step_sync=True)
    return Wandb(save_dir=run_dir, project=config.project, experiment=run)


def log_end(
    loggers: Iterable[Logger],
    metrics: Mapping[str, Any],
    step: int,
    run_dir: Path,
    answers: Mapping[str, Answers],
    task: Task,
) -> None:
    """Log the final scores, and to W&B the predictions and the adapter as well.

    Args:
        loggers: The run's.
        metrics: What metrics.json is to hold.
        step: Optimizer steps of the run.
        run_dir: Where the adapter is.
        answers: To test and the further sets.
        task: The task they belong to.
    """
    for tracker in loggers:
        tracker.log_metrics(summary(metrics), step=step)
        if isinstance(tracker, Wandb) and not tracker.given_up:
            log_outcome(tracker.experiment, run_dir, metrics, answers, task)
        tracker.finalize("success")


@contextmanager
def finished_loggers(config: LoggerConfig) -> Iterator[None]:
    """When the block ends, close what would otherwise leak into the next run of this process."""
    failed = True
    try:
        yield
        failed = False
    finally:
        if config.wandb.enabled:
            finish(failed=failed)
