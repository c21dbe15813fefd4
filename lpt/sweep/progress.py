"""Progress of a sweep on the console."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.progress import Progress

from lpt.errors import literal_text
from lpt.runs.job_record import ENDED, JobState
from lpt.sweep.jobs import JobResult

_DAY = 86_400.0


class SweepProgress:
    """A line for each job that starts or ends; on a terminal, a progress bar below these.

    Args:
        name: Name of the sweep.
        console: Console to print on.
        total: Number of jobs of the whole sweep.
        jobs: The jobs at the start, of which nothing is printed.
    """

    def __init__(self, name: str, console: Console, total: int, jobs: Iterable[JobResult]) -> None:
        self.console = console
        self._total = total
        self._printed = {job.name: job.state for job, _ in jobs}
        self.bar = Progress(
            console=console,
            disable=not console.is_terminal,
            transient=True,
            speed_estimate_period=_DAY,
        )
        self._task = self.bar.add_task(name, total=total)

    def update(self, jobs: Sequence[JobResult]) -> None:
        """Show the current state of all jobs."""
        ended, best = sum(job.state in ENDED for job, _ in jobs), _best(jobs)
        self.bar.update(self._task, completed=ended)
        for job, result in jobs:
            if self._printed.get(job.name, JobState.WAITING) == job.state:
                continue
            self._printed[job.name] = job.state
            line = f"{job.name} {job.state}" + (f": {job.reason}" if job.reason else "")
            if result is not None:
                line += f": dev {result.selection.value:.3f} in {job.seconds:.0f} s"
            counts = ", ".join(filter(None, [f"{ended} of {self._total} ended", best]))
            self.console.print(literal_text(f"{line}   [{counts}]"), soft_wrap=True)


def _best(jobs: Iterable[JobResult]) -> str:
    scores = {job.name: result.selection.value for job, result in jobs if result is not None}
    if not scores:
        return ""
    best = max(scores, key=scores.__getitem__)
    return f"best dev {scores[best]:.3f} ({best})"
