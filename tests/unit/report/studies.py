"""Studies of made-up runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lpt.errors import Problems
from lpt.report.collect import collect
from lpt.report.study import Study, arrange
from tests.support.runs import metrics, write_run

SEEDS = (13, 21, 42)


def study_of(folder: Path, *runs: dict[str, Any]) -> Study:
    """The study of all runs below a folder, after adding runs with these arguments of `metrics`."""
    for number, arguments in enumerate(runs):
        write_run(folder / f"run{number:03}", metrics(**arguments))
    problems = Problems()
    collection = collect([folder], folder, problems)
    problems.raise_if_any()
    return arrange(collection)
