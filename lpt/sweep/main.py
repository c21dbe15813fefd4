"""A sweep from its command line to its exit status: plan, check, run, report."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from lpt.config.extras import check_extra
from lpt.config.schema import SweepConfig
from lpt.errors import CTRL_C, PREEMPTED, Problems, config_error, literal_text
from lpt.runs.job_record import SWEEP, SweepRecord
from lpt.runs.run_dir import PROBE_SECONDS
from lpt.sweep.plan import Composer, Point, check_points
from lpt.sweep.results import CSV, JOBS, JSONL, REPORT
from lpt.sweep.runner import Launch, SweepRunner
from lpt.sweep.space import read_space

_SWEEP_CHOICE = "hydra.runtime.choices.sweep"
_LOCK = ".lock"
_IDENTITY = {"fixed", "space", "search"}  # the number of trials may grow, jobs at a time change


def run_sweep(base: DictConfig, arguments: Sequence[str], launch: Launch) -> int:
    """Run a sweep until it ends or is stopped.

    Args:
        base: What Hydra composed, without the values that vary.
        arguments: Overrides on the command line.
        launch: Runs jobs through Hydra's launcher.

    Returns:
        0 if all jobs have finished, 1 if any failed, 130 after Ctrl-C, 75 after another signal.

    Raises:
        ConfigError: The space or a job is invalid; nothing was started.
    """
    config, console = OmegaConf.to_object(base.sweep), Console()
    assert isinstance(config, SweepConfig)
    config.name = config.name or str(OmegaConf.select(base, _SWEEP_CHOICE) or "grid")
    _check_sweep(base)
    searching = config.trials is not None
    space = read_space(arguments, config)
    composer = Composer(space)
    points = composer.boundary_points() if searching else composer.grid()
    check_points(points, console, space)
    record = SweepRecord(
        name=config.name,
        command=shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
        fixed=sorted(space.fixed),
        space=space.record(),
        search=searching,
    )
    folder = _sweep_dir(config, record, points)
    if base.dry_run:
        jobs = f"{config.trials} trials, e.g." if searching else f"{len(points)} jobs:"
        lines = [jobs, *(f"  {point.name}" for point in points)]
        lines.append(f"Everything checked, nothing started. Folder of the sweep: {folder}")
        console.print(literal_text("\n".join(lines)), soft_wrap=True)
        return 0
    with _claim_sweep_dir(folder, record, overwrite=base.overwrite):
        runner = SweepRunner(config, folder, launch, console, points[0].config)
        try:
            with _stop_on_signals():
                if config.trials is None:
                    runner.run_grid(points)
                else:
                    runner.run_search(composer, config.trials)
        except KeyboardInterrupt as stop:
            runner.finalize(report=False)
            console.print("Stopped. Rerun the same command to resume.")
            return int(stop.args[0]) if stop.args else CTRL_C
        return runner.finalize(report=True)


def _check_sweep(base: DictConfig) -> None:
    """Refuse what only makes sense for a single run."""
    problems = Problems()
    if base.run_dir is not None:
        problems.add("run_dir", f"{base.run_dir} for a sweep", "null", "sweep.dir=FOLDER")
    if base.resume not in (None, "auto"):
        found = f"{base.resume} for a sweep"
        problems.add("resume", found, "null", "rerun the same command to resume a sweep")
    if base.sweep.trials is not None:
        check_extra("search", "sweep.trials", problems)
    if base.sweep.report:
        check_extra("report", "sweep.report", problems)
    problems.raise_if_any()


def _sweep_dir(config: SweepConfig, record: SweepRecord, points: Sequence[Point]) -> Path:
    """Folder of a sweep: the same for the same space, different for any other."""
    if config.dir is not None:
        return Path(config.dir)
    identity = json.dumps(record.model_dump(include=_IDENTITY))
    digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
    names = ({p.config.task.name for p in points}, {p.config.model.name for p in points})
    common = [next(iter(found)) for found in names if len(found) == 1]
    return Path("runs") / "-".join(["sweep", config.name, *common, digest])


@contextmanager
def _claim_sweep_dir(folder: Path, record: SweepRecord, *, overwrite: bool) -> Iterator[None]:
    """Lock the folder of a sweep within the block, and write sweep.json.

    With `overwrite`, the results of an earlier sweep are removed; other files stay.

    Raises:
        ConfigError: Another sweep is running in it, or its content is not this sweep's.
    """
    _check_content(folder, record, overwrite=overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder / _LOCK).acquire(timeout=PROBE_SECONDS)
    except Timeout:
        found, hint = f"another sweep is running in {folder}", "wait until it ends, or stop it"
        raise config_error("sweep.dir", found, "another folder", hint) from None
    with lock:
        if overwrite:
            for name in (JOBS, REPORT, "wandb"):
                shutil.rmtree(folder / name, ignore_errors=True)
            for name in (CSV, JSONL, SWEEP):  # sweep.json last
                (folder / name).unlink(missing_ok=True)
        record.write(folder)
        yield


def _check_content(folder: Path, record: SweepRecord, *, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise config_error("sweep.dir", f"{folder} is a file", "a folder")
    if not (folder / SWEEP).is_file():
        others = sorted(path.name for path in folder.glob("[!.]*"))
        if others:
            found = f"{folder} contains {', '.join(others[:5])}, but no {SWEEP}"
            raise config_error("sweep.dir", found, "a new folder, or that of this sweep")
    elif not overwrite:
        earlier = SweepRecord.read(folder)
        if earlier.model_dump(include=_IDENTITY) != record.model_dump(include=_IDENTITY):
            found = f"{folder} contains the results of another space, started by: {earlier.command}"
            hint = "overwrite=true deletes its results; or choose another sweep.dir"
            raise config_error("sweep.dir", found, "a folder for each space", hint)


@contextmanager
def _stop_on_signals() -> Iterator[None]:
    """Make SIGTERM and SIGUSR1 stop a sweep as Ctrl-C does."""

    def stop(_: int, __: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt(PREEMPTED)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
