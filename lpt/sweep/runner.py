"""Runs the jobs of a sweep and collects their results."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event, Thread

from rich.console import Console
from rich.progress import Progress

from lpt.config.schema import Config, SweepConfig
from lpt.errors import ConfigError, Problems, literal_text
from lpt.report import write_report
from lpt.runs.job_record import ENDED, JOB, JobRecord, JobState
from lpt.runs.record import dev_scores
from lpt.runs.run_dir import is_locked
from lpt.sweep.jobs import JobResult, read_job, request_prune
from lpt.sweep.plan import Composer, Point, hydra_flags, layers_to_precompute
from lpt.sweep.pool import slots, visible_gpus
from lpt.sweep.results import CSV, JOBS, REPORT, write_results
from lpt.sweep.space import quote
from lpt.tracking.wandb import log_sweep

logger = logging.getLogger(__name__)
_REFRESH_SECONDS = 1.0
_DAY = 86_400.0

Launch = Callable[[Sequence[Sequence[str]]], None]
"""Runs jobs, given as the overrides of their runs, and returns when they have ended."""
_Watch = Callable[[Sequence[JobResult]], None]


class SweepRunner:
    """Runs the jobs of a sweep, skipping those that have ended.

    Prints a line for each job that starts or ends; on a terminal, a progress bar below these.

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
        self._printed: dict[str, JobState] = {}
        self._bar = Progress(
            console=console,
            disable=not console.is_terminal,
            transient=True,
            speed_estimate_period=_DAY,
        )

    def run_grid(self, points: Sequence[Point]) -> None:
        """Run the job of every point that has not ended.

        Raises:
            ConfigError: A file that an earlier start of the sweep wrote is damaged.
        """
        self.names = [point.name for point in points]
        jobs, kept = self._start(len(points)), {JobState.FINISHED, JobState.PRUNED}
        if not self.config.retry:
            kept.add(JobState.FAILED)
        ended = {job.name for job, _ in jobs if job.state in kept}
        if ended:
            self._print(f"{len(ended)} of {len(points)} jobs ended in an earlier start.")
        self._run([point for point in points if point.name not in ended])

    def run_search(self, composer: Composer, trials: int) -> None:
        """Run a search, with as many trials at a time as there are slots for jobs.

        Trials that an earlier start left unfinished come first.

        Raises:
            ConfigError: A file that an earlier start of the sweep wrote is damaged.
        """
        from lpt.sweep.search import Search, trial_number  # Optuna is optional

        records = (self.folder / JOBS).glob(f"trial-*/{JOB}")  # a killed search left none: no trial
        self.names = sorted((path.parent.name for path in records), key=trial_number)
        search = Search(composer, self._start(trials), prune=self.config.prune)
        strategy = self.first.strategy
        gpus = visible_gpus() if strategy.accelerator != "cpu" else []
        width = len(slots(self.config.jobs, strategy.devices, gpus))

        def prune(jobs: Sequence[JobResult]) -> None:
            for folder in (self._job_dir(j.name) for j, _ in jobs if j.state == JobState.RUNNING):
                if search.should_prune(folder.name, dev_scores(folder)):
                    request_prune(folder)

        pending = list(search.open)
        while pending or search.count < trials:
            while len(pending) < width and search.count < trials:
                pending.append(search.ask())
            batch, pending = pending[:width], pending[width:]
            self.names = list(dict.fromkeys([*self.names, *batch]))
            points = [composer.point(search.open[name], name) for name in batch]
            self._run(points, prune)
            for job, result in self._jobs(settle=True):
                search.tell(job, result)

    def finalize(self, *, report: bool) -> int:
        """Write the results and the report; returns the exit status.

        Raises:
            ConfigError: A file of a job is damaged.
        """
        rows = write_results(self.folder, self._jobs(settle=True))
        counts = Counter(row["state"] for row in rows)
        summary = ", ".join(f"{count} {state}" for state, count in counts.items())
        self._print(f"{summary}; results: {self.folder / CSV}")
        if report and counts[JobState.FINISHED]:
            if self.config.report:
                self._write_report()
            log_sweep(
                self.first.logger.wandb,
                self.folder,
                rows,
                score=f"final/test/{self.first.task.metric}",
                figures=sorted((self.folder / REPORT).glob("*.png")),
                resolved=dataclasses.asdict(self.config),
            )
        complete = set(counts) <= {JobState.FINISHED, JobState.PRUNED}
        return 0 if complete and len(rows) == len(self.names) else 1

    def _write_report(self) -> None:
        try:
            self._print(f"Report: {write_report([self.folder], self.folder / REPORT)}")
        except ConfigError as error:
            self._print(f"No report:\n{error.listing}")

    def _print(self, text: str) -> None:
        self.console.print(literal_text(text), soft_wrap=True)

    def _job_dir(self, name: str) -> Path:
        return self.folder / JOBS / name

    def _jobs(self, *, settle: bool = False) -> list[JobResult]:
        """All jobs prepared so far, in order; those that have ended are read once. See `read_job`.

        Raises:
            ConfigError: Files are damaged.
        """
        problems, jobs = Problems(), []
        for name in self.names:
            if name in self._ended:
                jobs.append(self._ended[name])
            elif (self._job_dir(name) / JOB).exists():
                with problems.collect():
                    jobs.append(read_job(self._job_dir(name), settle=settle))
        problems.raise_if_any()
        self._ended |= {job.name: (job, result) for job, result in jobs if job.state in ENDED}
        return jobs

    def _start(self, total: int) -> list[JobResult]:
        """The jobs that an earlier start of the sweep has left; `total` of the whole sweep."""
        self._bar.add_task(self.config.name, total=total)
        jobs = self._jobs(settle=True)
        self._printed = {job.name: job.state for job, _ in jobs}
        return jobs

    def _run(self, points: Sequence[Point], watch: _Watch = lambda _: None) -> None:
        """Run jobs; meanwhile show progress, and give all jobs to `watch` every second."""
        if not points:
            return
        batch, over = self._prepare(points), Event()
        thread = Thread(target=self._watch, args=[watch, over], daemon=True)
        with self._bar:
            thread.start()
            try:
                self.launch(batch)
            except Exception as error:  # whatever a launcher raises when it loses a job
                logger.exception("The launcher failed")
                self._print(f"The launcher failed: {error!r}. Waiting for the jobs that still run.")
                while any(is_locked(self._job_dir(name)) for name in self.names):
                    time.sleep(_REFRESH_SECONDS)
            finally:
                over.set()
                thread.join()

    def _watch(self, watch: _Watch, over: Event) -> None:
        """Show progress until the jobs are over; update results.csv when a job ends."""
        last = False
        while not last:
            last = over.wait(_REFRESH_SECONDS)
            try:
                ended, jobs = len(self._ended), self._jobs()
                self._show(jobs)
                watch(jobs)
                if len(self._ended) > ended:
                    write_results(self.folder, jobs)
            except Exception:  # the jobs do not depend on it
                logger.exception("Watching the jobs failed")

    def _show(self, jobs: Sequence[JobResult]) -> None:
        """Print what has changed."""
        [bar], ended = self._bar.tasks, sum(job.state in ENDED for job, _ in jobs)
        self._bar.update(bar.id, completed=ended)
        counts = f"{ended} of {bar.total:.0f} ended"
        scores = {job.name: result.selection.value for job, result in jobs if result is not None}
        if scores:
            best = max(scores, key=scores.__getitem__)
            counts += f", best dev {scores[best]:.3f} ({best})"
        for job, _ in jobs:
            if job.state not in (JobState.WAITING, self._printed.get(job.name)):
                self._printed[job.name] = job.state
                line = f"{job.name} {job.state}" + (f": {job.reason}" if job.reason else "")
                if job.name in scores:
                    line += f": dev {scores[job.name]:.3f} in {job.seconds:.0f} s"
                self._print(f"{line}   [{counts}]")

    def _prepare(self, points: Sequence[Point]) -> list[list[str]]:
        """Write job.json for each point; returns the overrides of the runs.

        The first job with certain inputs precomputes the hidden states for all of them.
        """
        layers, batch = layers_to_precompute(points), []
        jobs = {job.name: job for job, _ in self._jobs()}
        for point in points:
            for known in (self._ended, self._printed):  # of an attempt that failed
                known.pop(point.name, None)
            config, folder, earlier = point.config, self._job_dir(point.name), jobs.get(point.name)
            overrides = [*point.overrides, f"run_dir={quote(str(folder))}", "resume=auto"]
            if point.name in layers:
                all_layers = sorted({*layers[point.name], *config.cache.layers})
                overrides.append(f"cache.layers=[{','.join(map(str, all_layers))}]")
            if config.logger.wandb.enabled and config.logger.wandb.group is None:
                overrides.append(f"logger.wandb.group={quote(self.folder.name)}")
            batch.append(overrides)
            job = JobRecord(
                name=point.name,
                settings=point.settings,
                overrides=[*hydra_flags(), *overrides],
                devices=config.strategy.devices,
                gpu=config.strategy.accelerator != "cpu",
                attempts=earlier.attempts if earlier else 0,
                seconds=earlier.seconds if earlier else 0.0,
            )
            job.write(folder)
        return batch
