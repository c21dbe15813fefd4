"""Files and data sets as tables of text: TSV, CSV, JSONL, parquet, and what `datasets` holds.

GLUE's TSV has its quirks: no quoting (a lone double quote is text), sometimes a byte-order mark,
sometimes no header. A nested value of JSONL or parquet is a cell with its JSON text.
"""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lpt.errors import Problems, config_error

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)
SUFFIXES = (".tsv", ".csv", ".jsonl", ".parquet")
_OBJECT = "one JSON object a line"
_LONGEST_CELL = 2**31 - 1  # characters of a CSV cell


@dataclass(frozen=True)
class Table:
    """One split as it stands in its source.

    Attributes:
        name: File or data set, for messages.
        columns: Text of each column, row by row; None where a row has no value.
        lines: Line of each row in the file, 1-based; row numbers where there are no lines.
        class_names: Names of the numbers in a column, where the source has them.
    """

    name: str
    columns: Mapping[str, Sequence[str | None]]
    lines: Sequence[int]
    class_names: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.lines)

    def place(self, row: int) -> str:
        """`file:line` of a row, for messages."""
        return f"{self.name}:{self.lines[row]}"


def read_table(
    path: Path, header: Sequence[str] | None = None, *, skip_short_rows: bool = False
) -> Table:
    """Read a TSV (no quoting), CSV (quoted as usual), JSONL or parquet file.

    Args:
        path: The file.
        header: Column names of a TSV or CSV without a header line. A first line that holds one of
            these names is a header line all the same.
        skip_short_rows: Leave out rows with too few columns, and say so, instead of refusing them.

    Raises:
        ConfigError: Empty or non-UTF-8 file, unknown suffix, or rows of the wrong width, each with
            its line.
    """
    if path.suffix not in SUFFIXES:
        raise config_error(str(path), f"a {path.suffix or 'suffixless'} file", ", ".join(SUFFIXES))
    try:
        if path.suffix == ".parquet":
            table = _read_parquet([path])
        elif path.suffix == ".jsonl":
            table = _read_jsonl(path)
        else:
            read = _tsv_rows if path.suffix == ".tsv" else _csv_rows
            table = _rectangle(path, header, read(path), skip_short_rows)
    except OSError as error:
        raise config_error(
            str(path), error.strerror or str(error), "a file that can be read"
        ) from error
    if not len(table):
        raise config_error(str(path), "no rows", "at least one row", "give a file with rows in it")
    return table


def read_shards(paths: Sequence[Path]) -> Table:
    """Read a split that lies in several parquet files, in that order.

    Raises:
        ConfigError: A file is no parquet, or there are no rows.
    """
    table = _read_parquet(paths)
    if not len(table):
        raise config_error(table.name, "no rows", "at least one row")
    return table


def table_of(data: Dataset, name: str) -> Table:
    """A data set of the `datasets` library as a table; numbered classes keep their numbers."""
    from datasets import ClassLabel

    classes = {c: f.names for c, f in data.features.items() if isinstance(f, ClassLabel)}
    # Sliced: a column alone gives its values one by one, and a hundred times more slowly.
    columns = {column: [_text(value) for value in data[column][:]] for column in data.features}
    return Table(name, columns, range(1, len(data) + 1), classes)


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, default=str)


def _read_parquet(paths: Sequence[Path]) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Dataset  # its features know the names of classes

    try:
        tables = [pq.read_table(path) for path in paths]
        return table_of(Dataset(pa.concat_tables(tables)), str(paths[0]))
    except Exception as error:  # of any kind, where damaged metadata make no sense
        given = next(iter(str(error).splitlines()), type(error).__name__)
        raise config_error(str(paths[0]), given, "a parquet file") from error


def _tsv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    bare = ((n, line.rstrip("\r\n")) for n, line in _lines(path))
    return ((n, line.split("\t")) for n, line in bare if line)


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(_LONGEST_CELL)
    reader = csv.reader((line for _, line in _lines(path)), strict=True)
    start = 1  # a row with line breaks in its cells counts from its first line
    try:
        for row in reader:
            if row:
                yield start, row
            start = reader.line_num + 1
    except csv.Error as error:
        given = str(error).partition(" - ")[0]  # what follows is advice to programmers
        expected = "quoted CSV: double quotes around cells with commas, quotes or line breaks"
        raise config_error(f"{path}:{start}", given, expected) from error


def _rectangle(
    path: Path,
    header: Sequence[str] | None,
    rows: Iterable[tuple[int, list[str]]],
    skip_short_rows: bool,
) -> Table:
    rows = iter(rows)
    first = next(rows, None)
    lines: list[int] = []
    if first is not None:
        if header is None or set(header) & set(first[1]):
            header = first[1]
            if len(set(header)) != len(header):
                raise config_error(
                    f"{path}:{first[0]}", f"columns {header}", "a header with distinct names"
                )
        else:
            rows = chain([first], rows)
    problems, skipped = Problems(), 0
    columns: dict[str, list[str | None]] = {name: [] for name in header or ()}
    add = [cells.append for cells in columns.values()]
    width = len(columns)
    with problems.rows(str(path)) as bad:
        for n, row in rows:
            if len(row) == width:
                for append, cell in zip(add, row, strict=True):
                    append(cell)
                lines.append(n)
            elif skip_short_rows and len(row) < width:
                skipped += 1
            else:
                expected = f"{width} columns: {', '.join(header or ())}"
                bad.add(f"{path}:{n}", f"{len(row)} columns", expected)
    problems.raise_if_any()
    if skipped:
        logger.warning("%s: %d rows with too few columns were left out.", path, skipped)
    return Table(str(path), columns, lines)


def _read_jsonl(path: Path) -> Table:
    records: list[dict[str, str | None]] = []
    lines: list[int] = []
    problems = Problems()
    with problems.rows(str(path)) as bad:
        for n, line in _lines(path):
            if not (line := line.rstrip("\r\n")):
                continue
            try:
                records.append(_record(line))
                lines.append(n)
            except json.JSONDecodeError as error:
                bad.add(f"{path}:{n}", f"not JSON ({error.msg} at column {error.colno})", _OBJECT)
            except UnicodeEncodeError:
                given = "half of a surrogate pair (\\ud800 to \\udfff alone)"
                bad.add(f"{path}:{n}", given, "whole characters")
            except (TypeError, ValueError, RecursionError) as error:
                # Thousands of digits or brackets are JSON, but not to Python.
                bad.add(f"{path}:{n}", str(error).partition(";")[0], _OBJECT)
    problems.raise_if_any()
    names = dict.fromkeys(name for record in records for name in record)
    return Table(str(path), {k: [r.get(k) for r in records] for k in names}, lines)


def _record(line: str) -> dict[str, str | None]:
    """The cells of a JSON object."""
    record = json.loads(line)
    if not isinstance(record, dict):
        raise TypeError(f"a JSON {type(record).__name__}")
    if "\\ud" in line.lower():  # escapes of a half character are JSON, but not text
        json.dumps(record, ensure_ascii=False).encode()
    return {name: _text(value) for name, value in record.items()}


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines with their ends."""
    with path.open("rb") as file:
        for n, raw in enumerate(file, 1):
            try:
                line = raw.decode("utf-8-sig" if n == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise config_error(
                    f"{path}:{n}",
                    f"byte 0x{raw[error.start]:02x} at {error.start} is not UTF-8",
                    "UTF-8 text",
                    f"convert the file: iconv -f latin1 -t utf-8 {path.name}",
                ) from error
            yield n, line
