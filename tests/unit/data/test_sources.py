"""Where rows come from: files in a folder, data sets saved by `datasets`, the hub."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict

from lpt.data.sources import (
    FolderSource,
    HubSource,
    build_source,
    find_source,
)
from lpt.errors import HubError
from tests.support.configs import configured
from tests.support.problems import problem_of, problems_of
from tests.support.source_files import (
    HUB_SPLITS,
    columns_of,
    dataset,
    stub_hub,
    write,
    write_texts,
)

SPLITS = ("train", "dev", "test")


def test_named_file_header_and_short_rows(tmp_path: Path) -> None:
    write_texts(tmp_path / "train.tsv", "wrong")
    write(tmp_path / "mine.tsv", "1\tright\n0\n")
    files, header = {"train": "mine.tsv"}, ["label", "text"]
    folder = FolderSource(tmp_path, files, header, skip_short_rows=True)
    assert folder.read("train").columns == {"label": ["1"], "text": ["right"]}
    strict = FolderSource(tmp_path, files, header)
    assert problem_of(lambda: strict.read("train")).where == f"{tmp_path / 'mine.tsv'}:2"


SHARD = "-00000-of-00001.parquet"
DEV_FILES = {  # by the name in the task: what may hold the dev set
    None: "dev.tsv dev.jsonl validation.csv valid.jsonl val.parquet validation_matched.parquet "
    f"dev{SHARD} validation_matched{SHARD}",
    "dev_matched": f"dev_matched.tsv dev_matched.parquet dev_matched{SHARD}",
    "sub/dev": "sub/dev.csv sub/dev.parquet",
    "sub/dev.jsonl": "sub/dev.jsonl",
}


@pytest.mark.parametrize("named", DEV_FILES)
def test_several_files_of_a_split_are_refused(tmp_path: Path, named: str | None) -> None:
    folder = FolderSource(tmp_path, {"dev": named}, hub_splits=HUB_SPLITS)
    if named is not None:
        write_texts(tmp_path / "other.tsv")
    assert not folder.has("dev")
    names = DEV_FILES[named].split()
    for name in names:
        write_texts(tmp_path / name)
        assert columns_of(folder.read("dev"))["text"] == [name.rpartition("/")[2]]
        (tmp_path / name).unlink()
    if named == "dev_matched":  # has priority over dev.tsv
        write_texts(tmp_path / "dev.tsv")
        assert columns_of(folder.read("dev"))["text"] == ["dev.tsv"]
    for first, second in pairwise(names):
        write_texts(tmp_path / first)
        assert columns_of(folder.read("dev"))["text"] == [first.rpartition("/")[2]]
        write_texts(tmp_path / second)
        problem = problem_of(lambda: folder.read("dev"))
        assert problem.given in {
            f"{tmp_path} has 2 files of dev: {first}, {second}",
            f"{tmp_path} has 2 files of dev: {second}, {first}",
        }
        assert "task.files.dev=" in problem.hint
        chosen = dataclasses.replace(folder, files={"dev": second})
        assert columns_of(chosen.read("dev"))["text"] == [second.rpartition("/")[2]]
        (tmp_path / first).unlink()
        (tmp_path / second).unlink()


def test_training_and_testing_are_names_as_well(tmp_path: Path) -> None:
    for name in ("training.csv", "testing.jsonl"):
        write_texts(tmp_path / name)
    folder = FolderSource(tmp_path, {})
    assert columns_of(folder.read("train"))["text"] == ["training.csv"]
    assert folder.has("test")
    write_texts(tmp_path / "train.csv")
    problem = problem_of(lambda: folder.read("train"))
    assert problem.given == f"{tmp_path} has 2 files of train: train.csv, training.csv"


def test_several_saved_data_sets_of_a_split_are_refused(tmp_path: Path) -> None:
    DatasetDict({"dev": dataset("a"), "validation": dataset("b")}).save_to_disk(tmp_path)
    problem = problem_of(lambda: FolderSource(tmp_path, {}).read("dev"))
    assert problem.given == f"{tmp_path} has 2 files of dev: dev, validation"
    hub = FolderSource(tmp_path, {}, hub_splits={"dev": "validation"})
    assert columns_of(hub.read("dev"))["text"] == ["b"]


def test_extra_sets_have_the_hubs_names(tmp_path: Path) -> None:
    """But another configuration's split `test` is not the file test.tsv here."""
    write_texts(tmp_path / "validation_mm.tsv")
    write_texts(tmp_path / "test.tsv")
    folder = FolderSource(tmp_path, {}, hub_splits=HUB_SPLITS)
    found = {split: folder.has(split) for split in ("mm", "test", "ax", "zzz")}
    assert found == {"mm": True, "test": True, "ax": False, "zzz": False}


@pytest.mark.parametrize("stem", ["train", "data_train"])
def test_shards(tmp_path: Path, stem: str) -> None:
    for n in (10, 2, 0, 1, *range(3, 10)):
        write_texts(tmp_path / f"{stem}-{n:05}-of-00011.parquet", f"{n} a", f"{n} b")
    folder = FolderSource(tmp_path, {}, hub_splits={"train": "data_train"})
    expected = [f"{n} {letter}" for n in range(11) for letter in "ab"]
    assert columns_of(folder.read("train")) == {"text": expected}
    (tmp_path / f"{stem}-00003-of-00011.parquet").unlink()
    problem = problem_of(lambda: folder.read("train"))
    assert problem.given.startswith("10 shards: ")


@pytest.mark.parametrize("exists", [True, False], ids=["folder", "no folder"])
def test_missing_split(tmp_path: Path, exists: bool) -> None:
    path = tmp_path / "task"
    if exists:
        write_texts(path / "train.tsv")
    source = FolderSource(path, {"dev": "dev_m"}, hub_splits=HUB_SPLITS)
    problem = problem_of(lambda: source.read("dev"))
    present = "train.tsv" if exists else "nothing"
    given = f"{path} has no dev split (it has: {present})"
    assert (problem.where, problem.given) == ("data.path", given)
    stems = "dev_m or dev or validation or valid or val or validation_matched"
    assert problem.expected.startswith(f"{stems}, a file of type .tsv")
    assert "task.files.dev=" in problem.hint


# Saved data sets and the hub; tests/integration/test_same_examples.py compares their rows


def test_saved_data_sets(tmp_path: Path) -> None:
    saved = {"train": dataset("a", "b"), "validation_matched": dataset("c")}
    DatasetDict(saved).save_to_disk(tmp_path)
    hub_splits = HUB_SPLITS | {"test": "test_matched"}
    source = FolderSource(tmp_path, {"dev": "dev.tsv"}, hub_splits=hub_splits)
    assert [split for split in (*SPLITS, "mm", "ax") if source.has(split)] == ["train", "dev"]
    table = source.read("train")
    assert table.class_names == {"label": ["neg", "pos"]}
    assert table.location(1) == f"{tmp_path / 'train'}:2"
    problem = problem_of(lambda: source.read("test"))
    given = f"{tmp_path} has no test split (it has: dataset_dict.json, train, validation_matched)"
    assert (problem.where, problem.given) == ("data.path", given)
    assert problem.expected.startswith("test or testing or test_matched, ")


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
        return dataset("x", "y")

    stub_hub(monkeypatch, load)
    hub = HubSource("a/b", "c", {"dev": address})
    table = hub.read("dev")
    assert calls == [asked]
    assert columns_of(table)["text"] == ["x", "y"]
    assert table.location(1) == f"{name}:2"
    assert [hub.has(split) for split in SPLITS] == [False, True, False]
    problem = problem_of(lambda: hub.read("test"))
    assert problem.where == "task.hub_splits"
    assert address in problem.expected


def test_unreachable_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise OSError("cannot resolve\na long trace")

    stub_hub(monkeypatch, load)
    with pytest.raises(HubError) as caught:
        HubSource("a/b", None, {"train": "train"}).read("train")
    [problem] = caught.value.problems
    assert problem.where == "data.path"
    assert "a/b on the hub" in problem.given
    assert "HF_HUB_OFFLINE" in problem.given
    assert "data.path=FOLDER" in problem.hint


@pytest.mark.parametrize(
    ("present", "found"),
    [
        ("SST-2", "SST-2"),
        ("sst2", "sst2"),
        ("glue/SST-2", "glue/SST-2"),
        ("SST-2 glue/SST-2", "SST-2"),
        ("glue/SST-2 other/sst", "glue/SST-2"),
        ("glue/deep/SST-2", None),
    ],
)
def test_folder_of_a_task(tmp_path: Path, present: str, found: str | None) -> None:
    for name in present.split():
        write_texts(tmp_path / name / "train.tsv")
    config = configured("task=sst2", f"data.root={tmp_path}")
    source = find_source(config)
    if found is not None:
        assert source == dataclasses.replace(source, path=tmp_path / found)
        return
    assert source is None
    problem = problem_of(lambda: build_source(config))
    assert problem.where == "data.root"
    assert "no folder SST-2 or sst2 (it has: glue)" in problem.given


def suites(root: Path, **files: str) -> None:
    """Folders of RTE in two suites, each with these files."""
    for suite, names in files.items():
        for name in names.split():
            write_texts(root / suite / "RTE" / name)


def test_the_folder_with_most_of_a_task_is_used(tmp_path: Path) -> None:
    suites(tmp_path, glue="train.tsv dev.tsv", super_glue="train.tsv dev.tsv")
    config = configured("task=rte", f"data.root={tmp_path}")
    folders = [tmp_path / suite / "RTE" for suite in ("glue", "super_glue")]
    [problem] = problems_of(lambda: find_source(config))
    assert problem.where == "data.root"
    assert all(str(folder) in problem.given for folder in folders)
    assert problem.hint == f"data.path={folders[0]}"
    suites(tmp_path, super_glue="test.tsv")
    source = find_source(config)
    assert isinstance(source, FolderSource)
    assert source.path == folders[1]


def test_a_diagnostic_is_found_by_its_own_file(tmp_path: Path) -> None:
    suites(tmp_path, glue="train.tsv dev.tsv test.tsv", super_glue="train.tsv dev.tsv")
    config = configured("task=ax-b", f"data.root={tmp_path}")
    assert find_source(config) is None  # RTE's own test set is not used for it
    write(tmp_path / "super_glue" / "AX-b" / "AX-b.jsonl", json.dumps({"sentence1": "x"}))
    source = find_source(config)
    assert isinstance(source, FolderSource)
    assert source.path == tmp_path / "super_glue" / "RTE"
    assert len(source.read("test")) == 1
