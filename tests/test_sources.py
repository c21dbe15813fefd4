from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from datasets import ClassLabel, Dataset, Features, Value

from lpt.data import sources
from lpt.data.sources import Folder, Hub, read_table
from lpt.errors import ConfigError, HubError
from tests.conftest import CONF

Columns = dict[str, list[str | None]]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


READABLE: dict[str, tuple[str, str, list[str] | None, Columns, int]] = {
    "bom": ("a.tsv", "\ufeffQuality\t#1 String\n1\tx y\n", None, {"Quality": ["1"]}, 2),
    "bom, no header": ("a.tsv", "\ufeff0\tx\n1\ty\n", ["label", "text"], {"label": ["0", "1"]}, 2),
    "no header": ("a.tsv", "text\tlabel\n", ["label", "text"], {"label": ["text"]}, 1),
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
    tmp_path: Path, name: str, content: str | bytes, line: str, given: str, allowed: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read_table(write(tmp_path / name, content))
    [problem] = caught.value.problems
    assert problem.where == f"{tmp_path / name}{line}"
    assert given in problem.given
    assert allowed in problem.allowed


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


CONTENT = {".tsv": "text\tlabel\nx\t1\n", ".csv": "text,label\nx,1\n"}
CONTENT[".jsonl"] = json.dumps({"text": "x", "label": 1})
SPLIT_OF = {"train": "train", "dev": "dev", "validation": "dev", "val": "dev", "test": "test"}


@pytest.mark.parametrize("suffix", CONTENT)
@pytest.mark.parametrize("stem", SPLIT_OF)
def test_finds_custom_files(tmp_path: Path, stem: str, suffix: str) -> None:
    write(tmp_path / f"{stem}{suffix}", CONTENT[suffix])
    folder = Folder(tmp_path, {})
    split = SPLIT_OF[stem]
    assert [s for s in ("train", "dev", "test") if folder.has(s)] == [split]
    columns = folder.read(split).columns
    assert {k: list(v) for k, v in columns.items()} == {"text": ["x"], "label": ["1"]}


def test_named_file_and_header_are_used(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", "text\tlabel\nwrong\t1\n")
    write(tmp_path / "mine.tsv", "1\tright\n")
    folder = Folder(tmp_path, {"train": "mine.tsv"}, ["label", "text"])
    assert folder.read("train").columns == {"label": ["1"], "text": ["right"]}


@pytest.mark.parametrize(
    ("files", "wanted"),
    [({}, "dev.tsv, .csv or .jsonl"), ({"dev": "dev_matched.tsv"}, "dev_matched.tsv")],
)
@pytest.mark.parametrize("there", [True, False], ids=["folder", "no folder"])
def test_missing_split(tmp_path: Path, files: dict[str, str], wanted: str, there: bool) -> None:
    path = tmp_path / "task"
    if there:
        path.mkdir()
        write(path / "notes.txt", "")
        write(path / "train.tsv", CONTENT[".tsv"])
    with pytest.raises(ConfigError) as caught:
        Folder(path, files).read("dev")
    [problem] = caught.value.problems
    assert problem.where == "data.path"
    assert problem.given == f"{path} has no dev split"
    assert wanted in problem.allowed
    assert f"present: {'notes.txt, train.tsv' if there else 'nothing'}" in problem.allowed
    assert "task.files.dev=" in problem.todo


def stub_hub(monkeypatch: pytest.MonkeyPatch, load: Callable[..., Any]) -> None:
    monkeypatch.setattr("lpt.data.sources.hub_reachable", lambda: False)
    monkeypatch.setattr("lpt.data.sources.hub_state", lambda: "switched off")
    monkeypatch.setattr("datasets.load_dataset", load)


def test_hub_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["ent", "neutral"]
    rows = {"s": ["x", "y", "z"], "gold": [1, 0, -1], "n": [7, 8, 9]}
    features = Features({"s": Value("string"), "gold": ClassLabel(names=names), "n": Value("int8")})
    asked: list[Any] = []

    def load(path: str, config: str | None, split: str) -> Dataset:
        asked.append((path, config, split))
        return Dataset.from_dict(rows, features=features)

    stub_hub(monkeypatch, load)
    hub = Hub("a/b", "c", {"dev": "validation"}, "label", ["0", "neutral"], "gold", {"ent": "0"})
    table = hub.read("dev")
    assert asked == [("a/b", "c", "validation")]
    assert table.columns["s"] == ["x", "y", "z"]
    assert table.columns["label"] == ["neutral", "0", None]  # -1 is the hub's "no label"
    assert table.columns["n"] == ["7", "8", "9"]
    assert [hub.has(split) for split in ("train", "dev")] == [False, True]
    with pytest.raises(ConfigError) as caught:
        hub.read("test")
    [problem] = caught.value.problems
    assert problem.where == "task.hub_splits"
    assert "validation" in problem.allowed


def test_unreachable_hub_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise OSError("cannot resolve\na long trace")

    stub_hub(monkeypatch, load)
    with pytest.raises(HubError) as caught:
        Hub("a/b", None, {"train": "train"}, "label", ["0", "1"]).read("train")
    [problem] = caught.value.problems
    assert problem.where == "data.path"
    assert "a/b on the hub" in problem.given
    assert problem.given.endswith("(cannot resolve)")
    assert "data.path=FOLDER" in problem.todo


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("sst2", ["negative", "positive"]),
        ("mrpc", ["not_equivalent", "equivalent"]),
        ("qqp", ["not_duplicate", "duplicate"]),
        ("mr", ["neg", "pos"]),
        ("rte", ["entailment", "not_entailment"]),
        ("qnli", ["entailment", "not_entailment"]),
        ("mnli", ["entailment", "neutral", "contradiction"]),
    ],
)
def test_hub_labels_become_the_tasks(
    task: str, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Class names of the hub are the task's labels, or keep their number."""
    known = yaml.safe_load((CONF / "task" / f"{task}.yaml").read_text())
    data = datasets.Dataset.from_dict(
        {"label": [*range(len(names)), -1]},
        features=datasets.Features({"label": datasets.ClassLabel(names=names)}),
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: data)
    monkeypatch.setattr(sources, "hub_reachable", lambda: True)
    hub = Hub(known["hub"], None, {"train": "train"}, "label", known["labels"])
    *labels, unknown = hub.read("train").columns["label"]
    expected = names if known["labels"][0] in names else [str(i) for i in range(len(names))]
    assert labels == expected
    assert set(labels) == set(known["labels"])
    assert unknown is None


def test_hub_columns_and_names_that_are_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    data = datasets.Dataset.from_dict(
        {"text": ["x", "y"], "label": [4, 9], "coarse": ["HUM", "LOC"]}
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: data)
    monkeypatch.setattr(sources, "hub_reachable", lambda: True)
    hub = Hub(
        "trec", None, {"train": "train"}, "label", ["3", "4"], "coarse", {"HUM": "3", "LOC": "4"}
    )
    assert hub.read("train").columns["label"] == ["3", "4"]
