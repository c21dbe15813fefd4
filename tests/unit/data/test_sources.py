"""Where rows come from: files in a folder, by name and kind, and the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from lpt.data.sources import Folder, Hub
from lpt.errors import ConfigError, HubError
from tests.support.source_files import HUB_SPLITS, columns_of, data, stub_hub, write, write_parquet

CONTENT = {".tsv": "text\tlabel\nx\t1\n", ".csv": "text,label\nx,1\n"}
CONTENT[".jsonl"] = json.dumps({"text": "x", "label": 1})
SPLIT_OF = {
    "train": "train",
    "dev": "dev",
    "validation": "dev",
    "valid": "dev",
    "val": "dev",
    "test": "test",
}


@pytest.mark.parametrize("suffix", [*CONTENT, ".parquet"])
@pytest.mark.parametrize("stem", SPLIT_OF)
def test_finds_custom_files(tmp_path: Path, stem: str, suffix: str) -> None:
    if suffix == ".parquet":
        write_parquet(tmp_path / "x.parquet", text=["x"], label=[1])
        (tmp_path / "x.parquet").rename(tmp_path / f"{stem}.parquet")
    else:
        write(tmp_path / f"{stem}{suffix}", CONTENT[suffix])
    folder = Folder(tmp_path, {})
    split = SPLIT_OF[stem]
    assert [s for s in ("train", "dev", "test") if folder.has(s)] == [split]
    assert columns_of(folder.read(split)) == {"text": ["x"], "label": ["1"]}


def test_named_file_and_header_are_used(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", "text\tlabel\nwrong\t1\n")
    write(tmp_path / "mine.tsv", "1\tright\n")
    folder = Folder(tmp_path, {"train": "mine.tsv"}, ["label", "text"])
    assert folder.read("train").columns == {"label": ["1"], "text": ["right"]}


def test_short_rows_are_left_out_when_told(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", "text\tlabel\nx\ny\t1\n")
    assert columns_of(Folder(tmp_path, {}, skip_short_rows=True).read("train"))["text"] == ["y"]
    with pytest.raises(ConfigError, match=r"train\.tsv:2"):
        Folder(tmp_path, {}).read("train")


BEST_FIRST: dict[str | None, list[str]] = {  # by the name in the task: what may hold the dev set
    None: [
        "dev.tsv",
        "dev.jsonl",
        "validation.csv",
        "val.parquet",
        "validation_matched.parquet",
        "dev-00000-of-00001.parquet",
        "validation_matched-00000-of-00001.parquet",
    ],
    "dev_matched": [
        "dev_matched.tsv",
        "dev_matched.parquet",
        "dev.tsv",
        "validation_matched.csv",
        "validation_matched-00000-of-00001.parquet",
    ],
    "sub/dev.jsonl": ["sub/dev.jsonl"],
}


@pytest.mark.parametrize("named", BEST_FIRST)
def test_the_named_file_comes_first(tmp_path: Path, named: str | None) -> None:
    folder = Folder(tmp_path, {"dev": named}, splits=HUB_SPLITS)
    if named is not None and named.endswith(".jsonl"):
        write_any(tmp_path / "dev.tsv")
    assert not folder.has("dev")
    for name in reversed(BEST_FIRST[named]):
        write_any(tmp_path / name)
        assert columns_of(folder.read("dev"))["text"] == [name.rpartition("/")[2]]


def write_any(path: Path) -> None:
    """A file of the kind that its name says, with its name as text."""
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".parquet":
        write_parquet(path, text=[path.name])
    else:
        record = json.dumps({"text": path.name})
        write(path, record if path.suffix == ".jsonl" else f"text\n{path.name}\n")


@pytest.mark.parametrize(("split", "found"), [("mm", True), ("ax", False), ("zzz", False)])
def test_further_sets_are_found_by_the_hubs_name(tmp_path: Path, split: str, found: bool) -> None:
    """But another configuration's split `test` is not the file test.tsv here."""
    write(tmp_path / "validation_mm.tsv", CONTENT[".tsv"])
    write(tmp_path / "test.tsv", CONTENT[".tsv"])
    folder = Folder(tmp_path, {}, splits=HUB_SPLITS)
    assert folder.has(split) == found
    assert folder.has("test")


OTHER_FOLDERS = ["diagnostic/diagnostic.tsv", "diagnostic/diagnostic.csv", "ax/test.parquet"]


@pytest.mark.parametrize("file", [*OTHER_FOLDERS, "ax/test-00000-of-00001.parquet"])
def test_a_file_of_another_folder(tmp_path: Path, file: str) -> None:
    folder = Folder(tmp_path / "MNLI", {"ax": "../diagnostic/diagnostic"}, splits=HUB_SPLITS)
    write_any(folder.path / "test.tsv")
    assert not folder.has("ax")
    write_any(tmp_path / file)
    assert columns_of(folder.read("ax"))["text"] == [file.rpartition("/")[2]]


@pytest.mark.parametrize("stem", ["train", "data_train"])
def test_shards_are_read_in_order(tmp_path: Path, stem: str) -> None:
    for n in (10, 2, 0, 1, *range(3, 10)):
        write_parquet(tmp_path / f"{stem}-{n:05}-of-00011.parquet", text=[f"{n} a", f"{n} b"])
    folder = Folder(tmp_path, {}, splits={"train": "data_train"})
    assert columns_of(folder.read("train")) == {
        "text": [f"{n} {letter}" for n in range(11) for letter in "ab"]
    }


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({}, "dev or validation or valid or val or validation_matched, a file of kind .tsv"),
        ({"dev": "dev_matched.tsv"}, "dev_matched.tsv"),
        (
            {"dev": "dev_m"},
            "dev_m or dev or validation or valid or val or validation_matched, a file",
        ),
    ],
)
@pytest.mark.parametrize("there", [True, False], ids=["folder", "no folder"])
def test_missing_split(tmp_path: Path, files: dict[str, str], wanted: str, there: bool) -> None:
    path = tmp_path / "task"
    if there:
        write(path / "notes.txt", "")
        write(path / "train.tsv", CONTENT[".tsv"])
    with pytest.raises(ConfigError) as caught:
        Folder(path, files, splits=HUB_SPLITS).read("dev")
    [problem] = caught.value.problems
    assert problem.where == "data.path"
    assert problem.given == f"{path} has no dev split"
    assert wanted in problem.allowed
    assert f"present: {'notes.txt, train.tsv' if there else 'nothing'}" in problem.allowed
    assert "task.files.dev=" in problem.hint


def test_hub_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["ent", "neutral"]
    rows = {"s": ["x", "y", "z"], "gold": [1, 0, -1], "n": [7, 8, 9]}
    features = Features({"s": Value("string"), "gold": ClassLabel(names=names), "n": Value("int8")})
    stub_hub(monkeypatch, lambda *_, **__: Dataset.from_dict(rows, features=features))
    hub = Hub("a/b", "c", {"dev": "validation"})
    table = hub.read("dev")
    assert columns_of(table) == {
        "s": ["x", "y", "z"],
        "gold": ["1", "0", "-1"],
        "n": ["7", "8", "9"],
    }
    assert table.class_names == {"gold": names}
    assert table.place(2) == "a/b (c) on the hub:3"
    assert [hub.has(split) for split in ("train", "dev")] == [False, True]
    with pytest.raises(ConfigError) as caught:
        hub.read("test")
    [problem] = caught.value.problems
    assert problem.where == "task.hub_splits"
    assert "validation" in problem.allowed


@pytest.mark.parametrize(
    ("address", "asked", "name"),
    [
        ("validation", ("a/b", "c", "validation"), "a/b (c) on the hub"),
        ("ax/test", ("a/b", "ax", "test"), "a/b (ax) on the hub"),
        ("other/set/axb/test", ("other/set", "axb", "test"), "other/set (axb) on the hub"),
    ],
)
def test_hub_addresses(
    monkeypatch: pytest.MonkeyPatch, address: str, asked: tuple[str, str, str], name: str
) -> None:
    calls: list[Any] = []

    def load(path: str, config: str | None, split: str) -> Dataset:
        calls.append((path, config, split))
        return data("x")

    stub_hub(monkeypatch, load)
    assert Hub("a/b", "c", {"ax": address}).read("ax").name == name
    assert calls == [asked]


def test_unreachable_hub_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise OSError("cannot resolve\na long trace")

    stub_hub(monkeypatch, load)
    with pytest.raises(HubError) as caught:
        Hub("a/b", None, {"train": "train"}).read("train")
    [problem] = caught.value.problems
    assert problem.where == "data.path"
    assert "a/b on the hub" in problem.given
    assert problem.given.endswith("(cannot resolve)")
    assert "data.path=FOLDER" in problem.hint
