"""A small task and its sets, to be split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lpt.config.task_schema import DataConfig
from lpt.data.sources import FolderSource, Source
from lpt.data.splits import Splits, make_splits
from lpt.data.tasks import Task
from tests.support.task_tables import changed, task

Rows = list[tuple[str, ...]]
TASK = task("{a} <mask> {b}", labels=["0", "1"])
NUMBER = changed(TASK, task_type="regression", labels=["0", "5"])


def rows(split: str, count: int, labelled: bool = True) -> Rows:
    """A header, then rows whose label is 1 for every third."""
    body = [(f"{split} {i}", f"b{i}", *([str(int(i % 3 == 0))] * labelled)) for i in range(count)]
    return [("a", "b", "label")[: 2 + labelled], *body]


def contents() -> dict[str, Rows]:
    """Official sets of all three kinds."""
    return {name: rows(name, count) for name, count in (("train", 60), ("dev", 12), ("test", 9))}


def set_cell(splits: dict[str, Rows], name: str, row: int, column: int, value: str) -> None:
    cells = list(splits[name][row])
    cells[column] = value
    splits[name][row] = tuple(cells)


def folder(path: Path, separator: str = "\t", **splits: Rows) -> FolderSource:
    """A folder with these sets; without any, with `contents`."""
    path.mkdir(exist_ok=True)
    for split, content in (splits or contents()).items():
        text = "".join(f"{separator.join(row)}\n" for row in content)
        (path / f"{split}{'.tsv' if separator != ',' else '.csv'}").write_text(text)
    return FolderSource(path, {name: name for name in splits})


def split(source: Source, used: Task = TASK, **settings: Any) -> Splits:
    """Split with settings of `DataConfig`, `fixed_test` or `extra`; dev_k is 10."""
    extra, fixed_test = settings.pop("extra", ()), settings.pop("fixed_test", False)
    data = DataConfig(**{"dev_k": 10} | settings)
    return make_splits(source, changed(used, fixed_test=fixed_test), data, extra)
