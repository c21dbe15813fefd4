"""Which folder a task's rows are in, and what `datasets` saves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import DatasetDict

from lpt.data.build import find_source
from lpt.data.sources import Folder, Saved, find_folders, open_folder
from lpt.errors import ConfigError
from tests.support.source_files import HUB_SPLITS, columns_of, data, splits_of, write
from tests.unit.config.test_config import configured


def test_saved_data_set(tmp_path: Path) -> None:
    DatasetDict({"train": data("a", "b"), "validation_matched": data("c")}).save_to_disk(tmp_path)
    source = open_folder(tmp_path, {}, HUB_SPLITS, None, False)
    assert source == Saved(tmp_path, HUB_SPLITS)
    assert [split for split in ("train", "dev", "test", "mm", "ax") if source.has(split)] == [
        "train",
        "dev",
    ]
    table = source.read("train")
    assert columns_of(table) == {"text": ["a", "b"], "label": ["0", "0"]}
    assert table.class_names == {"label": ["neg", "pos"]}
    assert table.place(1) == f"{tmp_path / 'train'}:2"
    assert columns_of(source.read("dev"))["text"] == ["c"]


@pytest.mark.parametrize(("name", "splits"), [("validation", {}), ("dev", HUB_SPLITS)])
def test_saved_under_a_usual_name(tmp_path: Path, name: str, splits: dict[str, str]) -> None:
    DatasetDict({name: data("a")}).save_to_disk(tmp_path)
    assert len(Saved(tmp_path, splits).read("dev")) == 1


def test_saved_split_that_is_missing_or_broken(tmp_path: Path) -> None:
    DatasetDict({"train": data("a"), "dev": data("b")}).save_to_disk(tmp_path)
    with pytest.raises(ConfigError) as caught:
        Saved(tmp_path, {"test": "test_matched"}).read("test")
    [problem] = caught.value.problems
    assert problem.where == "data.path"
    assert f"{tmp_path} has no test split (it has: dev, train)" in problem.given
    assert problem.expected == "test_matched"
    for arrow in (tmp_path / "train").glob("*.arrow"):
        arrow.unlink()
    with pytest.raises(ConfigError) as caught:
        Saved(tmp_path, {}).read("train")
    [problem] = caught.value.problems
    assert problem.where == str(tmp_path / "train")


def test_other_folders_hold_files(tmp_path: Path) -> None:
    files, header = {"train": "a.tsv"}, ["label", "text"]
    opened = open_folder(tmp_path, files, HUB_SPLITS, header, True)
    assert opened == Folder(tmp_path, files, header, HUB_SPLITS, skip_short_rows=True)


# data.root


@pytest.mark.parametrize(
    ("present", "found"),
    [
        ("SST-2", "SST-2"),
        ("sst2", "sst2"),
        ("glue/SST-2", "glue/SST-2"),
        ("SST-2 glue/SST-2", "SST-2"),
        ("glue/SST-2 other/sst", "glue/SST-2"),
    ],
)
def test_folder_of_a_task(tmp_path: Path, present: str, found: str) -> None:
    for name in present.split():
        (tmp_path / name).mkdir(parents=True)
    assert find_folders(tmp_path, ["SST-2", "sst2"]) == [tmp_path / found]


RTE = "index\tsentence1\tsentence2\tlabel\n0\tx\ty\tentailment\n1\tx\tz\tnot_entailment\n"


def suites(root: Path, **files: str) -> None:
    """Folders of RTE in two suites, each with files of that content."""
    for suite, names in files.items():
        for name in names.split():
            write(root / suite / "RTE" / name, RTE)


def test_folders_that_have_as_much_are_told_apart_by_the_user(tmp_path: Path) -> None:
    suites(tmp_path, glue="train.tsv dev.tsv", super_glue="train.tsv dev.tsv")
    with pytest.raises(ConfigError) as caught:
        splits_of("rte", f"data.root={tmp_path}", "data.test=dev", "data.dev_k=1")
    [problem] = caught.value.problems
    found = [str(tmp_path / suite / "RTE") for suite in ("glue", "super_glue")]
    assert problem.where == "data.root"
    assert all(folder in problem.given for folder in found)
    assert problem.hint == f"data.path={found[0]}"


def test_the_folder_that_has_most_of_a_task_is_taken(tmp_path: Path) -> None:
    suites(tmp_path, glue="train.tsv dev.tsv", super_glue="train.tsv dev.tsv test.tsv")
    config = configured("task=rte", f"data.root={tmp_path}")
    source = find_source(config)
    assert isinstance(source, Folder)
    assert source.path == tmp_path / "super_glue" / "RTE"


def test_a_diagnostic_is_found_by_its_own_file(tmp_path: Path) -> None:
    suites(tmp_path, glue="train.tsv dev.tsv test.tsv", super_glue="train.tsv dev.tsv")
    config = configured("task=ax-b", f"data.root={tmp_path}")
    assert find_source(config) is None  # RTE's own test set is not taken for it
    row = {"sentence1": "x", "sentence2": "y", "label": "entailment", "idx": 0}
    write(tmp_path / "super_glue" / "AX-b" / "AX-b.jsonl", json.dumps(row))
    source = find_source(config)
    assert isinstance(source, Folder)
    assert source.path == tmp_path / "super_glue" / "RTE"
    assert len(source.read("test")) == 1


def test_no_folder_of_a_task(tmp_path: Path) -> None:
    (tmp_path / "glue" / "deep" / "RTE").mkdir(parents=True)
    write(tmp_path / "RTE", "a file")
    assert find_folders(tmp_path, ["RTE", "rte"]) == []
    assert find_folders(tmp_path / "nowhere", ["RTE"]) == []
    with pytest.raises(ConfigError) as caught:
        splits_of("wnli", f"data.root={tmp_path}")
    [problem] = caught.value.problems
    assert problem.where == "data.root"
    assert "no folder WNLI or wnli" in problem.given
    assert "(it has: glue)" in problem.given
