"""Where curves go: CSV, TensorBoard, Weights & Biases, any number at once."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from lpt.config.schema import LoggerConfig, WandbConfig
from lpt.data.tasks import Task
from lpt.files import write_atomically
from lpt.runs.record import summary
from lpt.runs.run_dir import is_global_zero
from lpt.tracking.wandb import finish, log_outcome, start_run
from lpt.training.metrics import EvalOutput

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


class _Rows(ExperimentWriter):
    """The file of a curve, to which rows are added; a new column replaces it at once.

    Lightning would remove what an earlier start has left, and write new columns in place, where a
    process that is killed loses the rows before.
    """

    def begin(self, rows: list[dict[str, Any]]) -> None:
        """Have these rows in the file and no others."""
        self.metrics_keys = sorted(set().union(*rows))
        if rows:
            self._replace(rows)
        else:
            Path(self.metrics_file_path).unlink()

    def _check_log_dir_exists(self) -> None:
        """As Lightning calls it where it would remove the file."""

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        self._replace(_rows(Path(self.metrics_file_path)))

    def _replace(self, rows: list[dict[str, Any]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.metrics_keys)
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(Path(self.metrics_file_path), text.getvalue())


class Csv(_Forgiving, CSVLogger):
    """Curves in csv/metrics.csv.

    Args:
        run_dir: Of the run.
        resumed_at: Step from which rows of an earlier start are made again.
    """

    def __init__(self, run_dir: Path, resumed_at: int | None = None) -> None:
        super().__init__(run_dir, name="csv", version="")
        if not is_global_zero():
            return
        self._experiment = rows = _Rows(self.log_dir)
        file = Path(rows.metrics_file_path)
        if resumed_at is None or not file.is_file():
            return
        try:
            kept = [row for row in _rows(file) if int(row["step"]) < resumed_at]
        except (ValueError, csv.Error) as error:
            aside = file.with_name("metrics-damaged.csv")
            file.replace(aside)
            text = "%s is damaged (%s): it is kept as %s, and the curve begins here."
            logger.warning(text, file, error, aside.name)
        else:
            rows.begin(kept)


def _rows(file: Path) -> list[dict[str, Any]]:
    """The whole rows of a curve: the last one may be torn.

    Raises:
        ValueError: It is damaged.
    """
    with file.open(encoding="utf-8", newline="") as lines:
        text = lines.read()
    rows = list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]), strict=True))
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values() or not row.get("step", "").isdecimal():
            raise ValueError(f"line {number} has not the columns of the first line")
    return rows


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
        loggers.append(Csv(run_dir, resumed_at))
    if config.tensorboard:
        loggers.append(TensorBoard(run_dir, name="tensorboard", version="", purge_step=resumed_at))
    if config.wandb.enabled:
        loggers.append(_wandb_logger(config.wandb, run_dir, resolved))
    return loggers


def _wandb_logger(config: WandbConfig, run_dir: Path, resolved: dict[str, Any]) -> WandbLogger:
    """The logger around a run that has begun: what refuses it does so before the training."""
    run = None
    if is_global_zero():
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
    answers: Mapping[str, EvalOutput],
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
