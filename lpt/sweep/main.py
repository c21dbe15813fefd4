"""A sweep from its command line to its exit status: plan, check, run, report."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from lpt.config.extras import check_extra
from lpt.config.schema import SweepConfig
from lpt.errors import CTRL_C, PREEMPTED, Problems, literal_text
from lpt.runs.job_record import SweepRecord
from lpt.sweep.folder import claim_sweep_dir, sweep_dir
from lpt.sweep.plan import Composer, check_points
from lpt.sweep.runner import Launch, SweepRunner
from lpt.sweep.space import read_space

_SWEEP_CHOICE = "hydra.runtime.choices.sweep"


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
    space = read_space(arguments, config.fixed, config.space, search=searching)
    composer = Composer(space)
    points = composer.boundary_points() if searching else composer.grid()
    check_points(points, console)
    record = SweepRecord(
        name=config.name,
        command=shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
        fixed=sorted(space.fixed),
        space={**{key: list(values) for key, values in space.axes.items()}, **space.ranges},
        search=searching,
    )
    folder = sweep_dir(config, record, points)
    if base.dry_run:
        jobs = f"{config.trials} trials, e.g." if searching else f"{len(points)} jobs:"
        lines = [jobs, *(f"  {point.name}" for point in points)]
        lines.append(f"Everything checked, nothing started. Folder of the sweep: {folder}")
        console.print(literal_text("\n".join(lines)), soft_wrap=True)
        return 0
    with claim_sweep_dir(folder, record, overwrite=base.overwrite):
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
