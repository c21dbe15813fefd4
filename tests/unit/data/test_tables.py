"""Files as tables: what official files have for quirks, and what is refused with its line."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from lpt.data.tables import read_shards, read_table, table_of
from lpt.errors import ConfigError

Columns = dict[str, list[str | None]]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


READABLE: dict[str, tuple[str, str, list[str] | None, Columns, int]] = {
    "bom": ("a.tsv", "\ufeffQuality\t#1 String\n1\tx y\n", None, {"Quality": ["1"]}, 2),
    "bom, no header": ("a.tsv", "\ufeff0\tx\n1\ty\n", ["label", "text"], {"label": ["0", "1"]}, 2),
    "no header": ("a.tsv", "1\tx\n0\ty\n", ["label", "text"], {"label": ["1", "0"]}, 2),
    "no header, csv": ("a.csv", '1,"x, y"\n', ["label", "text"], {"text": ["x, y"]}, 1),
    "cola: a header although none is expected": (
        "test.tsv",
        "index\tsentence\n0\tHe left .\n1\tLeft he .\n",
        ["source", "label", "star", "sentence"],
        {"index": ["0", "1"], "sentence": ["He left .", "Left he ."]},
        3,
    ),
    "cola: no header": (
        "train.tsv",
        "gj04\t1\t\tHe left .\ngj04\t0\t*\tLeft he .\n",
        ["source", "label", "star", "sentence"],
        {"label": ["1", "0"], "star": ["", "*"], "sentence": ["He left .", "Left he ."]},
        2,
    ),
    "bom, header although none is expected": (
        "a.tsv",
        "\ufefflabel\ttext\n1\tx\n",
        ["label", "text"],
        {"label": ["1"], "text": ["x"]},
        2,
    ),
    "lone quotes are text": (
        "a.tsv",
        'text\tlabel\n"so it begins\t1\nan inch " wide\t0\n"all"\t1\n',
        None,
        {"text": ['"so it begins', 'an inch " wide', '"all"'], "label": ["1", "0", "1"]},
        4,
    ),
    "crlf": ("a.tsv", "text\tlabel\r\nx\t1\r\ny\t0\r\n", None, {"label": ["1", "0"]}, 3),
    "blank lines": (
        "a.tsv",
        "\ntext\tlabel\n\nx\t1\n\r\n\ny\t0\n\n",
        None,
        {"text": ["x", "y"]},
        7,
    ),
    "no line end": ("a.tsv", "text\tlabel\nx\t1", None, {"label": ["1"]}, 2),
    "cells as they are": ("a.tsv", "a\tb\n x \t\n", None, {"a": [" x "], "b": [""]}, 2),
    "other line breaks": ("a.tsv", "a\tb\nx\u2028y\x0cz\t1\n", None, {"a": ["x\u2028y\x0cz"]}, 2),
    "csv quotes": ("a.csv", 'a,b\n"x, ""y""",1\n', None, {"a": ['x, "y"'], "b": ["1"]}, 2),
    "csv line in quotes": (
        "a.csv",
        'a,b\n"two\nlines, one cell",1\nz,0\n',
        None,
        {"a": ["two\nlines, one cell", "z"], "b": ["1", "0"]},
        4,
    ),
    "csv bom, crlf": ("a.csv", '\ufeffa,b\r\n"x",1\r\n', None, {"a": ["x"], "b": ["1"]}, 2),
    "jsonl": (
        "a.jsonl",
        '{"s": "x\\ny", "label": 1}\n\n{"s": null, "label": true}\n{"label": "no", "n": [1]}\n',
        None,
        {"s": ["x\ny", None, None], "label": ["1", "true", "no"], "n": [None, None, "[1]"]},
        4,
    ),
}


@pytest.mark.parametrize(
    ("name", "content", "header", "expected", "last_line"), READABLE.values(), ids=READABLE
)
def test_reads(
    tmp_path: Path,
    name: str,
    content: str,
    header: list[str] | None,
    expected: Columns,
    last_line: int,
) -> None:
    table = read_table(write(tmp_path / name, content), header)
    columns = {key: list(values) for key, values in table.columns.items()}
    assert columns == columns | expected
    assert {len(values) for values in columns.values()} == {len(table.lines)}
    assert table.place(len(table.lines) - 1) == f"{tmp_path / name}:{last_line}"


UNREADABLE: dict[str, tuple[str, str | bytes, str, str, str]] = {
    "empty": ("a.tsv", "", "", "no rows", "at least one row"),
    "empty csv": ("a.csv", "", "", "no rows", "at least one row"),
    "empty jsonl": ("a.jsonl", "\n\n", "", "no rows", "at least one row"),
    "header only": ("a.tsv", "text\tlabel\n", "", "no rows", "at least one row"),
    "bytes": ("a.tsv", b"a\tb\nx\t1\nca\xe9\t0\n", ":3", "byte 0xe9 at 2", "UTF-8"),
    "bytes in csv": ("a.csv", b"a,b\n\xff,1\n", ":2", "byte 0xff at 0", "UTF-8"),
    "bytes in jsonl": ("a.jsonl", b'{"a": 1}\n{"a": "\xe9"}\n', ":2", "byte 0xe9 at 7", "UTF-8"),
    "bad json": ("a.jsonl", '{"a": 1}\n{"a": \n', ":2", "not JSON", "one JSON object a line"),
    "no object": ("a.jsonl", '{"a": 1}\n["a"]\n', ":2", "a JSON list", "one JSON object a line"),
    "too few": ("a.tsv", "a\tb\nx\n", ":2", "1 columns", "2 columns: a, b"),
    "too many": ("a.csv", "a,b\nx,1\ny,2,3\n", ":3", "3 columns", "2 columns: a, b"),
    "open quote": ("a.csv", 'a,b\nx,1\n"y,2\n', ":3", "unexpected end", "quoted CSV"),
    "same names": ("a.tsv", "a\ta\nx\ty\n", ":1", "['a', 'a']", "distinct names"),
    "suffix": ("a.txt", "a\tb\nx\ty\n", "", ".txt", ".tsv, .csv, .jsonl"),
    "no suffix": ("a", "a\tb\nx\ty\n", "", "suffixless", ".tsv, .csv, .jsonl"),
}


@pytest.mark.parametrize(
    ("name", "content", "line", "given", "allowed"), UNREADABLE.values(), ids=UNREADABLE
)
def test_refuses(
    tmp_path: Path, name: str, content: str | bytes, line: str, given: str, expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read_table(write(tmp_path / name, content))
    [problem] = caught.value.problems
    assert problem.where == f"{tmp_path / name}{line}"
    assert given in problem.given
    assert expected in problem.expected


FORMATS: dict[str, tuple[str, str, str]] = {  # first line, a good row, a bad row
    ".tsv": ("a\tb\n", "x\t1\n", "x\n"),
    ".csv": ("a,b\n", "x,1\n", '"x,1"\n'),
    ".jsonl": ('{"a": "x"}\n', '{"a": "x"}\n', '{"a": x}\n'),
}


@pytest.mark.parametrize("bad_rows", [2, 5, 6, 9])
@pytest.mark.parametrize("suffix", FORMATS)
def test_all_bad_rows_are_reported(tmp_path: Path, suffix: str, bad_rows: int) -> None:
    first, good, bad = FORMATS[suffix]
    path = write(tmp_path / f"train{suffix}", first + (good + bad) * bad_rows)
    with pytest.raises(ConfigError) as caught:
        read_table(path)
    problems = caught.value.problems
    shown = min(bad_rows, 5)
    assert [p.where for p in problems[:shown]] == [f"{path}:{3 + 2 * i}" for i in range(shown)]
    assert all(p.given and p.allowed for p in problems[:shown])
    rest = [(p.where, p.given) for p in problems[shown:]]
    assert rest == ([(str(path), f"{bad_rows - 5} more bad rows")] if bad_rows > 5 else [])


QQP = "id\tq1\tq2\n0\ta\tb\n1\tbroken\n2\tc\td\n3\n"


def test_short_rows_are_left_out_when_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "train.tsv", QQP)
    with caplog.at_level(logging.WARNING):
        table = read_table(path, skip_short_rows=True)
    assert table.columns == {"id": ["0", "2"], "q1": ["a", "c"], "q2": ["b", "d"]}
    assert [table.place(row) for row in range(2)] == [f"{path}:2", f"{path}:4"]
    assert f"{path}: 2 rows with too few columns were left out." in caplog.text
    with pytest.raises(ConfigError) as caught:
        read_table(path)
    assert [p.where for p in caught.value.problems] == [f"{path}:3", f"{path}:5"]


def test_nothing_is_said_where_no_row_is_short(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "train.tsv", "id\tq1\n0\ta\n")
    assert len(read_table(path, skip_short_rows=True)) == 1
    assert not caplog.text


def test_long_rows_are_refused_all_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "train.tsv", QQP + "4\ta\tb\tc\n")
    with pytest.raises(ConfigError) as caught:
        read_table(path, skip_short_rows=True)
    [problem] = caught.value.problems
    assert (problem.where, problem.given) == (f"{path}:6", "4 columns")
    assert "3 columns: id, q1, q2" in problem.allowed


def test_only_short_rows_are_no_rows(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no rows"):
        read_table(write(tmp_path / "train.tsv", "a\tb\nx\ny\n"), skip_short_rows=True)


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ('"caf\\u00e9 \\ud83d\\ude00"', "caf\u00e9 \U0001f600"),
        ('"\\\\ud800"', "\\ud800"),
        ("true", "true"),
        ("false", "false"),
        ("3", "3"),
        ("0.6", "0.6"),
        ('"true"', "true"),
        ("null", None),
    ],
)
def test_values_of_jsonl(tmp_path: Path, cell: str, text: str | None) -> None:
    path = write(tmp_path / "a.jsonl", f'{{"a": {cell}, "b": 1}}\n')
    assert read_table(path).columns["a"] == [text]


@pytest.mark.parametrize(
    "record",
    [
        '{"a": "x \\ud800"}',
        '{"a": {"b": ["\\uDfFf"]}}',
        '{"\\ud83d": 1}',
        '{"a": "\\ude00\\ud83d"}',
    ],
)
def test_half_characters_are_refused(tmp_path: Path, record: str) -> None:
    path = write(tmp_path / "a.jsonl", f'{{"a": "x"}}\n{record}\n')
    with pytest.raises(ConfigError) as caught:
        read_table(path)
    [problem] = caught.value.problems
    assert problem.where == f"{path}:2"
    assert "surrogate" in problem.given
    str(problem).encode()


NESTED: dict[str, Any] = {"text": 'a "b"\n\u00e9', "list": [{"start": 0, "ok": True}, None]}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_nested_values_are_json(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".jsonl":
        write(path, json.dumps({"passage": NESTED}) + "\n")
    else:
        pq.write_table(pa.Table.from_pylist([{"passage": NESTED}]), path)
    [cell] = read_table(path).columns["passage"]
    assert cell is not None
    assert json.loads(cell) == NESTED


NAMES = ["entailment", "neutral"]
FEATURES = Features(
    {
        "s": Value("string"),
        "label": ClassLabel(names=NAMES),
        "score": Value("float32"),
        "ok": Value("bool"),
    }
)
ROWS = {"s": ["x", None, "z"], "label": [1, 0, -1], "score": [0.5, 5.0, -1.0], "ok": [True] * 3}
CELLS: Columns = {
    "s": ["x", None, "z"],
    "label": ["1", "0", "-1"],
    "score": ["0.5", "5.0", "-1.0"],
    "ok": ["true"] * 3,
}


def columns_of(table: Any) -> Columns:
    return {name: list(values) for name, values in table.columns.items()}


def test_a_data_set_is_a_table() -> None:
    table = table_of(Dataset.from_dict(ROWS, features=FEATURES), "a/b on the hub")
    assert columns_of(table) == CELLS
    assert table.class_names == {"label": NAMES}
    assert (len(table), table.place(2)) == (3, "a/b on the hub:3")


def test_parquet_of_datasets_has_class_names(tmp_path: Path) -> None:
    Dataset.from_dict(ROWS, features=FEATURES).to_parquet(tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet")
    assert columns_of(table) == CELLS
    assert table.class_names == {"label": NAMES}
    assert table.place(0) == f"{tmp_path / 'a.parquet'}:1"


def test_plain_parquet_has_none(tmp_path: Path) -> None:
    pq.write_table(pa.table(ROWS), tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet")
    assert columns_of(table) == CELLS
    assert table.class_names == {}


def shard(path: Path, **columns: list[Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_shards_follow_one_another(tmp_path: Path) -> None:
    first = shard(tmp_path / "a.parquet", s=["x", "y"])
    empty = shard(tmp_path / "b.parquet", s=pa.array([], pa.string()))
    last = shard(tmp_path / "c.parquet", s=["z"])
    table = read_shards([last, empty, first])
    assert columns_of(table) == {"s": ["z", "x", "y"]}
    assert len(table) == 3
    with pytest.raises(ConfigError, match="no rows"):
        read_shards([empty, empty])


def test_shards_that_do_not_match_are_refused(tmp_path: Path) -> None:
    paths = [shard(tmp_path / "a.parquet", s=["x"]), shard(tmp_path / "b.parquet", t=[1])]
    with pytest.raises(ConfigError) as caught:
        read_shards(paths)
    [problem] = caught.value.problems
    assert problem.where == str(paths[0])


@pytest.mark.parametrize("content", [b"", b"no parquet at all", b"PAR1 begins like one"])
def test_bad_parquet(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "a.parquet", content)
    with pytest.raises(ConfigError) as caught:
        read_table(path)
    [problem] = caught.value.problems
    assert (problem.where, problem.expected) == (str(path), "a parquet file")
    assert problem.given
    assert "\n" not in problem.given


def test_truncated_parquet(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.parquet", s=["x"] * 100)
    write(path, path.read_bytes()[:-20])
    with pytest.raises(ConfigError, match=r"a\.parquet"):
        read_table(path)


def test_empty_parquet(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.parquet", s=pa.array([], pa.string()))
    with pytest.raises(ConfigError) as caught:
        read_table(path)
    [problem] = caught.value.problems
    assert (problem.where, problem.given) == (str(path), "no rows")
