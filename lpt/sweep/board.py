"""What a sweep is doing, read from its jobs' folders: a live table, or plain lines."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from lpt.errors import Problems, literal_text
from lpt.runs.json_records import RECORD, read_json, to_record
from lpt.runs.record import PROGRESS
from lpt.sweep.job import DONE, FAILED, INTERRUPTED, PRUNED, RUNNING, WAITING, Job

logger = logging.getLogger(__name__)
_EVERY_SECONDS = 0.5
_SHOWN = 8
_ENDED = (DONE, FAILED, PRUNED)


@dataclass(frozen=True)
class Seen:
    """A job and how far its run is.

    Attributes:
        job: Its state.
        step: Optimizer steps done at its last evaluation.
        steps: Those it will take; None: not known.
        scores: Dev scores by evaluation.
    """

    job: Job
    step: int = 0
    steps: int | None = None
    scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class _Progress:
    """What progress.json says."""

    metric: str
    steps: int
    dev_history: list[dict[str, float]]


def look(folder: Path) -> Seen | None:
    """See how the job of a folder stands."""
    job = Job.read(folder)
    if job is None:
        return None
    if job.state == WAITING:
        return Seen(job)
    try:
        known = to_record(_Progress, read_json(folder / PROGRESS, RECORD), "", Problems())
        if known is None:
            return Seen(job)
        scores = tuple(entry[known.metric] for entry in known.dev_history)
        step = int(known.dev_history[-1]["step"]) if scores else 0
    except (OSError, ValueError, KeyError):  # it has not come so far, or the file is damaged
        return Seen(job)
    return Seen(job, step, known.steps, scores)


class Board:
    """Shows how the jobs of a sweep stand, from their folders.

    Args:
        title: Name of the sweep.
        console: Where to.
        total: Jobs that there will be.

    Attributes:
        folders: Of the jobs that there are.
    """

    def __init__(self, title: str, console: Console, total: int) -> None:
        self.title = title
        self.folders: Sequence[Path] = []
        self.console = console
        self.total = total
        self.started = time.monotonic()
        self.told: dict[str, str] = {}
        self.ended: dict[Path, Seen] = {}
        self.at_start: set[str] | None = None

    @contextmanager
    def shown(self, each_time: Callable[[Sequence[Seen]], None] | None = None) -> Any:
        """Show it within the block.

        Args:
            each_time: Called with what was seen, twice a second.
        """
        over = Event()
        self._lines(self._look())  # what had ended before is no news

        def watch(live: Live | None) -> None:
            while True:
                last = over.wait(_EVERY_SECONDS)
                seen = self._look()
                if each_time is not None:
                    self._tell(each_time, seen)
                if live is not None:
                    live.update(self.render(seen))
                else:
                    for line in self._lines(seen):
                        self.console.print(literal_text(line), soft_wrap=True)
                if last:
                    return

        live = Live(console=self.console, refresh_per_second=2, transient=True)
        if not self.console.is_terminal:
            live_or_none = None
        else:
            live_or_none = live
            live.start()
        thread = Thread(target=watch, args=[live_or_none], daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            if live_or_none is not None:
                live.stop()

    def _tell(self, each_time: Callable[[Sequence[Seen]], None], seen: Sequence[Seen]) -> None:
        try:
            each_time(seen)
        except Exception:  # the sweep goes on, and so does the board
            logger.exception("What watches over the jobs failed")

    def render(self, seen: Sequence[Seen]) -> Group:
        """The table as it is now."""
        title = literal_text(f"{self.title} · {self.summary(seen)}", "table.title")
        table = Table(title=title, title_justify="left")
        for name in ("job", "state", "step", "dev"):
            table.add_column(name, overflow="fold")
        rows = [s for s in seen if s.job.state == RUNNING]
        rows += [s for s in seen if s.job.state == FAILED][-_SHOWN:]
        for one in rows:
            steps = f"{one.step}/{one.steps}" if one.steps else str(one.step or "")
            score = f"{max(one.scores):.3f}" if one.scores else ""
            state = one.job.state if one.job.reason is None else f"failed: {one.job.reason[:80]}"
            table.add_row(*map(literal_text, (one.job.name, state, steps, score)))
        return Group(table)

    def summary(self, seen: Sequence[Seen]) -> str:
        """Counts, best so far, time left."""
        counts = Counter(one.job.state for one in seen)
        counts[WAITING] += self.total - len(seen)
        names = {DONE: "done", RUNNING: "running", FAILED: "failed", WAITING: "to do"}
        names |= {INTERRUPTED: "interrupted", PRUNED: "pruned"}
        parts = [f"{counts[state]} {name}" for state, name in names.items() if counts[state]]
        ended = [one for one in seen if one.job.state == DONE and one.scores]
        if ended:
            best = max(ended, key=lambda one: max(one.scores))
            parts.append(f"best dev so far {max(best.scores):.3f} ({best.job.name})")
        left = self._seconds_left(seen, counts)
        return " · ".join([*parts, f"about {duration(left)} left"] if left else parts)

    def _seconds_left(self, seen: Sequence[Seen], counts: Mapping[str, int]) -> float | None:
        """From what ended since the start, so that several at a time are reckoned with."""
        ended = {one.job.name for one in seen if one.job.state in _ENDED}
        if self.at_start is None:
            self.at_start = ended
        new = len(ended - self.at_start)
        left = counts[WAITING] + counts[RUNNING] / 2
        return left * (time.monotonic() - self.started) / new if new and left else None

    def _look(self) -> list[Seen]:
        found = []
        for folder in self.folders:
            one = self.ended.get(folder) or look(folder)
            if one is None:
                continue
            if one.job.state in _ENDED:  # not read again, of a thousand jobs
                self.ended[folder] = one
            found.append(one)
        return found

    def _lines(self, seen: Sequence[Seen]) -> list[str]:
        """What has changed since the last time."""
        lines = []
        for one in seen:
            job = one.job
            if self.told.get(job.name, WAITING) == job.state:
                continue
            self.told[job.name] = job.state
            said = f": {job.reason}" if job.reason else ""
            if job.state == DONE and one.scores:
                said = f", dev {max(one.scores):.3f}, {duration(job.seconds)}"
            lines.append(f"{job.name} {job.state}{said}   [{self.summary(seen)}]")
        return lines


def duration(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
