"""Files as tables: the quirks of official files, round trips, and what is refused with its line."""

from __future__ import annotations

import bz2
import datetime
import gzip
import io
import lzma
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lpt.data.cells import NoText
from lpt.data.tables import read_shards, read_stream, read_table, read_tables
from tests.support.problems import problem_of, problems_of
from tests.support.source_files import columns_of

Columns = dict[str, list[str | None]]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


COLA = ["source", "label", "star", "sentence"]
# Name, content, header, some columns, last line.
READABLE: dict[str, tuple[str, str, list[str] | None, Columns, int]] = {
    "bom": ("a.tsv", "\ufeffQuality\t#1 String\n1\tx y\n", None, {"Quality": ["1"]}, 2),
    "bom, no header": ("a.tsv", "\ufeff0\tx\n1\ty\n", ["label", "text"], {"label": ["0", "1"]}, 2),
    "cola: unexpected header": (
        "test.tsv",
        "\ufeffindex\tsentence\n0\tHe left .\n1\tLeft he .\n",
        COLA,
        {"index": ["0", "1"], "sentence": ["He left .", "Left he ."]},
        3,
    ),
    "lone quotes are text": (
        "a.tsv",
        'text\tlabel\n"so it begins\t1\nan inch " wide\t0\n"all"\t1\n',
        None,
        {"text": ['"so it begins', 'an inch " wide', '"all"'], "label": ["1", "0", "1"]},
        4,
    ),
    "quoted csv": ("a.csv", 'a,b\n"x\r\n""y""",","\n', None, {"a": ['x\r\n"y"'], "b": [","]}, 2),
    "crlf, blank lines": ("a.tsv", "\na\r\n\nx\n\r\n\ny\r\n\n", None, {"a": ["x", "y"]}, 7),
    "jsonl": (
        "a.jsonl",
        '{"s": "x\\ny", "label": 1}\n\n{"s": null, "label": true}\n{"label": "no", "n": [1]}\n',
        None,
        {"s": ["x\ny", None, None], "label": ["1", "true", "no"], "n": [None, None, "[1]"]},
        4,
    ),
}


@pytest.mark.parametrize("case", READABLE)
def test_reads(tmp_path: Path, case: str) -> None:
    name, content, header, expected, last_line = READABLE[case]
    table = read_table(write(tmp_path / name, content), header)
    columns = columns_of(table)
    assert columns == columns | expected
    assert {len(values) for values in columns.values()} == {len(table)}
    assert table.location(len(table) - 1) == f"{tmp_path / name}:{last_line}"


# Name, content, line, what is found, what is expected.
UNREADABLE: dict[str, tuple[str, str | bytes, str, str, str]] = {
    "empty": ("a.tsv", "", "", "no rows", "at least one row"),
    "header only": ("a.tsv", "text\tlabel\n", "", "no rows", "at least one row"),
    "bytes": ("a.tsv", b"a\tb\nx\t1\nca\xe9\t0\n", ":3", "byte 0xe9 at 2", "UTF-8"),
    "bad json": ("a.jsonl", '{"a": 1}\n{"a": \n', ":2", "invalid JSON", "JSON object per line"),
    "no object": ("a.jsonl", '{"a": 1}\n["a"]\n', ":2", "a JSON list", "JSON object per line"),
    "name twice": (
        "a.jsonl",
        '{"a": "x", "b": {"c": 1, "c": 2}}\n',
        ":1",
        "twice",
        "JSON object per line",
    ),
    "surrogate": (
        "a.jsonl",
        '{"a": {"b": ["\\uDfFf"]}}\n',
        ":1",
        "surrogates not allowed",
        "JSON object per line",
    ),
    "too few": ("a.tsv", "a\tb\nx\n", ":2", "1 columns", "2 columns: a, b"),
    "too many": ("a.csv", "a,b\nx,1\ny,2,3\n", ":3", "3 columns", "2 columns: a, b"),
    "open quote": ("a.csv", 'a,b\n"x\ny",1\nz,"2\n3', ":4", "unexpected end", "quoted CSV"),
    "quote within": ("a.csv", 'a,b\n\n"x\n\n"y,2\n', ":3", "expected after", "quoted CSV"),
    "lone cr": ("a.csv", "a,b\nx\ry,2\n", ":2", "new-line character", "quoted CSV"),
    "same names": ("a.tsv", "a\ta\nx\ty\n", ":1", "['a', 'a']", "distinct names"),
    "suffix": ("a.txt", "a\tb\nx\ty\n", "", ".txt", ".tsv, .csv, .jsonl"),
    "semicolons": ("a.csv", "text;label\nx, y;1\n", ":1", "semicolons", "commas"),
    "sep line": ("a.csv", "sep=;\ntext;label\nx;1\n", ":1", "semicolons", "commas"),
    "tabs in csv": ("a.csv", "text\tlabel\nx\t1\n", ":1", "tabs", "commas in a .csv file"),
    "commas in tsv": ("a.tsv", "text,label\nx,1\n", ":1", "commas", "tabs in a .tsv file"),
    "bars": ("a.csv", "text|label\nx|1\n", ":1", "vertical bars", "commas"),
    "quoted header": ("a.tsv", '"text"\t"label"\n"x"\t"1"\n', ":1", "quotes", "part of the text"),
    "space, quotes": ("a.csv", 'a,b\n1, "x and y"\n', ":2", "a space before", "after the comma"),
    "space, commas": ("a.csv", 'a,b,c\n1, "x, y"\n', ":2", "a space before", "after the comma"),
    "utf-16": ("a.csv", "a,b\nx,1\n".encode("utf-16"), "", "UTF-16", "UTF-8"),
    "utf-16, no mark": ("a.csv", "a,b\nx,1\n".encode("utf-16-le"), "", "UTF-16", "UTF-8"),
    "utf-16-be": ("a.jsonl", '{"a": 1}\n'.encode("utf-16-be"), "", "UTF-16", "UTF-8"),
    "utf-32": ("a.tsv", "a\tb\nx\t1\n".encode("utf-32"), "", "UTF-32", "UTF-8"),
    "gzip": ("a.csv", gzip.compress(b"a,b\nx,1\n"), "", "a gzip file", "UTF-8"),
    "bzip2": ("a.csv", bz2.compress(b"a,b\nx,1\n"), "", "a bzip2 file", "UTF-8"),
    "xz": ("a.jsonl", lzma.compress(b'{"a": 1}\n'), "", "an xz file", "UTF-8"),
    "zip, xlsx": ("a.csv", b"PK\x03\x04\x14\0\x06\0", "", "a zip file", "UTF-8"),
    "parquet": ("a.csv", b"PAR1\x15\x04", "", "a parquet file", "UTF-8"),
    "utf-16-le, no ascii first": (
        "a.csv",
        "\u6587\u672c,\u7c7b\n\u597d,\u574f\n".encode("utf-16-le"),
        "",
        "UTF-16",
        "UTF-8",
    ),
    "utf-16-be, no ascii first": (
        "a.tsv",
        "\u6587\t\u7c7b\n\u597d\t\u574f\n".encode("utf-16-be"),
        "",
        "UTF-16",
        "UTF-8",
    ),
    "utf-16-be, zeros on both sides": (
        "a.csv",
        "\u4e00,b\n".encode("utf-16-be"),
        "",
        "NUL",
        "UTF-8",
    ),
    "zeros": ("a.csv", b"\0" * 64, "", "NUL bytes", "UTF-8"),
    "CR, csv": ("a.csv", "a,b\rx,1\ry,2\r", "", "CR only", "LF"),
    "CR, tsv": ("a.tsv", "a\tb\rx\t1", "", "CR only", "LF"),
    "CR, jsonl": ("a.jsonl", '{"a": 1}\r{"a": 2}\r', "", "CR only", "LF"),
    "html, small letters": ("a.tsv", "<html>\n<head>\n", "", "an HTML page", "UTF-8"),
    "git lfs": ("a.csv", "version https://git-lfs.github.com/spec/v1\n", "", "Git LFS", "UTF-8"),
    "html": ("a.tsv", "<!DOCTYPE html>\n<html>\n", "", "an HTML page", "UTF-8"),
    "gzip, parquet": ("a.parquet", gzip.compress(b"a"), "", "a gzip file", "a parquet file"),
    "utf-16, parquet": ("a.parquet", "a,b\n".encode("utf-16"), "", "UTF-16", "a parquet file"),
    "no parquet": ("a.parquet", b"PAR1 begins like one", "", "", "a parquet file"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_refuses(tmp_path: Path, case: str) -> None:
    name, content, line, given, expected = UNREADABLE[case]
    problem = problem_of(lambda: read_table(write(tmp_path / name, content)))
    assert problem.where == f"{tmp_path / name}{line}"
    assert given in problem.given
    assert problem.given
    assert "\n" not in problem.given
    assert expected in problem.expected


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("a,b\n\u201cx\u201d,1\n".encode("cp1252"), "iconv -f cp1252 -t utf-8 a.csv"),
        ("a,b\n\u00e9,1\n".encode("latin1"), "iconv -f cp1252 -t utf-8 a.csv"),
        ("a,b\n\u0410\u0411\u041d,1\n".encode("cp866"), "iconv -f ENCODING -t utf-8 a.csv"),
        (b"\xff\xfea\0", "iconv -f utf-16 -t utf-8 a.csv"),
        (b"a\0,\0", "iconv -f utf-16le -t utf-8 a.csv"),
        (gzip.compress(b"a"), "gzip -dc a.csv"),
    ],
)
def test_how_to_convert_a_file(tmp_path: Path, content: bytes, hint: str) -> None:
    problem = problem_of(lambda: read_table(write(tmp_path / "a.csv", content)))
    assert hint in problem.hint


def test_quotes_of_csv_in_a_tsv_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = 'text\tlabel\n"so it begins\t1\n"all"\t0\nan "" in\t0\n'
    read_table(write(tmp_path / "plain.tsv", text))
    assert not caplog.text
    table = read_table(write(tmp_path / "quoted.tsv", text + '"he said ""hi"" to me"\t1\n'))
    assert table.columns["text"][-1] == '"he said ""hi"" to me"'
    assert "quoted.tsv:5: 1 cells of text seem to be quoted as in CSV" in caplog.text


@pytest.mark.parametrize(
    ("cells", "number"),
    [
        (('"one, two"', "three", '"a, b"'), 2),  # as Excel quotes them
        (('"one, two"', "three, four"), 0),
        (('"one, two"', '"three"'), 0),
        (('"one"', "two"), 0),
    ],
)
def test_cells_with_commas_in_quotes_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, cells: tuple[str, ...], number: int
) -> None:
    text = "text\tlabel\n" + "".join(f"{cell}\t1\n" for cell in cells)
    read_table(write(tmp_path / "a.tsv", text))
    assert (f"{number} cells of text seem to be quoted" in caplog.text) == bool(number)
    assert number or not caplog.text


def test_a_nul_within_text_is_text(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "a.csv", "a,b\nx\0y,1\n"))
    assert table.columns["a"] == ["x\0y"]


@pytest.mark.parametrize(
    ("line", "cell"),
    [('1," ""x"" and y"', ' "x" and y'), ('1,"a, ""b"""', 'a, "b"'), ('1, x "y"', ' x "y"')],
)
def test_cells_with_spaces_and_quotes(tmp_path: Path, line: str, cell: str) -> None:
    table = read_table(write(tmp_path / "a.csv", f"a,b\n{line}\n"))
    assert table.columns["b"] == [cell]


def test_a_single_column_may_have_any_signs(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "a.tsv", "x; y, z\nother\n"), ["text"])
    assert table.columns == {"text": ["x; y, z", "other"]}


@pytest.mark.parametrize(
    ("value", "type_name"),
    [
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
        ('[{"role": "user"}]', "a list"),
        ("{}", "a dict"),
    ],
)
def test_json_values_that_are_no_text_are_marked(
    tmp_path: Path, value: str, type_name: str
) -> None:
    table = read_table(write(tmp_path / "a.jsonl", f'{{"a": {value}, "b": 1.5, "c": "NaN"}}\n'))
    [cell], *others = table.columns.values()
    assert isinstance(cell, NoText)
    assert cell.type_name == type_name
    assert others == [["1.5"], ["NaN"]]
    assert not any(isinstance(c, NoText) for [c] in others)


def test_parquet_values_that_are_no_text_are_marked(tmp_path: Path) -> None:
    values = {"x": [b"abc"], "y": [datetime.date(2020, 1, 2)], "z": [5], "d": [Decimal("1.50")]}
    pq.write_table(pa.table(values), tmp_path / "a.parquet")
    columns = read_table(tmp_path / "a.parquet").columns
    marked = {n: c[0].type_name for n, c in columns.items() if isinstance(c[0], NoText)}
    assert marked == {"x": "a bytes", "y": "a date"}
    assert (columns["z"], columns["d"]) == (["5"], ["1.50"])


@pytest.mark.parametrize(
    ("suffix", "first", "good", "bad"),
    [
        ("tsv", "a\tb\n", "x\t1\n", "x\n"),
        ("csv", "a,b\n", "x,1\n", '"x,1"\n'),
        ("jsonl", '{"a": 1}\n', '{"a": 1}\n', '{"a": x}\n'),
    ],
)
def test_the_first_bad_rows_are_reported(
    tmp_path: Path, suffix: str, first: str, good: str, bad: str
) -> None:
    path = write(tmp_path / f"train.{suffix}", first + (good + bad) * 7)
    *shown, rest = problems_of(lambda: read_table(path))
    assert [p.where for p in shown] == [f"{path}:{3 + 2 * i}" for i in range(5)]
    assert (rest.where, rest.given) == (str(path), "2 more bad rows")


def test_short_rows_are_skipped_on_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "train.tsv", "id\tq1\tq2\n0\ta\tb\n1\tbroken\n2\tc\td\n3\n")
    assert [p.where for p in problems_of(lambda: read_table(path))] == [f"{path}:3", f"{path}:5"]
    assert not caplog.text
    table = read_table(path, skip_short_rows=True)
    assert f"{path}: skipped 2 rows with too few columns." in caplog.text
    assert table.columns == {"id": ["0", "2"], "q1": ["a", "c"], "q2": ["b", "d"]}
    assert [table.location(row) for row in range(2)] == [f"{path}:2", f"{path}:4"]
    write(path, "a\tb\nx\n1\t2\t3\n")
    assert problem_of(lambda: read_table(path, skip_short_rows=True)).where == f"{path}:3"


def test_shards_that_do_not_fit(tmp_path: Path) -> None:
    def shard(name: str, **columns: Any) -> Path:
        pq.write_table(pa.table(columns), tmp_path / name)
        return tmp_path / name

    rows, other = shard("a.parquet", s=["x", "y"]), shard("b.parquet", t=[1])
    empty = shard("c.parquet", s=pa.array([], pa.string()))
    assert len(read_shards([empty, rows])) == 2
    assert problem_of(lambda: read_shards([empty, empty])).given == "no rows"
    assert problem_of(lambda: read_shards([rows, other])).where == str(rows)
    write(rows, rows.read_bytes()[:-20])
    assert problem_of(lambda: read_shards([rows])).where == str(rows)


@pytest.mark.parametrize("suffix", ["tsv", "csv", "jsonl", "parquet"])
def test_tables_piece_by_piece(tmp_path: Path, suffix: str) -> None:
    frame = pd.DataFrame({"a": [f"text {i}" for i in range(7)], "b": range(7)})
    path = tmp_path / f"rows.{suffix}"
    if suffix == "parquet":
        frame.to_parquet(path)
    elif suffix == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, sep="\t" if suffix == "tsv" else ",", index=False)
    whole, pieces = read_table(path), list(read_tables(path, size=3))
    assert [len(piece) for piece in pieces] == [3, 3, 1]
    for name in ("a", "b"):
        cells = [cell for piece in pieces for cell in piece.columns[name]]
        assert cells == list(whole.columns[name])
    assert [line for piece in pieces for line in piece.lines] == list(whole.lines)


def test_a_file_is_read_no_further_than_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", '{"a": 1}\n' * 4 + "{")
    tables = read_tables(path, size=2)
    assert [len(next(tables)) for _ in range(2)] == [2, 2]
    assert problem_of(lambda: next(tables)).where == f"{path}:5"
    assert list(read_tables(write(tmp_path / "none.csv", "a\n"), size=2)) == []


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        (b'{"a": "x", "b": 1}\n{"a": "y"}\n', {"a": ["x", "y"], "b": ["1", None]}),
        (b"\xef\xbb\xbfx\r\n\ny\tz", {"a": ["x", "", "y\tz"]}),
        (b"", {}),
    ],
)
def test_a_stream_of_json_or_lines(content: bytes, columns: dict[str, list[str | None]]) -> None:
    tables = list(read_stream(io.BytesIO(content), "stdin", "a", 10))
    assert {name: list(c) for table in tables for name, c in table.columns.items()} == columns


def test_a_stream_that_is_no_text() -> None:
    for content, given in (
        (b"\x1f\x8b\x08\n", "a gzip file"),
        (b"x\n\xff\n", "byte 0xff at 0 is not UTF-8"),
    ):
        stream = read_stream(io.BytesIO(content), "stdin", "a", 10)
        assert problem_of(lambda stream=stream: list(stream)).given == given
    stream = read_stream(io.BytesIO(b"x\n"), "stdin", None, 10)
    assert problem_of(lambda: list(stream)).where == "stdin:1"
