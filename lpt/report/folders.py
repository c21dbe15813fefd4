"""Which files a report is made of: finished runs, jobs and sweeps under some folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lpt.errors import Problems

# Named here, too, because lpt.runs.record imports torch; a test holds the two together.
FINISHED = "metrics.json"
JOB = "job.json"
SWEEP = "sweep.json"
MARK = ".lpt-report"
"""File that marks a folder as a report, which may be replaced and is not searched."""

# A run's own folders hold much, and nothing for a report.
_INSIDE_A_RUN = ("adapter", "checkpoints", "csv", "tensorboard", "wandb")


@dataclass
class Found:
    """What lies under the searched folders, each file once."""

    runs: list[Path] = field(default_factory=list)
    """Folders with metrics.json."""
    jobs: list[Path] = field(default_factory=list)
    """Folders with job.json."""
    sweeps: list[Path] = field(default_factory=list)
    """Folders with sweep.json."""


def find(folders: Iterable[Path], problems: Problems) -> Found:
    """Search folders for runs, jobs and sweeps, leaving out reports.

    Args:
        folders: Searched with all below them; overlapping ones count once.
        problems: Where folders that are not there are noted.
    """
    found = Found()
    for folder in dict.fromkeys(folder.resolve() for folder in folders):
        if not folder.is_dir():
            problems.add(str(folder), "is not a folder", "folders of runs or sweeps")
            continue
        for path, names in _walk(folder):
            for name, paths in (
                (FINISHED, found.runs),
                (JOB, found.jobs),
                (SWEEP, found.sweeps),
            ):
                if name in names and path not in paths:
                    paths.append(path)
    return found


def _walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Folders and the names of their files, in an order that is always the same."""
    for path, folders, names in os.walk(folder):
        if MARK in names:
            folders.clear()
            continue
        inside = _INSIDE_A_RUN if FINISHED in names or JOB in names else ()
        folders[:] = sorted(name for name in folders if name not in inside)
        yield Path(path), names
