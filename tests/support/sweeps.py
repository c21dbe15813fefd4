"""Sweeps in this process, whose jobs are made up: they end at once, as they are told to."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from lpt.config.schema import register
from lpt.sweep.job import RUNNING, Job, run_job
from lpt.sweep.space import parsed_value
from lpt.sweep.sweep import run_sweep
from tests import runs
from tests.conftest import CONF

# What becomes of a job with these arguments: its exit status, or its score on dev.
Ending = Callable[[dict[str, Any]], int | float]


class Ended:
    """A process that is over."""

    pid = 1 << 30  # nobody's

    def __init__(self, status: int) -> None:
        self.status = status

    def poll(self) -> int:
        """Its exit status."""
        return self.status


class MadeUp:
    """Runs sweeps, and keeps what their jobs were given.

    Args:
        fixed: Arguments of all sweeps.
        folder: Of the sweep.
    """

    def __init__(self, fixed: Sequence[str], folder: Path) -> None:
        self.fixed = [*fixed, f"sweep.dir={folder}", "sweep.report=false"]
        self.folder = folder
        self.batches: list[list[dict[str, Any]]] = []
        self.ending: Ending = lambda _: 0.75
        self.lost: set[int] = set()
        """Seeds whose jobs a launcher loses: nobody writes down what became of them."""

    def __call__(self, *arguments: str, base: Sequence[str] = ()) -> int:
        """Run a sweep; `base` are arguments that do not vary."""
        register()
        self.batches.clear()
        given = [*self.fixed, *base]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            composed = compose("train", overrides=given)
            return run_sweep(composed, [*given, *arguments], self._launch)

    @property
    def jobs(self) -> dict[str, Job]:
        """Name -> the job."""
        found = [Job.read(path.parent) for path in (self.folder / "jobs").glob("*/job.json")]
        return {job.name: job for job in found if job is not None}

    @property
    def states(self) -> dict[str, tuple[str, int]]:
        """Name -> state and number of attempts."""
        return {name: (job.state, job.attempts) for name, job in self.jobs.items()}

    def _launch(self, batch: Sequence[Sequence[str]]) -> None:
        given = [_arguments(overrides) for overrides in batch]
        self.batches.append(given)
        for one in given:
            if one.get("seed") not in self.lost:
                run_job(Path(one["run_dir"]), start=self._start)
                continue
            job = Job.read(Path(one["run_dir"]))
            assert job is not None
            job.state = RUNNING
            job.write()
        if self.lost:
            raise RuntimeError("a worker is gone")

    def _start(self, arguments: Sequence[str], output: Path, *_: Any) -> Ended:
        found = self.ending(_arguments(arguments))
        if isinstance(found, float):
            write_metrics(output.parent, found)
            return Ended(0)
        with output.open("a") as file:
            file.write("RuntimeError: made up\n")
        return Ended(found)


def write_metrics(folder: Path, dev: float) -> None:
    """What a finished run leaves."""
    more = {"speed__total_seconds": 1.5, "protocol__data_seed": 13, "prompt__layer": 2}
    content = runs.metrics(task="reviews", dev=dev, **more)
    (folder / "metrics.json").write_text(json.dumps(content))


def _arguments(overrides: Sequence[str]) -> dict[str, Any]:
    pairs = (override.partition("=") for override in overrides)
    return {key: parsed_value(value) for key, _, value in pairs}
