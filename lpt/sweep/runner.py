"""Runs the jobs of a sweep and collects their results."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from rich.console import Console

from lpt.config.schema import Config, SweepConfig
from lpt.errors import ConfigError, Problems, literal_text
from lpt.report import write_report
from lpt.runs.job_record import ENDED, JOB, JobRecord, JobState
from lpt.runs.record import dev_scores
from lpt.runs.run_dir import is_locked
from lpt.sweep.folder import JOBS, REPORT
from lpt.sweep.jobs import JobResult, read_job, request_prune
from lpt.sweep.plan import Composer, Point, hydra_flags, layers_to_precompute
from lpt.sweep.pool import slots, visible_gpus
from lpt.sweep.progress import SweepProgress
from lpt.sweep.results import CSV, results_row, write_results
from lpt.sweep.space import quote
from lpt.tracking.wandb_sweep import log_sweep

logger = logging.getLogger(__name__)
_REFRESH_SECONDS = 1.0

Launch = Callable[[Sequence[Sequence[str]]], None]
"""Runs jobs, given as the overrides of their runs, and returns when they have ended."""


class SweepRunner:
    """Runs the jobs of a sweep, skipping those that have ended.

    Args:
        config: Settings of the sweep.
        folder: Folder of the sweep.
        launch: Runs jobs.
        console: Console to print on.
        first: Configuration of the first job, for what all jobs share.
    """

    def __init__(
        self, config: SweepConfig, folder: Path, launch: Launch, console: Console, first: Config
    ) -> None:
        self.config = config
        self.folder = folder
        self.launch = launch
        self.console = console
        self.first = first
        self.names: list[str] = []
        self._ended: dict[str, JobResult] = {}

    def run_grid(self, points: Sequence[Point]) -> None:
        """Run the job of every point that has not ended.

        Raises:
            ConfigError: A file that an earlier start of the sweep wrote is damaged.
        """
        self.names = [point.name for point in points]
        jobs = {job.name: job for job, _ in self._read_jobs(self.names, settle=True)}
        skipped = {JobState.FINISHED, JobState.PRUNED}
        if not self.config.retry:
            skipped.add(JobState.FAILED)
        ended = {name for name, job in jobs.items() if job.state in skipped}
        pending = [point for point in points if point.name not in ended]
        if ended:
            self._print(f"{len(ended)} of {len(points)} jobs ended in an earlier start.")
        batch = self._prepare(pending, jobs)
        with self._watch(len(points)):
            self._launch(batch)

    def run_search(self, composer: Composer, trials: int) -> None:
        """Run a search, with as many trials at a time as there are slots for jobs.

        Trials that an earlier start left unfinished come first.

        Raises:
            ConfigError: A file that an earlier start of the sweep wrote is damaged.
        """
        from lpt.sweep.search import Search, trial_number  # Optuna is optional

        folders = (self.folder / JOBS).glob("trial-*")
        self.names = sorted((path.name for path in folders), key=trial_number)
        search = Search(composer, self._read_jobs(self.names, settle=True), prune=self.config.prune)
        strategy = self.first.strategy
        gpus = visible_gpus() if strategy.accelerator != "cpu" else []
        width = len(slots(self.config.jobs, strategy.devices, gpus))

        def prune(jobs: Sequence[JobResult]) -> None:
            for folder in (self._job_dir(j.name) for j, _ in jobs if j.state == JobState.RUNNING):
                if search.should_prune(folder.name, dev_scores(folder)):
                    request_prune(folder)

        started: set[str] = set()
        with self._watch(trials, prune):
            while True:
                batch = [name for name in search.open if name not in started][:width]
                while len(batch) < width and search.count < trials:
                    batch.append(search.ask())
                if not batch:
                    return
                started.update(batch)
                points = [composer.point(search.open[name], name) for name in batch]
                jobs = {job.name: job for job, _ in self._read_jobs(batch)}
                self.names = list(dict.fromkeys([*self.names, *batch]))
                self._launch(self._prepare(points, jobs))
                for job, result in self._read_jobs(batch, settle=True):
                    search.tell(job, result)

    def finalize(self, *, report: bool) -> int:
        """Write the results and the report; returns the exit status.

        Raises:
            ConfigError: A file of a job is damaged.
        """
        rows = self._write_results(self._all_jobs(settle=True))
        counts = Counter(row["state"] for row in rows)
        summary = ", ".join(f"{count} {state}" for state, count in counts.items())
        self._print(f"{summary}; results: {self.folder / CSV}")
        if report and counts[JobState.FINISHED]:
            if self.config.report:
                self._write_report()
            log_sweep(
                self.first.logger.wandb,
                self.folder,
                self.folder.name,
                rows,
                score=f"final/test/{self.first.task.metric}",
                figures=sorted((self.folder / REPORT).glob("*.png")),
                resolved=dataclasses.asdict(self.config),
            )
        complete = set(counts) <= {JobState.FINISHED, JobState.PRUNED}
        return 0 if complete and len(rows) == len(self.names) else 1

    def _write_results(self, jobs: Sequence[JobResult]) -> list[dict[str, Any]]:
        rows = [results_row(job, self._job_dir(job.name), result) for job, result in jobs]
        write_results(self.folder, rows)
        return rows

    def _write_report(self) -> None:
        try:
            self._print(f"Report: {write_report([self.folder], self.folder / REPORT)}")
        except ConfigError as error:
            self._print(f"No report:\n{error.listing}")

    def _print(self, text: str) -> None:
        self.console.print(literal_text(text), soft_wrap=True)

    def _launch(self, batch: Sequence[Sequence[str]]) -> None:
        if not batch:
            return
        try:
            self.launch(batch)
        except Exception as error:  # whatever a launcher raises when it loses a job
            logger.exception("The launcher failed")
            self._print(f"The launcher failed: {error!r}. Waiting for the jobs that still run.")
            while any(is_locked(self._job_dir(name)) for name in self.names):
                time.sleep(1)

    def _prepare(self, points: Sequence[Point], jobs: dict[str, JobRecord]) -> list[list[str]]:
        """Write job.json for each point; returns the overrides of the runs."""
        layers = layers_to_precompute(points)
        batch = []
        for point in points:
            batch.append(self._overrides(point, layers.get(point.name, [])))
            strategy = point.config.strategy
            earlier = jobs.get(point.name)
            job = JobRecord(
                name=point.name,
                settings=point.settings,
                overrides=[*hydra_flags(), *batch[-1]],
                devices=strategy.devices,
                gpu=strategy.accelerator != "cpu",
                attempts=earlier.attempts if earlier else 0,
                seconds=earlier.seconds if earlier else 0.0,
            )
            job.write(self._job_dir(point.name))
        return batch

    def _overrides(self, point: Point, layers: Sequence[int]) -> list[str]:
        """Overrides of the run of a job, which precomputes the hidden states of these layers."""
        cache, wandb = point.config.cache, point.config.logger.wandb
        overrides = [*point.overrides, f"run_dir={quote(str(self._job_dir(point.name)))}"]
        overrides.append("resume=auto")
        if layers:
            all_layers = sorted({*layers, *cache.layers})
            overrides.append(f"cache.layers=[{','.join(map(str, all_layers))}]")
        if wandb.enabled and wandb.group is None:
            overrides.append(f"logger.wandb.group={quote(self.folder.name)}")
        return overrides

    def _all_jobs(self, *, settle: bool = False) -> list[JobResult]:
        """All jobs prepared so far; those that have ended are not read again."""
        known = dict(self._ended)
        for job, result in self._read_jobs(
            [n for n in self.names if n not in known], settle=settle
        ):
            known[job.name] = job, result
            if job.state in ENDED:
                self._ended[job.name] = job, result
        return [known[name] for name in self.names if name in known]

    def _read_jobs(self, names: Sequence[str], *, settle: bool = False) -> list[JobResult]:
        """The jobs with these names that have a job.json, in order; see `read_job`."""
        problems, jobs = Problems(), []
        for folder in map(self._job_dir, names):
            if (folder / JOB).exists():
                with problems.collect():
                    jobs.append(read_job(folder, settle=settle))
        problems.raise_if_any()
        return jobs

    def _job_dir(self, name: str) -> Path:
        return self.folder / JOBS / name

    @contextmanager
    def _watch(
        self, total: int, on_refresh: Callable[[Sequence[JobResult]], None] = lambda _: None
    ) -> Iterator[None]:
        """Within the block, show progress and update results.csv when a job ends.

        `on_refresh` is called with all jobs every second; `total` is the size of the whole sweep.
        """
        progress = SweepProgress(self.config.name, self.console, total, self._all_jobs())
        over = Event()

        def watch() -> None:
            last = False
            while not last:
                last = over.wait(_REFRESH_SECONDS)
                try:
                    ended, jobs = len(self._ended), self._all_jobs()
                    progress.update(jobs)
                    on_refresh(jobs)
                    if len(self._ended) > ended:
                        self._write_results(jobs)
                except Exception:  # the jobs do not depend on it
                    logger.exception("Watching the jobs failed")

        thread = Thread(target=watch, daemon=True)
        with progress.bar:
            thread.start()
            try:
                yield
            finally:
                over.set()
                thread.join()
