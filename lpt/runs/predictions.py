"""Predictions of a run as TSV files, one line per example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lpt.files import write_atomically


def predictions_file(name: str) -> str:
    """Name of the file with the predictions for a set."""
    return "predictions.tsv" if name == "test" else f"predictions-{name}.tsv"


def write_predictions(run_dir: Path, name: str, columns: Mapping[str, Sequence[str]]) -> None:
    """Write the predictions for a set, given the cells of each column."""
    rows = zip(*columns.values(), strict=True)
    lines = ["\t".join(columns), *("\t".join(map(_one_line, row)) for row in rows)]
    write_atomically(run_dir / predictions_file(name), "\n".join(lines) + "\n")


def _one_line(cell: str) -> str:
    """Free text without the tabs and line breaks that would end its cell."""
    return " ".join(cell.split()) if not cell.isprintable() else cell
