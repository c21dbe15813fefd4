"""Rows of TSV and CSV files."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from lpt.data.text_files import read_lines
from lpt.errors import config_error

_SEPARATORS = {".tsv": "\t", ".csv": ","}
_SEPARATOR_NAMES = {";": "semicolons", "\t": "tabs", ",": "commas", "|": "vertical bars"}
AS_CSV = "If a CSV writer wrote it, write it again with commas, as .csv."
_MAX_CELL = 2**31 - 1  # characters of a CSV cell


def delimited_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The cells of each row with the line that it begins in; TSV has no quoting.

    Raises:
        ConfigError: A cell is badly quoted, or the file is no text.
    """
    return _tsv_rows(path) if path.suffix == ".tsv" else _csv_rows(path)


def _tsv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    for number, line in read_lines(path):
        if line := line.rstrip("\r\n"):
            yield number, line.split("\t")


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(_MAX_CELL)
    line = ""

    def lines() -> Iterator[str]:
        nonlocal line
        for _, line in read_lines(path):
            yield line

    reader = csv.reader(lines(), strict=True)
    start = 1  # a row with line breaks in its cells is named by its first line
    try:
        for row in reader:
            if row:
                if ' "' in line:
                    _check_spaced_quotes(f"{path}:{start}", row, line)
                yield start, row
            start = reader.line_num + 1
    except csv.Error as error:
        reason = str(error).partition(" - ")[0]  # the rest is advice for programmers
        expected = "quoted CSV: double quotes around cells with commas, quotes or line breaks"
        raise config_error(f"{path}:{start}", reason, expected) from error


def check_header(path: Path, number: int, names: Sequence[str]) -> None:
    """Refuse a first line that has another separator, or the quotes of CSV in a TSV."""
    suffix = path.suffix
    expected = f"columns separated by {_SEPARATOR_NAMES[_SEPARATORS[suffix]]}"
    if len(names) == 1 and (found := [s for s in _SEPARATOR_NAMES if s in names[0]]):
        fitting = [other for other, separator in _SEPARATORS.items() if separator == found[0]]
        given = f"columns separated by {_SEPARATOR_NAMES[found[0]]}: {names[0]!r}"
        hint = f"name it {path.stem}{fitting[0]}" if fitting else "save it with commas, as CSV"
        raise config_error(f"{path}:{number}", given, f"{expected} in a {suffix} file", hint)
    if (
        suffix == ".tsv"
        and names
        and all(len(name) > 1 and name[0] == name[-1] == '"' for name in names)
    ):
        given = f"names in quotes: {', '.join(names)}"
        expected = "a TSV file, whose quotes are part of the text"
        raise config_error(f"{path}:{number}", given, expected, AS_CSV)


def _check_spaced_quotes(where: str, row: Sequence[str], line: str) -> None:
    """Refuse CSV cells with a space before their quotes, which are no quotes to CSV then."""
    spaced = [cell for cell in row if cell.startswith(" ") and cell.lstrip()[:1] == '"']
    # In a cell that is rightly quoted, its own quotes are doubled in the line.
    if any(re.search(rf"(^|,){re.escape(cell)}", line.rstrip("\r\n")) for cell in spaced):
        given = f"a space before a quoted cell: {spaced[0]!r}"
        raise config_error(where, given, "quotes directly after the comma", "remove the space")
