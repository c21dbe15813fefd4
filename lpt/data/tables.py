"""Tables of text from TSV, CSV, JSONL and parquet files and from `datasets`.

GLUE's TSV has no quoting (a lone double quote is text), sometimes a byte-order mark, sometimes no
header. A nested value of JSONL or parquet becomes a cell with its JSON text, marked as `NoText`.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from lpt.data.cells import cell_text, parse_record
from lpt.data.delimited import AS_CSV, check_header, delimited_rows
from lpt.data.text_files import check_parquet, read_lines
from lpt.errors import ConfigError, Problems, config_error, first_line

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)
SUFFIXES = (".tsv", ".csv", ".jsonl", ".parquet")
_QUOTED_CELL = re.compile(r'"(?:[^"]|"")*""(?:[^"]|"")*"')
_QUOTED_COMMAS = re.compile(r'"[^"]*,[^"]*"')  # Excel quotes such cells of a TSV, and no others
_R = TypeVar("_R")


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
    """Read a file as a whole; see `read_tables`.

    Raises:
        ConfigError: It also has no rows.
    """
    if path.suffix == ".parquet":
        return read_shards([path])
    tables = read_tables(path, header, size=sys.maxsize, skip_short_rows=skip_short_rows)
    return _require_rows(next(tables, Table(str(path), {}, ())))


def read_tables(
    path: Path,
    header: Sequence[str] | None = None,
    *,
    size: int,
    skip_short_rows: bool = False,
) -> Iterator[Table]:
    """Read a TSV (no quoting), CSV (usual quoting), JSONL or parquet file piece by piece.

    Args:
        path: The file.
        header: Column names of a TSV or CSV without a header line. A first line that contains one
            of these names is taken as a header line nevertheless.
        size: Rows of each table; the last one may have fewer. A file without rows has no table.
        skip_short_rows: Skip rows with too few columns with a warning instead of refusing them.

    Raises:
        ConfigError: Non-UTF-8 file, unknown suffix, or rows of the wrong width, each with its line.
    """
    if path.suffix not in SUFFIXES:
        raise config_error(str(path), f"a {path.suffix or 'suffixless'} file", ", ".join(SUFFIXES))
    try:
        if path.suffix == ".parquet":
            yield from _parquet_tables(path, size)
        elif path.suffix == ".jsonl":
            yield from _jsonl_tables(path, read_lines(path), size)
        else:
            yield from _delimited_tables(path, header, size, skip_short_rows)
    except OSError as error:
        raise config_error(str(path), error.strerror or str(error), "a readable file") from error


def count_lines(path: Path) -> int:
    """About as many as `read_tables` finds rows in a file."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        return int(pq.read_metadata(path).num_rows)
    with path.open("rb") as file:
        return sum(part.count(b"\n") for part in iter(lambda: file.read(1 << 20), b""))


def read_stream(stream: BinaryIO, name: str, column: str | None, size: int) -> Iterator[Table]:
    """Read JSONL, or plain lines as the texts of a column, piece by piece.

    Args:
        stream: Text in UTF-8.
        name: Name for messages.
        column: The column; None: lines must be JSON.
        size: Rows of each table; the last one may have fewer.

    Raises:
        ConfigError: A line is no JSON object, or not UTF-8.
    """
    path = Path(name)
    lines = read_lines(path, stream)
    number, first = next(lines, (0, "{"))
    lines = chain([(number, first)] if number else [], lines)
    if column is None or first.lstrip().startswith("{"):
        yield from _jsonl_tables(path, lines, size)
        return
    for chunk in _chunks(lines, size):
        numbers, texts = zip(*chunk, strict=True)
        yield Table(name, {column: [text.rstrip("\r\n") for text in texts]}, numbers)


def _chunks(rows: Iterator[_R], size: int) -> Iterator[Iterator[_R]]:
    """The rows in pieces, each to be used up before the next one."""
    for first in rows:
        yield chain([first], islice(rows, size - 1))


def _parquet_tables(path: Path, size: int) -> Iterator[Table]:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Dataset

    with _parquet_errors(path):
        check_parquet(path)
        file, start = pq.ParquetFile(path), 0
        for batch in file.iter_batches(size):
            rows = pa.Table.from_batches([batch], file.schema_arrow)
            table = table_from_dataset(Dataset(rows), str(path))
            yield replace(table, lines=range(start + 1, start + 1 + len(table)))
            start += len(table)


def read_shards(paths: Sequence[Path]) -> Table:
    """Read a split that is spread over several parquet files, in the given order.

    Raises:
        ConfigError: A file is not valid parquet, or there are no rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Dataset  # restores class names from the file's metadata

    with _parquet_errors(paths[0]):
        for path in paths:
            check_parquet(path)
        tables = [pq.read_table(path) for path in paths]
        table = table_from_dataset(Dataset(pa.concat_tables(tables)), str(paths[0]))
    return _require_rows(table)


@contextmanager
def _parquet_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # damaged files raise errors of any type
        raise config_error(str(path), first_line(error), "a parquet file") from error


def table_from_dataset(dataset: Dataset, name: str) -> Table:
    """A data set of the `datasets` library as a table; class labels keep their numbers."""
    from datasets import ClassLabel

    features = dataset.features.items()
    classes = {column: type_.names for column, type_ in features if isinstance(type_, ClassLabel)}
    # Slicing: iterating over a column yields its values one by one, a hundred times more slowly.
    columns = {column: [cell_text(value) for value in dataset[column][:]] for column, _ in features}
    return Table(name, columns, range(1, len(dataset) + 1), classes)


def _require_rows(table: Table) -> Table:
    if not len(table):
        raise config_error(table.name, "no rows", "at least one row")
    return table


def _warn_of_quoting(table: Table) -> None:
    """Warn of cells of a TSV that a CSV writer has quoted: `"He said ""hi"" to me"`."""
    for name, cells in table.columns.items():
        rows = [row for row, cell in enumerate(cells) if cell and _QUOTED_CELL.fullmatch(cell)]
        signs = [row for row, cell in enumerate(cells) if cell and ("," in cell or '"' in cell)]
        if all(_QUOTED_COMMAS.fullmatch(cells[row] or "") for row in signs):
            rows = signs
        if rows:
            message = "%s: %d cells of %s seem to be quoted as in CSV; a TSV keeps such quotes. %s"
            logger.warning(message, table.location(rows[0]), len(rows), name, AS_CSV)


def _delimited_tables(
    path: Path, header: Sequence[str] | None, size: int, skip_short_rows: bool
) -> Iterator[Table]:
    rows = delimited_rows(path)
    number, first = next(rows, (0, list(header or ())))  # of an empty file: none
    if header is None or len(header) > 1:
        check_header(path, number, first)
    if header is None or set(header) & set(first):
        header = first
        if len(set(header)) != len(header):
            raise config_error(f"{path}:{number}", f"columns {header}", "distinct names")
    else:
        rows = chain([(number, first)], rows)
    for chunk in _chunks(rows, size):
        yield _delimited_table(path, header, chunk, skip_short_rows)


def _delimited_table(
    path: Path,
    header: Sequence[str],
    rows: Iterable[tuple[int, list[str]]],
    skip_short_rows: bool,
) -> Table:
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


def _jsonl_tables(path: Path, lines: Iterable[tuple[int, str]], size: int) -> Iterator[Table]:
    stripped = ((number, line.rstrip("\r\n")) for number, line in lines)
    for chunk in _chunks((numbered for numbered in stripped if numbered[1]), size):
        yield _jsonl_table(path, chunk)


def _jsonl_table(path: Path, numbered_lines: Iterable[tuple[int, str]]) -> Table:
    records: list[dict[str, str | None]] = []
    lines: list[int] = []
    problems = Problems()
    with problems.rows(str(path)) as bad_rows:
        for number, line in numbered_lines:
            try:
                records.append(parse_record(line))
                lines.append(number)
            except (ValueError, RecursionError) as error:
                # Thousands of digits or brackets are JSON, but Python refuses them.
                given = str(error).partition(";")[0]
                bad_rows.add(f"{path}:{number}", given, "one JSON object per line")
    problems.raise_if_any()
    names = dict.fromkeys(name for record in records for name in record)
    columns = {name: [record.get(name) for record in records] for name in names}
    return Table(str(path), columns, lines)
