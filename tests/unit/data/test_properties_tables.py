"""Whatever a file holds, it is read as it was written or refused with file and line."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value, disable_progress_bars
from hypothesis import assume, example, given
from hypothesis import strategies as st

from lpt.data.tables import Table, read_table
from lpt.errors import ConfigError
from tests.support.hostile import LONG, texts

Row = tuple[str | None, ...]
Rows = tuple[tuple[str, ...], list[Row]]  # names and cells
LINES = ("tsv", "csv", "jsonl")
BYTES = [b"\n", b"\r\n", b"\r", b"\t", b",", b'"', b"{", b"}", b"[", b'"a":', b"null", b"\\ud800"]
BYTES += [
    b"\xef\xbb\xbf",
    b"\xff",
    b"\xc3\xa9",
    b"\0",
    b"a",
    b"b",
    b'{"a": "x"}\n',
    b"1e999",
    b"a\tb\n",
]
file_bytes = st.binary() | st.lists(st.sampled_from(BYTES) | st.binary(max_size=3)).map(b"".join)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


def read_or_refuse(path: Path, header: Sequence[str] | None = None, skip: bool = False) -> None:
    """A table of text whose lines are the file's, or problems of that file and its lines."""
    last = path.read_bytes().count(b"\n") + 1
    try:
        table = read_table(path, header, skip_short_rows=skip)
    except ConfigError as error:
        for problem in error.problems:
            found = re.fullmatch(rf"{re.escape(str(path))}(?::(\d+))?", problem.where)
            assert found
            assert problem.given
            assert "\n" not in problem.given
            if found[1]:
                assert 1 <= int(found[1]) <= last
            elif path.suffix != ".parquet":
                assert re.fullmatch(r"no rows|\d+ more bad rows", problem.given)
            str(problem).encode()
    else:
        assert len(table) > 0
        for values in table.columns.values():
            assert len(values) == len(table)
            assert all(value is None or value.encode() is not None for value in values)
        if path.suffix != ".parquet":
            assert list(table.lines) == sorted({*table.lines})
            assert table.lines[-1] <= last


@example(b"[" * LONG, None, False)
@example(b'{"a": ' + b"9" * LONG + b"}", None, False)
@example(b'{"a": ' * 3000 + b"1" + b"}" * 3000, None, False)
@example(b'a,b\n"' + b"x\n" * LONG, None, False)
@given(file_bytes, st.none() | st.just(["a", "b"]), st.booleans())
@pytest.mark.parametrize("suffix", [*LINES, "parquet"])
def test_any_bytes_are_a_table_or_refused(
    folder: Path, suffix: str, content: bytes, header: list[str] | None, skip: bool
) -> None:
    path = folder / f"any.{suffix}"
    path.write_bytes(content)
    read_or_refuse(path, header, skip)


def parquet_files() -> list[bytes]:
    """A plain one, and one with the metadata of `datasets`."""
    columns = {"s": ["x", "\u00e9", None] * 3, "label": [0, 1, -1] * 3}
    plain, of_datasets = io.BytesIO(), io.BytesIO()
    pq.write_table(pa.table(columns), plain)
    features = Features({"s": Value("string"), "label": ClassLabel(names=["a", "b"])})
    disable_progress_bars()
    Dataset.from_dict(columns, features=features).to_parquet(of_datasets)
    return [plain.getvalue(), of_datasets.getvalue()]


PARQUET = parquet_files()


@example(PARQUET[1].replace(b'"dtype"', b'"dtypf"'), [])
@example(PARQUET[1].replace(b'"features": {', b'"features": ['), [])
@given(
    st.sampled_from(PARQUET),
    st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=4)), max_size=4),
)
def test_damaged_parquet_is_a_table_or_refused(
    folder: Path, whole: bytes, damages: list[tuple[int, bytes]]
) -> None:
    content = bytearray(whole)
    for at, new in damages:
        at %= len(content)
        content[at : at + len(new)] = new
    path = folder / "damaged.parquet"
    path.write_bytes(content)
    read_or_refuse(path)


def tables(
    cells: st.SearchStrategy[str | None], names: st.SearchStrategy[str]
) -> st.SearchStrategy[Rows]:
    """Tables of one to three columns with distinct names."""

    def of_width(width: int) -> st.SearchStrategy[Rows]:
        header = st.lists(names, min_size=width, max_size=width, unique=True).map(tuple)
        row = st.tuples(*[cells] * width)
        return st.tuples(header, st.lists(row, min_size=1, max_size=5))

    return st.integers(1, 3).flatmap(of_width)


def check(table: Table, rows: Rows, lines: Sequence[int]) -> None:
    names, cells = rows
    assert {name: list(values) for name, values in table.columns.items()} == {
        name: [row[i] for row in cells] for i, name in enumerate(names)
    }
    assert list(table.lines) == list(lines)


def file_text(lines: Sequence[str], end: str, blank: Sequence[int]) -> tuple[str, list[int]]:
    """The lines with their ends and so many blank lines before each, and where each begins."""
    text, starts = "", []
    for line, count in zip(lines, blank, strict=False):
        text += end * count
        starts.append(text.count("\n") + 1)
        text += line + end
    return text, starts


ends = st.sampled_from(["\n", "\r\n"])
marks = st.sampled_from(["", "\ufeff"])
blanks = st.lists(st.integers(0, 2), min_size=6, max_size=6)
tsv_cells = texts().map(lambda text: re.sub(r"[\t\n]", " ", text))


@given(tables(tsv_cells, tsv_cells), ends, marks, blanks)
def test_tsv_comes_back(folder: Path, rows: Rows, end: str, mark: str, blank: list[int]) -> None:
    lines = ["\t".join(map(str, row)) for row in (rows[0], *rows[1])]
    # No TSV holds these: a row of nothing, a carriage return before the line end.
    assume(all(line and not line.endswith("\r") for line in lines))
    assume(mark or not lines[0].startswith("\ufeff") or blank[0])
    text, starts = file_text(lines, end, blank)
    path = folder / "round.tsv"
    path.write_bytes(f"{mark}{text}".encode())
    check(read_table(path), rows, starts[1:])


def csv_line(row: Sequence[str | None], quoting: int) -> str:
    out = io.StringIO()
    csv.writer(out, quoting=quoting, lineterminator="\r\n").writerow(row)
    return out.getvalue().removesuffix("\r\n")


quotings = st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL])


@example(
    (("a", "b"), [('x\r\n"y"\r', ","), ("z" * 2 * LONG, "\n\n"), ("", "1")]), "\n", "", [0] * 6, 1
)
@given(tables(texts(), texts()), ends, marks, blanks, quotings)
def test_csv_comes_back(
    folder: Path, rows: Rows, end: str, mark: str, blank: list[int], quoting: int
) -> None:
    lines = [csv_line(row, quoting) for row in (rows[0], *rows[1])]
    assume(mark or not lines[0].startswith("\ufeff") or blank[0])
    text, starts = file_text(lines, end, blank)
    path = folder / "round.csv"
    path.write_bytes(f"{mark}{text}".encode())
    check(read_table(path), rows, starts[1:])


@given(tables(texts() | st.none(), texts()), ends, marks, blanks, st.booleans())
def test_jsonl_comes_back(
    folder: Path, rows: Rows, end: str, mark: str, blank: list[int], ascii_only: bool
) -> None:
    records = [dict(zip(rows[0], row, strict=True)) for row in rows[1]]
    lines = [json.dumps(record, ensure_ascii=ascii_only) for record in records]
    text, starts = file_text(lines, end, blank)
    path = folder / "round.jsonl"
    path.write_bytes(f"{mark}{text}".encode())
    check(read_table(path), rows, starts)


# Arrow ends names at NUL.
@given(tables(texts() | st.none(), texts().map(lambda text: text.replace("\0", ""))))
def test_parquet_comes_back(folder: Path, rows: Rows) -> None:
    columns = [pa.array([row[i] for row in rows[1]], pa.string()) for i in range(len(rows[0]))]
    path = folder / "round.parquet"
    pq.write_table(pa.Table.from_arrays(columns, names=list(rows[0])), path)
    check(read_table(path), rows, range(1, len(rows[1]) + 1))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('a,b\n"x\ny",1\nz,"2\n3,4', 4),
        ('a,b\n"x\ny",1\nz\n', 4),
        ('a,b\n\n"x\n\n"y,2\n', 3),
        ("a,b\nx\ry,2\n", 2),
    ],
)
def test_a_bad_row_is_told_by_its_first_line(folder: Path, content: str, line: int) -> None:
    path = folder / "bad.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_table(path)
    assert [problem.where for problem in caught.value.problems] == [f"{path}:{line}"]
