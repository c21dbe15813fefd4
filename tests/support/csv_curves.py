"""The curves that a run has logged as CSV."""

from __future__ import annotations

import csv
import sys
from pathlib import Path


def read_curves(run_dir: Path) -> list[dict[str, str]]:
    """Rows of all starts of a run, without those that a resumed run has logged again.

    Each start writes a `version_N` of its own; the steps after the checkpoint that it resumes from
    are in the one before as well.
    """
    rows: list[dict[str, str]] = []
    starts = sorted((run_dir / "csv").iterdir(), key=lambda path: int(path.name.partition("_")[2]))
    for start in starts:
        file = start / "metrics.csv"
        if not file.exists():  # stopped before anything was logged
            continue
        with file.open(newline="") as lines:
            again = [row for row in csv.DictReader(lines) if (row["step"] or "").isdecimal()]
        # A start with nothing left to train only tests, under the step of its checkpoint.
        trained = [row for row in again if row.get("train/loss") or row.get("dev/accuracy")]
        first = min((int(row["step"]) for row in trained), default=sys.maxsize)
        rows = [row for row in rows if int(row["step"]) < first] + again
    return rows
