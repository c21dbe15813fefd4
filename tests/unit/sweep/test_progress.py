"""What a sweep prints while its jobs run."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from lpt.runs.job_record import JobRecord, JobState
from lpt.runs.record import RunRecord
from lpt.sweep.jobs import JobResult
from lpt.sweep.progress import SweepProgress
from tests.support import runs


def job(name: str, state: JobState, dev: float | None = None, **known: Any) -> JobResult:
    record = JobRecord(name=name, settings={}, overrides=[], state=state, **known)
    return record, None if dev is None else RunRecord.model_validate(runs.metrics(dev=dev))


def test_a_line_for_each_change() -> None:
    console = Console(file=io.StringIO(), width=40)
    before = job("a", JobState.FINISHED, 0.5)
    waiting, running = job("b", JobState.WAITING), job("b", JobState.RUNNING)
    progress = SweepProgress("layers", console, 4, [before, waiting])
    for jobs in ([before, waiting], [before, running], [before, running]):
        progress.update(jobs)
    failed = job("b", JobState.FAILED, reason="ValueError: [1] [/x] no")
    progress.update([before, failed, job("c", JobState.FINISHED, 0.7, seconds=12.0)])
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "b running   [1 of 4 ended, best dev 0.500 (a)]",
        "b failed: ValueError: [1] [/x] no   [3 of 4 ended, best dev 0.700 (c)]",
        "c finished: dev 0.700 in 12 s   [3 of 4 ended, best dev 0.700 (c)]",
    ]


def test_the_bar_counts_the_jobs_that_have_ended() -> None:
    progress = SweepProgress("layers", Console(file=io.StringIO(), force_terminal=True), 3, [])
    progress.update([job("a", JobState.FINISHED, 0.5), job("b", JobState.RUNNING)])
    [bar] = progress.bar.tasks
    assert (bar.description, bar.completed, bar.total) == ("layers", 1, 3)
