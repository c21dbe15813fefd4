"""Tables of text from TSV, CSV, JSONL and parquet files and from `datasets`.

GLUE's TSV has no quoting (a lone double quote is text), sometimes a byte-order mark, sometimes no
header. A nested value of JSONL or parquet becomes a cell with its JSON text, marked as `NoText`.
"""

from __future__ import annotations

import csv
import json
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpt.data.text_files import check_parquet, read_lines
from lpt.errors import ConfigError, Problems, config_error, first_line

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)
SUFFIXES = (".tsv", ".csv", ".jsonl", ".parquet")
_SEPARATORS = {".tsv": "\t", ".csv": ","}
_SEPARATOR_NAMES = {";": "semicolons", "\t": "tabs", ",": "commas", "|": "vertical bars"}
_AS_CSV = "If a CSV writer wrote it, write it again with commas, as .csv."
_QUOTED_CELL = re.compile(r'"(?:[^"]|"")*""(?:[^"]|"")*"')
_QUOTED_COMMAS = re.compile(r'"[^"]*,[^"]*"')  # Excel quotes such cells of a TSV, and no others
_MAX_CELL = 2**31 - 1  # characters of a CSV cell


class NoText(str):
    """The JSON text of a value that is no text: a list, an object, bytes, a date, NaN."""

    __slots__ = ("type_name",)
    type_name: str

    def __new__(cls, value: Any) -> NoText:
        """The JSON text of a value, with the name of its type."""
        cell = super().__new__(cls, json.dumps(value, default=str))
        cell.type_name = str(cell) if isinstance(value, float) else f"a {type(value).__name__}"
        return cell


@dataclass(frozen=True)
class Table:
    """One split as it is stored in its source.

    Attributes:
        name: File or data set, for messages.
        columns: Text of each column, row by row; None where a row has no value.
        lines: Line of each row in the file, 1-based; row number where there are no lines.
        class_names: Class names of numbered label columns, where the source has them.
        short_rows: Last cell of each skipped row, by its place among all rows, from 0.
    """

    name: str
    columns: Mapping[str, Sequence[str | None]]
    lines: Sequence[int]
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    short_rows: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.lines)

    def location(self, row: int) -> str:
        """`file:line` of a row, for messages."""
        return f"{self.name}:{self.lines[row]}"


def read_table(
    path: Path, header: Sequence[str] | None = None, *, skip_short_rows: bool = False
) -> Table:
    """Read a TSV (no quoting), CSV (usual quoting), JSONL or parquet file.

    Args:
        path: The file.
        header: Column names of a TSV or CSV without a header line. A first line that contains one
            of these names is taken as a header line nevertheless.
        skip_short_rows: Skip rows with too few columns with a warning instead of refusing them.

    Raises:
        ConfigError: Empty or non-UTF-8 file, unknown suffix, or rows of the wrong width, each with
            its line.
    """
    if path.suffix not in SUFFIXES:
        raise config_error(str(path), f"a {path.suffix or 'suffixless'} file", ", ".join(SUFFIXES))
    if path.suffix == ".parquet":
        return read_shards([path])
    try:
        if path.suffix == ".jsonl":
            table = _read_jsonl(path)
        else:
            rows = _tsv_rows(path) if path.suffix == ".tsv" else _csv_rows(path)
            table = _read_delimited(path, header, rows, skip_short_rows)
    except OSError as error:
        raise config_error(str(path), error.strerror or str(error), "a readable file") from error
    return _require_rows(table)


def read_shards(paths: Sequence[Path]) -> Table:
    """Read a split that is spread over several parquet files, in the given order.

    Raises:
        ConfigError: A file is not valid parquet, or there are no rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Dataset  # restores class names from the file's metadata

    try:
        for path in paths:
            check_parquet(path)
        tables = [pq.read_table(path) for path in paths]
        table = table_from_dataset(Dataset(pa.concat_tables(tables)), str(paths[0]))
    except ConfigError:
        raise
    except Exception as error:  # damaged files raise errors of any type
        raise config_error(str(paths[0]), first_line(error), "a parquet file") from error
    return _require_rows(table)


def table_from_dataset(dataset: Dataset, name: str) -> Table:
    """A data set of the `datasets` library as a table; class labels keep their numbers."""
    from datasets import ClassLabel

    features = dataset.features.items()
    classes = {column: type_.names for column, type_ in features if isinstance(type_, ClassLabel)}
    # Slicing: iterating over a column yields its values one by one, a hundred times more slowly.
    columns = {column: [_cell(value) for value in dataset[column][:]] for column, _ in features}
    return Table(name, columns, range(1, len(dataset) + 1), classes)


def _require_rows(table: Table) -> Table:
    if not len(table):
        raise config_error(table.name, "no rows", "at least one row")
    return table


def _cell(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return json.dumps(value)
    return str(value) if isinstance(value, Decimal) else NoText(value)


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


def _check_header(path: Path, number: int, names: Sequence[str]) -> None:
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
        raise config_error(f"{path}:{number}", given, expected, _AS_CSV)


def _warn_of_quoting(table: Table) -> None:
    """Warn of cells of a TSV that a CSV writer has quoted: `"He said ""hi"" to me"`."""
    for name, cells in table.columns.items():
        rows = [row for row, cell in enumerate(cells) if cell and _QUOTED_CELL.fullmatch(cell)]
        signs = [row for row, cell in enumerate(cells) if cell and ("," in cell or '"' in cell)]
        if all(_QUOTED_COMMAS.fullmatch(cells[row] or "") for row in signs):
            rows = signs
        if rows:
            message = "%s: %d cells of %s seem to be quoted as in CSV; a TSV keeps such quotes. %s"
            logger.warning(message, table.location(rows[0]), len(rows), name, _AS_CSV)


def _check_spaced_quotes(where: str, row: Sequence[str], line: str) -> None:
    """Refuse CSV cells with a space before their quotes, which are no quotes to CSV then."""
    spaced = [cell for cell in row if cell.startswith(" ") and cell.lstrip()[:1] == '"']
    # In a cell that is rightly quoted, its own quotes are doubled in the line.
    if any(re.search(rf"(^|,){re.escape(cell)}", line.rstrip("\r\n")) for cell in spaced):
        given = f"a space before a quoted cell: {spaced[0]!r}"
        raise config_error(where, given, "quotes directly after the comma", "remove the space")


def _read_delimited(
    path: Path,
    header: Sequence[str] | None,
    numbered_rows: Iterable[tuple[int, list[str]]],
    skip_short_rows: bool,
) -> Table:
    rows = iter(numbered_rows)
    number, first = next(rows, (0, list(header or ())))  # of an empty file: none
    if header is None or len(header) > 1:
        _check_header(path, number, first)
    if header is None or set(header) & set(first):
        header = first
        if len(set(header)) != len(header):
            raise config_error(f"{path}:{number}", f"columns {header}", "distinct names")
    else:
        rows = chain([(number, first)], rows)
    problems, short_rows = Problems(), dict[int, str]()
    columns: dict[str, list[str | None]] = {name: [] for name in header}
    lines: list[int] = []
    appends = [cells.append for cells in columns.values()]
    width = len(columns)
    with problems.rows(str(path)) as bad_rows:
        for number, row in rows:
            if len(row) == width:
                for append, cell in zip(appends, row, strict=True):
                    append(cell)
                lines.append(number)
            elif skip_short_rows and len(row) < width:
                short_rows[len(lines) + len(short_rows)] = row[-1].strip()
            else:
                expected = f"{width} columns: {', '.join(header)}"
                bad_rows.add(f"{path}:{number}", f"{len(row)} columns", expected)
    problems.raise_if_any()
    if short_rows:
        logger.warning("%s: skipped %d rows with too few columns.", path, len(short_rows))
    table = Table(str(path), columns, lines, short_rows=short_rows)
    if path.suffix == ".tsv":
        _warn_of_quoting(table)
    return table


def _read_jsonl(path: Path) -> Table:
    records: list[dict[str, str | None]] = []
    lines: list[int] = []
    problems = Problems()
    with problems.rows(str(path)) as bad_rows:
        for number, line in read_lines(path):
            if not (line := line.rstrip("\r\n")):
                continue
            try:
                records.append(_parse_record(line))
                lines.append(number)
            except (ValueError, RecursionError) as error:
                # Thousands of digits or brackets are JSON, but Python refuses them.
                given = str(error).partition(";")[0]
                bad_rows.add(f"{path}:{number}", given, "one JSON object per line")
    problems.raise_if_any()
    names = dict.fromkeys(name for record in records for name in record)
    columns = {name: [record.get(name) for record in records] for name in names}
    return Table(str(path), columns, lines)


def _parse_record(line: str) -> dict[str, str | None]:
    try:
        record = json.loads(line, object_pairs_hook=_distinct)
    except json.JSONDecodeError as error:
        raise ValueError(f"invalid JSON ({error.msg} at column {error.colno})") from error
    if not isinstance(record, dict):
        raise ValueError(f"a JSON {type(record).__name__}")
    if "\\ud" in line.lower():  # an escaped lone surrogate is valid JSON, but no text
        json.dumps(record, ensure_ascii=False).encode()
    return {name: _cell(value) for name, value in record.items()}


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(record := dict(pairs)) < len(pairs):
        raise ValueError("a name that occurs twice in an object")
    return record
