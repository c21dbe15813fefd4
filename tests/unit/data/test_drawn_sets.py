"""What is drawn in proportion: classes, numbers, groups."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lpt.data.sources import Folder
from lpt.data.splits import make_splits, strata
from lpt.data.tables import Table
from lpt.data.tasks import Examples, Task
from tests.support.split_sets import NUMBER, TASK


def units(labels: Sequence[Any], groups: str | None = None) -> Examples:
    notes = {} if groups is None else {"group": list(groups)}
    return Examples({"a": [""] * len(labels)}, list(labels), list(range(len(labels))), notes)


CHOICE = dataclasses.replace(TASK, task_type="multiple_choice")


@pytest.mark.parametrize(
    ("task", "examples", "expected"),
    [
        (TASK, units([1, 0, 1]), [1, 0, 1]),
        (TASK, units([1, 0, 1], "abc"), [1, 0, 1]),
        (TASK, units([1, 0, 1], "aba"), [0, 0]),  # each group has labels of its own
        (NUMBER, units([0.0, 2.4, 2.5, 5.0]), [False, False, True, True]),
        (
            dataclasses.replace(NUMBER, labels=("1", "3")),
            units([1.0, 1.9, 2.0]),
            [False, False, True],
        ),
        (CHOICE, units([1, 0, 0, 1, 1, 0], "aabbcc"), [(1, 0), (0, 1), (1, 0)]),
        (CHOICE, units([1, 0, 0, 1, 1, 0], "ababcc"), [(1, 0), (0, 1), (1, 0)]),
        (CHOICE, units([1, 0, 0, 1, 1], "aabbb"), [0, 0]),
    ],
)
def test_strata(task: Task, examples: Examples, expected: list[Any]) -> None:
    assert strata(task, examples) == expected


GROUP_SIZES = {"same": [2] * 30, "other": [1 + i % 4 for i in range(30)]}


def grouped(path: Path, sizes: Sequence[int]) -> Folder:
    """Rows of which one in each group is right; the groups of train lie interleaved."""
    for name, some in (("train", sizes), ("dev", sizes[:8])):
        lines = [
            {"a": f"{name} {group} {at}", "b": "", "label": str(int(at == group % size))}
            | {"group": f"{name}{group}", "order": at}
            for group, size in enumerate(some)
            for at in range(size)
        ]
        lines.sort(key=lambda line: line["order"])
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        (path / f"{name}.jsonl").write_text(text)
    return Folder(path, {})


@dataclasses.dataclass(frozen=True)
class Grouping(Task):
    """Takes groups from a column instead of making candidates."""

    def examples(self, table: Table, *, need_labels: bool) -> Examples:
        found = TASK.examples(table, need_labels=need_labels)
        notes = {"group": [str(value) for value in table.columns["group"]]}
        return dataclasses.replace(found, notes=notes)


def in_groups(decide: str) -> Grouping:
    values = {f.name: getattr(TASK, f.name) for f in dataclasses.fields(TASK)}
    return Grouping(**values | {"decide": decide})


@pytest.mark.parametrize("sizes", GROUP_SIZES)
@pytest.mark.parametrize("decide", ["label", "choice"])
@pytest.mark.parametrize("seed", [13, 42])
@pytest.mark.parametrize("draw", ["total", "per_class", "hold out"])
def test_groups_are_drawn_whole(
    tmp_path: Path, sizes: str, decide: str, seed: int, draw: str
) -> None:
    task, source = in_groups(decide), grouped(tmp_path, GROUP_SIZES[sizes])
    how: dict[str, Any] = {"protocol": "kshot", "k": 6, "dev_k": 5, "draw": draw}
    if draw == "hold out":
        how = {"protocol": "full", "k": None, "dev_k": 5, "draw": "total", "test": "dev"}
    splits = make_splits(source, task, seed=seed, **how)
    whole = task.examples(source.read("train"), need_labels=True)
    size_of = Counter(whole.notes["group"])
    taken: dict[str, list[str]] = {}
    for name, part in (("train", splits.train), ("dev", splits.dev)):
        assert Counter(part.notes["group"]) == {g: size_of[g] for g in part.notes["group"]}
        taken[name] = list(dict.fromkeys(part.notes["group"]))
    assert not set(taken["train"]) & set(taken["dev"])
    # k counts groups; of each place of the right candidate where these are strata.
    classes = 2 if decide == "choice" and sizes == "same" and draw == "per_class" else 1
    expected = (25, 5) if draw == "hold out" else (6 * classes, 5 * classes)
    assert (len(taken["train"]), len(taken["dev"])) == expected
    if classes == 2:
        places = Counter(tuple(splits.train.labels[i] for i in u) for u in splits.train.units())
        assert places == {(1, 0): 6, (0, 1): 6}
    assert len(splits.test.units()) == 8


@pytest.mark.parametrize("limit", [1, 4, 29, 30, 99])
def test_limits_count_groups(tmp_path: Path, limit: int) -> None:
    task, source = in_groups("choice"), grouped(tmp_path, GROUP_SIZES["other"])
    part = task.examples(source.read("train"), need_labels=True)
    limited = part.limited(limit, 13)
    size_of = Counter(part.notes["group"])
    found = Counter(limited.notes["group"])
    assert len(found) == min(limit, 30)
    assert found == {group: size_of[group] for group in found}
    assert limited == part.limited(limit, 13)
