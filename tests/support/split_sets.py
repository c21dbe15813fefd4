"""A small task and its sets, to be split."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from lpt.data.sources import Folder
from lpt.data.splits import Splits, make_splits
from lpt.data.tasks import Examples, Task
from lpt.data.templates import Template

Rows = list[tuple[str, ...]]
TASK = Task(
    name="toy",
    template=Template.parse("{a} <mask> {b}", "masked"),
    labels=("0", "1"),
    label_words=("bad", "good"),
    metrics=("accuracy",),
)
NUMBER = dataclasses.replace(TASK, task_type="regression", labels=("0", "5"))


def rows(split: str, count: int, labelled: bool = True) -> Rows:
    """A header, then rows whose label is 1 for every third."""
    body = [(f"{split} {i}", f"b{i}", *([str(int(i % 3 == 0))] * labelled)) for i in range(count)]
    return [("a", "b", "label")[: 2 + labelled], *body]


def folder(path: Path, separator: str = "\t", **splits: Rows) -> Folder:
    path.mkdir(exist_ok=True)
    for split, content in splits.items():
        text = "".join(f"{separator.join(row)}\n" for row in content)
        (path / f"{split}{'.tsv' if separator != ',' else '.csv'}").write_text(text)
    return Folder(path, {})


def split(source: Folder, **changes: Any) -> Splits:
    arguments: dict[str, Any] = {"protocol": "full", "k": None, "dev_k": 10, "draw": "total"}
    return make_splits(source, TASK, **{**arguments, "seed": 13} | changes)


def texts(part: Examples) -> list[str]:
    return part.columns["a"]


def change(splits: dict[str, Rows], name: str, row: int, column: int, value: str) -> None:
    cells = list(splits[name][row])
    cells[column] = value
    splits[name][row] = tuple(cells)


def contents() -> dict[str, Rows]:
    return {name: rows(name, count) for name, count in (("train", 60), ("dev", 12), ("test", 9))}


def whole_folder(path: Path) -> Folder:
    """Official sets of all three kinds."""
    return folder(path, train=rows("train", 60), dev=rows("dev", 12), test=rows("test", 9))
