"""The file that says which rows a run has, and what it is held against."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lpt.data.build import build_task
from lpt.data.sources import Folder
from lpt.data.split_file import describe, digest, read_description, verify
from lpt.data.splits import Splits, make_splits
from lpt.data.tasks import Examples, Task
from lpt.data.templates import Template
from lpt.errors import ConfigError
from tests.conftest import Compose
from tests.support.split_sets import (
    NUMBER,
    TASK,
    change,
    contents,
    folder,
    rows,
    split,
    whole_folder,
)


@pytest.fixture
def whole(tmp_path: Path) -> Folder:
    return whole_folder(tmp_path)


@pytest.fixture
def split_file(tmp_path: Path, whole: Folder) -> Path:
    """That of a k-shot run on `whole`."""
    return write(tmp_path, describe(kshot(whole), TASK))


def write(path: Path, content: Any) -> Path:
    file = path / "split.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def kshot(source: Folder, **changes: Any) -> Splits:
    return split(source, **{"protocol": "kshot", "k": 8, "dev_k": 9} | changes)


def refused(splits: Splits, file: Path, task: Task = TASK) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        verify(splits, task, file)
    assert {p.where for p in caught.value.problems} == {"data.verify"}
    return [p.given for p in caught.value.problems]


def test_what_a_split_file_says(whole: Folder) -> None:
    splits = kshot(whole)
    found = json.loads(json.dumps(describe(splits, TASK)))
    assert (found["task"], found["kind"], found["template"]) == ("toy", "masked", "{a} <mask> {b}")
    assert set(found["sets"]) == {"train", "dev", "test"}
    for name, part in splits.items():
        assert found["sets"][name]["rows"] == part.row_ids
        assert found["sets"][name]["origin"] == splits.origin[name]
        assert len(found["sets"][name]["sha256"]) == 64


def test_digest_is_of_text_label_and_order() -> None:
    def of(texts: list[str], labels: list[Any], task: Task = TASK) -> str:
        part = Examples({"a": texts, "b": ["z"] * len(texts)}, labels, [0, 1])
        return digest(part, task.template, task.labels)

    same = of(["x", "y"], [0, 1])
    assert same == of(["x", "y"], [0, 1])
    swapped = dataclasses.replace(TASK, labels=("1", "0"))
    others = [
        of(["y", "x"], [1, 0]),
        of(["x", "y"], [1, 1]),
        of(["x", "y"], [0, -1]),
        of(["x", "Y"], [0, 1]),
        of(["x", "y"], [0, 1], swapped),
        of(["x", "y"], [0.0, 1.0], NUMBER),
        of(["x", "y"], [0.0, 1.5], NUMBER),
    ]
    assert len({same, *others}) == 1 + len(others)


def test_the_same_data_pass(tmp_path: Path, whole: Folder, split_file: Path) -> None:
    verify(kshot(whole), TASK, split_file)
    again = folder(tmp_path / "again", **contents())
    verify(kshot(again), TASK, split_file)


def test_further_sets_may_differ(tmp_path: Path, whole: Folder, split_file: Path) -> None:
    folder(tmp_path / "wider", **contents(), more=rows("more", 7))
    wider = kshot(Folder(tmp_path / "wider", {"more": "more"}), extra=["more"])
    assert "more" in wider.extra
    verify(wider, TASK, split_file)
    verify(kshot(whole), TASK, write(tmp_path / "wider", describe(wider, TASK)))


def test_another_draw_is_refused(whole: Folder, split_file: Path) -> None:
    given = refused(kshot(whole, seed=21), split_file)
    assert [text.split(":")[0] for text in given] == ["train", "dev"]
    assert all("lacks" in text and "has in their place" in text for text in given)


def test_other_sizes_are_told(whole: Folder, split_file: Path) -> None:
    given = refused(kshot(whole, limits=(5, None, 11)), split_file)
    assert [text.split(":")[0] for text in given] == ["train", "test"]
    assert "5 rows instead of 8; lacks" in given[0]
    assert "has in their place" not in given[0]
    assert "11 rows instead of 12; lacks" in given[1]


def test_rows_in_another_order_are_refused(whole: Folder, split_file: Path) -> None:
    splits = kshot(whole)
    order = list(reversed(range(len(splits.dev))))
    turned = dataclasses.replace(splits, dev=splits.dev.take(order))
    assert refused(turned, split_file) == ["dev: the rows in another order"]


@pytest.mark.parametrize(
    ("column", "value"), [(0, "other"), (1, "other"), (2, "flip")], ids=["a", "b", "label"]
)
@pytest.mark.parametrize("name", ["train", "dev", "test"])
def test_a_changed_row_is_refused(
    tmp_path: Path, whole: Folder, split_file: Path, name: str, column: int, value: str
) -> None:
    splits = kshot(whole)
    row = dict(splits.items())[name].row_ids[2]
    changed = contents()
    source = "dev" if name == "test" else "train"
    if value == "flip":
        # The draw depends on labels: as they were when the rows were drawn.
        part = dict(splits.items())[name]
        labels = [1 - y if at == 2 else y for at, y in enumerate(part.labels)]
        other = dataclasses.replace(splits, **{name: dataclasses.replace(part, labels=labels)})
    else:
        change(changed, source, row + 1, column, value)
        other = kshot(folder(tmp_path / "other", **changed))
    assert refused(other, split_file) == [f"{name}: the same rows, but other texts or labels"]


def test_another_task_is_refused(composed: Compose, split_file: Path) -> None:
    config = composed("task=mr", "data.path=.", f"data.verify={split_file}")
    with pytest.raises(ConfigError) as caught:
        build_task(config, "masked")
    assert [p.given for p in caught.value.problems] == [f"{split_file} is of task toy"]


def test_a_limited_set_says_so(whole: Folder) -> None:
    limited = split(whole, limits=(None, None, 4))
    rows = len(split(whole).test)
    assert limited.origin["test"] == f"official test set, 4 of {rows} drawn with seed 13"
    assert limited.origin["dev"] == "official dev set"


def test_a_set_that_is_not_in_the_file(tmp_path: Path, whole: Folder) -> None:
    content = describe(kshot(whole), TASK)
    del content["sets"]["dev"]
    file = write(tmp_path, content)
    assert refused(kshot(whole), file) == [f"{file} has no dev set"]


def test_runs_of_other_models_compare(tmp_path: Path, whole: Folder, split_file: Path) -> None:
    """The file's template counts, whose columns are read besides those of the task's own."""
    template = Template.parse("{b} It was {word}", "causal")
    causal = dataclasses.replace(TASK, template=template, extra_columns=("a", "b"))

    def drawn(source: Folder) -> Splits:
        return make_splits(
            source, causal, protocol="kshot", k=8, dev_k=9, sampling="total", seed=13
        )

    splits = drawn(whole)
    assert set(splits.train.columns) == {"a", "b"}
    verify(splits, causal, split_file)
    changed = contents()
    change(changed, "dev", 1, 0, "other")  # in a column that only the file's template has
    other = drawn(folder(tmp_path / "other", **changed))
    assert refused(other, split_file, causal) == ["test: the same rows, but other texts or labels"]


def without(key: str) -> Callable[[dict[str, Any]], Any]:
    def change(content: dict[str, Any]) -> Any:
        del content[key]
        return content

    return change


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: [],
        lambda _: "text",
        lambda content: content | {"format": 2},
        lambda content: content | {"sets": [1]},
        lambda content: content | {"sets": {"train": {"rows": [0]}}},
        lambda content: content | {"sets": {"train": {"sha256": "", "rows": 3}}},
        *(without(key) for key in ("format", "task", "kind", "template", "sets")),
    ],
)
def test_malformed_split_files(
    tmp_path: Path, whole: Folder, spoil: Callable[[dict[str, Any]], Any]
) -> None:
    file = write(tmp_path, spoil(describe(kshot(whole), TASK)))
    with pytest.raises(ConfigError) as caught:
        read_description(file)
    [problem] = caught.value.problems
    assert problem.where == "data.verify"
    assert str(file) in problem.given
    assert problem.expected == "a split.json, format 1"


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe", b"{}"])
def test_what_is_no_split_file(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "split.json"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_description(file)
    assert [p.where for p in caught.value.problems] == ["data.verify"]
    with pytest.raises(ConfigError, match="No such file"):
        read_description(tmp_path / "absent.json")
