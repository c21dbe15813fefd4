"""A sweep from the command line to its exit status: plan, check, run, go on, report."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import track
from rich.table import Table

from lpt.config.schema import SweepConfig
from lpt.errors import CTRL_C, PREEMPTED, Problems, literal_text
from lpt.sweep.folder import claimed, sweep_folder
from lpt.sweep.plan import Composer, Point, check_points
from lpt.sweep.running import Launch, Sweep
from lpt.sweep.search import check_search
from lpt.sweep.space import read_space

_SHOWN = 30  # jobs in a dry run, one by one
_FILE = "hydra.runtime.choices.sweep"


def run_sweep(base: DictConfig, arguments: Sequence[str], launch: Launch) -> int:
    """Run a sweep to its end, or to where it is stopped.

    Args:
        base: What Hydra composed without the values that vary.
        arguments: Overrides of the command line.
        launch: Has Hydra's launcher run jobs, given as their overrides.

    Returns:
        0 if all jobs have finished, 1 if one failed, 130 after Ctrl-C, 75 after another signal.

    Raises:
        ConfigError: Something is wrong with the space or with a job; nothing was started.
    """
    config, console = OmegaConf.to_object(base.sweep), Console()
    assert isinstance(config, SweepConfig)
    config.name = config.name or str(OmegaConf.select(base, _FILE) or "grid")
    _check_own(base)
    space = read_space(arguments, config.fixed, config.space, search=config.trials is not None)
    composer = Composer(space)
    if config.trials is not None:
        check_search(space)
    points = composer.grid() if config.trials is None else composer.corners()
    check_points(points, _tracked(console))
    folder = sweep_folder(config, space, points)
    if base.dry_run:
        _show(points, config.trials, folder, console)
        return 0
    with claimed(folder, config, space, overwrite=base.overwrite):
        sweep = Sweep(config, folder, launch, console, points[0].config)
        try:
            with _signals():
                if config.trials is None:
                    sweep.grid(points)
                else:
                    sweep.search(composer, config.trials)
        except KeyboardInterrupt as stop:
            sweep.leave(report=False)
            console.print("Stopped; the same command goes on from here.")
            return int(stop.args[0]) if stop.args else CTRL_C
        return sweep.leave(report=True)


def _tracked(console: Console) -> Callable[[Sequence[Any]], Iterable[Any]]:
    if not console.is_terminal:
        return iter
    return lambda parts: track(parts, "checking", console=console, transient=True)


def _check_own(base: DictConfig) -> None:
    """What a single run is given means nothing to a sweep."""
    problems = Problems()
    if base.run_dir is not None:
        problems.add("run_dir", f"{base.run_dir} for a sweep", "null", "sweep.dir=FOLDER")
    if base.resume not in (None, "auto"):
        given = f"{base.resume} for a sweep"
        problems.add("resume", given, "null: a sweep goes on by itself", "leave it out")
    problems.raise_if_any()


def _show(points: Sequence[Point], trials: int | None, folder: Path, console: Console) -> None:
    title = None if trials is None else "every value, and the ends of all ranges"
    table = Table(title=title)
    if len(points) <= _SHOWN:
        for key in points[0].settings:
            table.add_column(literal_text(key))
        for point in points:
            table.add_row(*map(literal_text, point.settings.values()))
    else:
        table.add_column("key")
        table.add_column("values")
        for key in points[0].settings:
            values = dict.fromkeys(point.settings[key] for point in points)
            table.add_row(literal_text(key), literal_text(", ".join(values)))
    console.print(table)
    jobs = f"{len(points)} jobs" if trials is None else f"The space of {trials} trials"
    told = f"{jobs} checked, nothing started; they would run in {folder}"
    console.print(literal_text(told), soft_wrap=True)


@contextmanager
def _signals() -> Iterator[None]:
    """Have SIGTERM and SIGUSR1 stop a sweep as Ctrl-C does."""

    def stop(_: int, __: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt(PREEMPTED)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
