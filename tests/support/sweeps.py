"""Sweeps in this process whose jobs are fakes: they end at once, as the test decides."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hydra import compose, initialize_config_dir

from lpt.config.compose import register
from lpt.config.schema import SweepConfig
from lpt.runs.job_record import JOB, JobRecord, JobState
from lpt.sweep.jobs import run_job
from lpt.sweep.main import run_sweep
from lpt.sweep.plan import Composer
from lpt.sweep.space import parse_value, read_space
from tests.support import runs
from tests.support.configs import CONF

TASK = (
    *("task=reviews", "task.labels=['0','1']", "task.template='{text} It was <mask> .'"),
    *("data.max_length=64", "strategy.accelerator=cpu"),
)
Ending = Callable[[dict[str, Any]], int | float]
"""From the overrides of a job to its exit status, or to its dev score if it finishes."""


def composer(
    *arguments: str, search: bool = False, settings: Sequence[dict[str, Any]] = ()
) -> Composer:
    """Composes the jobs of a sweep with these overrides and couples."""
    config = SweepConfig(trials=1 if search else None, settings=list(settings))
    return Composer(read_space(arguments, config))


class FakeSweep:
    """Runs sweeps on the toy data.

    Args:
        overrides: Overrides of all sweeps.
        folder: Folder of the sweep.
    """

    def __init__(self, overrides: Sequence[str], folder: Path) -> None:
        self.overrides = [*overrides, *TASK, f"sweep.dir={folder}", "sweep.report=false"]
        self.folder = folder
        self.batches: list[list[dict[str, Any]]] = []
        """Overrides of the jobs that the last sweep has run, by key."""
        self.ending: Ending = lambda _: 0.75
        self.lost: set[int] = set()
        """Seeds of jobs that the launcher loses silently."""

    def __call__(self, *arguments: str, fixed: Sequence[str] = ()) -> int:
        """Run a sweep; `fixed` are overrides that do not vary."""
        register()
        self.batches.clear()
        fixed = [*self.overrides, *fixed]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return run_sweep(compose("train", fixed), [*fixed, *arguments], self._launch)

    @property
    def jobs(self) -> dict[str, JobRecord]:
        """Name -> the job."""
        folders = (path.parent for path in self.folder.glob(f"jobs/*/{JOB}"))
        return {folder.name: JobRecord.read(folder) for folder in folders}

    @property
    def states(self) -> dict[str, tuple[str, int]]:
        """Name -> state and number of attempts."""
        return {name: (str(job.state), job.attempts) for name, job in self.jobs.items()}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Content of results.jsonl."""
        return list(map(json.loads, (self.folder / "results.jsonl").read_text().splitlines()))

    def _launch(self, batch: Sequence[Sequence[str]]) -> None:
        self.batches.append(list(map(_by_key, batch)))
        for overrides in self.batches[-1]:
            folder = Path(overrides["run_dir"])
            if overrides.get("seed") in self.lost:
                job = JobRecord.read(folder)
                job.state = JobState.RUNNING
                job.write(folder)
            else:
                run_job(folder, start=self._start)
        if self.lost:
            raise RuntimeError("a worker is gone")

    def _start(self, overrides: Sequence[str], output: Path, *_: Any) -> Any:
        ending = self.ending(_by_key(overrides))
        if isinstance(ending, float):
            write_metrics(output.parent, ending)
            return SimpleNamespace(pid=None, exitcode=0)
        with output.open("a") as file:
            file.write("RuntimeError: out of luck\n")
        return SimpleNamespace(pid=None, exitcode=ending)


def write_metrics(folder: Path, dev: float) -> None:
    """Write metrics.json as a finished run does."""
    (folder / "metrics.json").write_text(json.dumps(runs.metrics(task="reviews", dev=dev)))


def _by_key(overrides: Sequence[str]) -> dict[str, Any]:
    pairs = (override.partition("=") for override in overrides)
    return {key: parse_value(value) for key, _, value in pairs}
