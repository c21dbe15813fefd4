"""split.json: what it holds, and how a run is verified against it."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from lpt.data.examples import Examples
from lpt.data.sources import FolderSource
from lpt.data.split_file import describe_splits, examples_digest, read_split_file, verify_splits
from lpt.data.splits import Splits
from lpt.data.tasks import Task, build_task
from lpt.data.templates import Template
from tests.support.configs import configured
from tests.support.problems import problem_of, problems_of
from tests.support.split_sets import NUMBER, TASK, contents, folder, rows, set_cell, split
from tests.support.task_tables import changed


@pytest.fixture
def whole(tmp_path: Path) -> FolderSource:
    return folder(tmp_path)


@pytest.fixture
def split_file(tmp_path: Path, whole: FolderSource) -> Path:
    """The one of a k-shot run on `whole`."""
    return write(tmp_path, describe_splits(kshot(whole), TASK).model_dump())


def write(path: Path, content: Any) -> Path:
    file = path / "split.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def kshot(source: FolderSource, used: Task = TASK, **settings: Any) -> Splits:
    return split(source, used, **{"protocol": "kshot", "k": 8, "dev_k": 9} | settings)


def refused(splits: Splits, file: Path, task: Task = TASK) -> list[str]:
    problems = problems_of(lambda: verify_splits(splits, task, file))
    assert {problem.where for problem in problems} == {"data.verify"}
    return [problem.given for problem in problems]


def test_content(split_file: Path, whole: FolderSource) -> None:
    splits, found = kshot(whole), read_split_file(split_file)
    assert (found.task, found.kind, found.template) == ("toy", "masked", "{a} <mask> {b}")
    assert set(found.sets) == {"train", "dev", "test"}
    for name, part in splits.sets.items():
        assert found.sets[name].rows == part.row_ids
        assert found.sets[name].origin == splits.origin[name]
        assert len(found.sets[name].sha256) == 64


def test_the_digest_covers_texts_labels_and_order() -> None:
    def digest(texts: list[str], labels: list[Any], task: Task = TASK) -> str:
        part = Examples({"a": texts, "b": ["z"] * len(texts)}, labels, [0, 1])
        return examples_digest(part, task.template, task.config.labels)

    digests = [
        digest(["x", "y"], [0, 1]),
        digest(["y", "x"], [1, 0]),
        digest(["x", "y"], [1, 1]),
        digest(["x", "y"], [0, -1]),
        digest(["x", "Y"], [0, 1]),
        digest(["x", "y"], [0, 1], changed(TASK, labels=["1", "0"])),
        digest(["x", "y"], [0.0, 1.0], NUMBER),
        digest(["x", "y"], [0.0, 1.5], NUMBER),
    ]
    # Written by the first version: split files stay valid.
    assert digests[0] == "6f70c69a08377f7134593ca32c1a19a0a5fad0142a877f8a35dd2a18374f9802"
    assert len({*digests}) == len(digests)


def test_extra_sets_may_differ(tmp_path: Path, whole: FolderSource, split_file: Path) -> None:
    wider = kshot(folder(tmp_path / "wider", **contents(), more=rows("more", 7)), extra=["more"])
    assert "more" in wider.sets
    verify_splits(wider, TASK, split_file)
    verify_splits(kshot(whole), TASK, split_file.parent)  # a run's folder
    description = describe_splits(wider, TASK).model_dump()
    verify_splits(kshot(whole), TASK, write(tmp_path / "wider", description))


def test_other_rows_are_refused(whole: FolderSource, split_file: Path) -> None:
    train, dev = refused(kshot(whole, seed=21), split_file)
    assert re.fullmatch("train: 8 rows, [0-7] of them among the 8 expected", train)
    assert re.fullmatch("dev: 9 rows, [0-8] of them among the 9 expected", dev)
    train, test = refused(kshot(whole, limit_train=5, limit_test=11), split_file)
    assert train == "train: 5 rows, 5 of them among the 8 expected"
    assert test == "test: 11 rows, 11 of them among the 12 expected"
    splits = kshot(whole)
    dev = splits.sets["dev"]
    sets = {**splits.sets, "dev": dev.select(list(reversed(range(len(dev)))))}
    given = refused(dataclasses.replace(splits, sets=sets), split_file)
    assert given == ["dev: the expected rows in a different order"]


@pytest.mark.parametrize("name", ["train", "dev", "test"])
def test_a_changed_label_is_refused(whole: FolderSource, split_file: Path, name: str) -> None:
    splits = kshot(whole)
    part = splits.sets[name]
    other = dataclasses.replace(part, labels=[1 - part.labels[0], *part.labels[1:]])
    sets = {**splits.sets, name: other}
    given = refused(dataclasses.replace(splits, sets=sets), split_file)
    assert given == [f"{name}: the same rows, but different texts or labels"]


def test_another_task_is_refused(split_file: Path) -> None:
    config = configured("task=mr", "data.path=.", f"data.verify={split_file}")
    problem = problem_of(lambda: build_task(config, "masked"))
    assert problem.given == f"{split_file} is of task toy"


def test_a_missing_set_is_reported(tmp_path: Path, whole: FolderSource) -> None:
    content = describe_splits(kshot(whole), TASK).model_dump()
    del content["sets"]["dev"]
    file = write(tmp_path, content)
    assert refused(kshot(whole), file) == [f"{file} has no dev set"]


def test_runs_of_other_models_compare(
    tmp_path: Path, whole: FolderSource, split_file: Path
) -> None:
    """The template of the file counts; its columns are kept besides those of the task's own."""
    template = Template.parse("{b} It was {word}", "causal")
    causal = dataclasses.replace(TASK, template=template, extra_columns=("a", "b"))
    splits = kshot(whole, causal)
    assert set(splits.sets["train"].columns) == {"a", "b"}
    verify_splits(splits, causal, split_file)
    other_cell = contents()
    set_cell(other_cell, "dev", 1, 0, "other")  # in a column that only the file's template has
    other = kshot(folder(tmp_path / "other", **other_cell), causal)
    given = refused(other, split_file, causal)
    assert given == ["test: the same rows, but different texts or labels"]
