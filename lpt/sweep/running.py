"""The jobs of a sweep in their folders: run what has not ended, write the record and report."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from lpt.config.schema import Config, SweepConfig
from lpt.errors import ConfigError, Problems, literal_text
from lpt.report import write_report
from lpt.runs.run_dir import is_locked
from lpt.sweep.board import Board, Seen
from lpt.sweep.folder import JOBS, REPORT
from lpt.sweep.job import (
    DONE,
    FAILED,
    PRUNED,
    RUNNING,
    WAITING,
    Job,
    ask_to_prune,
)
from lpt.sweep.plan import Composer, Point, layers_to_fill
from lpt.sweep.pool import places, visible_gpus
from lpt.sweep.record import CSV, write_record
from lpt.sweep.search import Search
from lpt.sweep.space import quoted
from lpt.tracking.wandb import log_sweep

logger = logging.getLogger(__name__)
Launch = Callable[[Sequence[Sequence[str]]], None]


@dataclass
class Sweep:
    """The jobs of a sweep in their folders.

    Attributes:
        config: How they are run.
        folder: Of the sweep.
        launch: Has jobs run, given as their overrides.
        console: Where it is told how they stand.
        first: Configuration of the first job, for what all have in common.
        names: Of the jobs that there are, in order.
        noted: How many of them had ended when the record was written.
        told: Damaged files that were named already.
    """

    config: SweepConfig
    folder: Path
    launch: Launch
    console: Console
    first: Config
    names: list[str] = dataclasses.field(default_factory=list)
    noted: int = 0
    told: set[str] = dataclasses.field(default_factory=set)

    def grid(self, points: Sequence[Point]) -> None:
        """Run every point that has not ended."""
        self.names = [point.name for point in points]
        pending = [point for point in points if self._to_do(point)]
        if len(pending) < len(points):
            hint = {point.name for point in pending}
            ended = [self._job(name) for name in self.names if name not in hint]
            states = Counter(job.state for job in ended if job is not None)
            told = ", ".join(f"{count} {state}" for state, count in states.items())
            self._say(f"{len(ended)} of {len(points)} jobs have ended before: {told}.")
        board = Board(self.config.name, self.console, len(points))
        board.folders = self._homes()
        batch = self._described(pending)
        with board.shown(self._note):
            self._run(batch)

    def search(self, composer: Composer, trials: int) -> None:
        """Ask for as many trials as run at a time, run them, tell how they ended, and so on."""
        search = Search(composer, self.folder, prune=self.config.prune)
        board = Board(self.config.name, self.console, trials)
        self._tell(search)  # what ended just before an earlier start was stopped
        self.names = search.names
        started: set[str] = set()

        def watch(seen: Sequence[Seen]) -> None:
            self._note(seen)
            _prune(search, seen)

        with board.shown(watch):
            while batch := self._next_trials(search, composer, trials, started):
                self.names = search.names
                board.folders = self._homes()
                self._run(self._described(batch))
                self._tell(search)

    def leave(self, *, report: bool) -> int:
        """Write the record and the report; returns the exit status."""
        jobs = self._jobs()
        for job in jobs:
            job.settle()
        rows = write_record(self.folder, jobs)
        counts = Counter(job.state for job in jobs)
        told = ", ".join(f"{count} {state}" for state, count in counts.items())
        self._say(f"{told}; the record is in {self.folder / CSV}")
        if report and counts[DONE]:
            if self.config.report:
                self._report()
            log_sweep(
                self.first.logger.wandb,
                self.folder,
                self.folder.name,
                rows,
                score=f"final/test/{self.first.task.metric}",
                figures=sorted((self.folder / REPORT).glob("*.png")),
                resolved=dataclasses.asdict(self.config),
            )
        return 0 if set(counts) <= {DONE, PRUNED} and len(jobs) == len(self.names) else 1

    def _report(self) -> None:
        try:
            self._say(f"The report is in {write_report([self.folder], self.folder / REPORT)}")
        except ConfigError as error:
            self._say(f"No report:\n{error.listing}")
        except Exception as error:  # the record is what counts
            logger.exception("The report could not be made")
            self._say(f"No report ({error!r}): python -m lpt.report {self.folder} tries again")

    def _say(self, text: str) -> None:
        self.console.print(literal_text(text), soft_wrap=True)

    def _note(self, seen: Sequence[Seen]) -> None:
        """Write the record anew when a job has ended."""
        ended = sum(one.job.state not in (WAITING, RUNNING) for one in seen)
        if ended != self.noted:
            self.noted = ended
            write_record(self.folder, [one.job for one in seen])

    def _run(self, batch: Sequence[Sequence[str]]) -> None:
        if not batch:
            return
        try:
            self.launch(batch)
        except Exception as error:  # what a launcher raises for a job that it lost
            logger.exception("The launcher gave up")
            self._say(f"The launcher gave up: {error!r}")
            self._await_others(f"lost by the launcher: {error!r}")

    def _await_others(self, reason: str) -> None:
        """Let the jobs end that are still running somewhere; those that were running are lost."""
        while any(map(is_locked, self._homes())):
            time.sleep(1)
        for job in self._jobs():
            if job.state == RUNNING and job.metrics is None:
                job.state, job.reason = FAILED, reason
                job.write()

    def _described(self, points: Sequence[Point]) -> list[list[str]]:
        filled = layers_to_fill(points)
        return [self._describe(point, filled.get(point.name, [])) for point in points]

    def _describe(self, point: Point, layers: Sequence[int]) -> list[str]:
        """Write down what a job is; returns the overrides of its run."""
        home, config = self._home(point.name), point.config
        arguments = [*point.overrides, f"run_dir={quoted(str(home))}", "resume=auto"]
        if layers:
            all_layers = sorted({*layers, *config.cache.layers})
            arguments.append(f"cache.layers=[{','.join(map(str, all_layers))}]")
        if config.logger.wandb.enabled and config.logger.wandb.group is None:
            arguments.append(f"logger.wandb.group={quoted(self.folder.name)}")
        job = self._job(point.name) or Job(point.name, dict(point.settings), arguments, folder=home)
        job.arguments, job.state, job.reason = arguments, WAITING, None
        job.devices, job.gpu = config.strategy.devices, config.strategy.accelerator != "cpu"
        job.write()
        return arguments

    def _to_do(self, point: Point) -> bool:
        job = self._job(point.name)
        if job is None:
            return True
        job.settle()
        return job.state not in (DONE, PRUNED) and (job.state != FAILED or self.config.retry)

    def _next_trials(
        self, search: Search, composer: Composer, trials: int, started: set[str]
    ) -> list[Point]:
        """Trials that an earlier start left open, then new ones; each once."""
        strategy = self.first.strategy
        gpus = visible_gpus() if strategy.accelerator != "cpu" else []
        width = len(places(self.config.jobs, strategy.devices, gpus))
        batch = [composer.point(s, name) for name, s in search.open.items() if name not in started]
        while len(batch) < width and len(search.study.trials) < trials:
            name, settings = search.ask()
            batch.append(composer.point(settings, name))
        started.update(point.name for point in batch[:width])
        return batch[:width]

    def _tell(self, search: Search) -> None:
        for name in search.open:
            job = self._job(name)
            if job is not None:
                job.settle()
                search.tell(job)

    def _jobs(self) -> list[Job]:
        return [job for job in map(self._job, self.names) if job is not None]

    def _job(self, name: str) -> Job | None:
        """A job as its folder has it; damaged files are named, once each."""
        problems = Problems()
        job = Job.read(self._home(name), problems)
        if job is not None:
            job.result(problems)
        for one in problems.found:
            if one.where not in self.told:
                self.told.add(one.where)
                self._say(f"{one.where} is damaged, so {name} has not ended: {one.given}")
                self._say(f"  do: {one.hint}")
        return job

    def _home(self, name: str) -> Path:
        return self.folder / JOBS / name

    def _homes(self) -> list[Path]:
        return list(map(self._home, self.names))


def _prune(search: Search, seen: Sequence[Seen]) -> None:
    for one in seen:
        if one.job.state == RUNNING and search.behind(one.job.name, one.scores):
            ask_to_prune(one.job.folder)
