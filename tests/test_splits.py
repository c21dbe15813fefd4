from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lpt.data.fewshot import draw_per_class, draw_total, hold_out
from lpt.data.sources import Folder
from lpt.data.splits import Splits, make_splits
from lpt.data.tasks import Examples, Task
from lpt.data.templates import Template
from lpt.errors import ConfigError

Rows = list[tuple[str, ...]]
TASK = Task(
    name="toy",
    template=Template.parse("{a} <mask> {b}", "masked"),
    labels=("0", "1"),
    words=("bad", "good"),
    label_column="label",
    aliases={},
    metric="accuracy",
    metrics=("accuracy",),
)


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


@pytest.fixture
def whole(tmp_path: Path) -> Folder:
    return folder(tmp_path, train=rows("train", 60), dev=rows("dev", 12), test=rows("test", 9))


@pytest.fixture
def no_dev(tmp_path: Path) -> Folder:
    return folder(tmp_path, train=rows("train", 60), test=rows("test", 9, labelled=False))


def test_full_takes_the_official_sets(whole: Folder) -> None:
    splits = split(whole)
    for name, count in (("train", 60), ("dev", 12), ("test", 9)):
        part = dict(splits.items())[name]
        assert texts(part) == [f"{name} {i}" for i in range(count)]
        assert part.labels == [int(i % 3 == 0) for i in range(count)]
        assert part.index == list(range(count))
        assert splits.origin[name] == f"official {name} set"


def test_full_without_dev_holds_rows_out(no_dev: Folder) -> None:
    splits = split(no_dev)
    drawn = hold_out([int(i % 3 == 0) for i in range(60)], 10, 13)
    assert (splits.train.index, splits.dev.index) == (drawn.train, drawn.dev)
    assert sorted(drawn.train + drawn.dev) == list(range(60))
    for part in (splits.train, splits.dev):
        assert texts(part) == [f"train {i}" for i in part.index]
        assert part.labels == [int(i % 3 == 0) for i in part.index]
    assert "held out of train (dev_k=10, seed 13)" in splits.origin["dev"]
    assert splits.origin["train"].startswith("official train")
    # The test set has no labels; its rows are all there.
    assert texts(splits.test) == [f"test {i}" for i in range(9)]
    assert splits.test.labels == [-1] * 9


@pytest.mark.parametrize(
    ("draw", "function"), [("total", draw_total), ("per_class", draw_per_class)]
)
def test_kshot(whole: Folder, draw: str, function: Callable[..., Any]) -> None:
    splits = split(whole, protocol="kshot", k=8, dev_k=9, draw=draw, seed=42)
    drawn = function([int(i % 3 == 0) for i in range(60)], 8, 9, 42)
    assert (splits.train.index, splits.dev.index) == (drawn.train, drawn.dev)
    for part in (splits.train, splits.dev):
        assert texts(part) == [f"train {i}" for i in part.index]
        assert part.labels == [int(i % 3 == 0) for i in part.index]
    assert texts(splits.test) == [f"dev {i}" for i in range(12)]
    assert splits.origin["train"] == f"drawn from train ({draw}, k=8, seed 42)"
    assert splits.origin["test"] == "official dev set"


def test_kshot_without_dev_tests_on_test(no_dev: Folder) -> None:
    splits = split(no_dev, protocol="kshot", k=8)
    assert texts(splits.test) == [f"test {i}" for i in range(9)]
    assert not splits.test.labelled
    assert splits.origin["test"] == "official test set"


def test_kshot_needs_no_test_set(tmp_path: Path) -> None:
    source = folder(tmp_path, train=rows("train", 60), dev=rows("dev", 12))
    assert len(split(source, protocol="kshot", k=8).test) == 12
    with pytest.raises(ConfigError, match="no test split"):
        split(source)


@pytest.mark.parametrize("protocol", ["full", "kshot"])
def test_limits_draw_rows(whole: Folder, protocol: str) -> None:
    arguments: dict[str, Any] = {"protocol": protocol, "k": 20 if protocol == "kshot" else None}
    unlimited = split(whole, **arguments)
    limited = split(whole, **arguments, limits=(7, None, 3))
    assert limited.dev == unlimited.dev
    for name, count in (("train", 7), ("test", 3)):
        some, every = getattr(limited, name), getattr(unlimited, name)
        assert len(some) == count
        at = [every.index.index(row) for row in some.index]
        assert some == every.take(at)
        assert at == sorted(at) != list(range(count))  # in order, but not just the first
    assert split(whole, **arguments, limits=(7, None, 3)) == limited
    assert len(set(limited.train.labels)) > 1  # draws are grouped by label


def change(splits: dict[str, Rows], name: str, row: int, column: int, value: str) -> None:
    cells = list(splits[name][row])
    cells[column] = value
    splits[name][row] = tuple(cells)


def swap(splits: dict[str, Rows], name: str) -> None:
    """The first two rows change places; both have the label 1."""
    splits[name][1], splits[name][4] = splits[name][4], splits[name][1]


def move_text(splits: dict[str, Rows]) -> None:
    """A column read from top to bottom is the same, but its rows begin elsewhere."""
    change(splits, "dev", 1, 0, "dev 0d")
    change(splits, "dev", 2, 0, "ev 1")


CHANGES: dict[str, Callable[[dict[str, Rows]], Any]] = {
    "train text": lambda s: change(s, "train", 60, 0, "other"),
    "dev text": lambda s: change(s, "dev", 1, 1, "other"),
    "test text": lambda s: change(s, "test", 9, 0, "test  8"),
    "train label": lambda s: change(s, "train", 1, 2, "0"),
    "dev label": lambda s: change(s, "dev", 2, 2, "1"),
    "test label": lambda s: change(s, "test", 3, 2, "1"),
    "train order": lambda s: swap(s, "train"),
    "dev order": lambda s: swap(s, "dev"),
    "test order": lambda s: swap(s, "test"),
    "cut elsewhere": move_text,
    "a row less": lambda s: s["test"].pop(),
    "row from dev to test": lambda s: s["test"].append(s["dev"].pop()),
}


def contents() -> dict[str, Rows]:
    return {name: rows(name, count) for name, count in (("train", 60), ("dev", 12), ("test", 9))}


@pytest.mark.parametrize("name", CHANGES)
def test_checksum_changes_with_the_data(tmp_path: Path, whole: Folder, name: str) -> None:
    changed = contents()
    CHANGES[name](changed)
    assert changed != contents()
    assert split(folder(tmp_path / "other", **changed)).checksum() != split(whole).checksum()


def test_checksum_is_of_the_data_alone(tmp_path: Path, whole: Folder) -> None:
    checksum = split(whole).checksum()
    assert len(checksum) == 64
    assert split(whole, dev_k=20, seed=7).checksum() == checksum  # nothing is drawn
    wider: Mapping[str, Rows] = {
        name: [(f"more {i}", *row[::-1]) for i, row in enumerate(content)]
        for name, content in contents().items()
    }
    other = folder(tmp_path / "other", ",", **wider)  # CSV, columns in another order, one more
    assert split(other).checksum() == checksum


def test_checksum_tells_draws_apart(whole: Folder) -> None:
    drawn = [split(whole, protocol="kshot", k=8, seed=seed).checksum() for seed in (13, 21, 13)]
    assert drawn[0] == drawn[2] != drawn[1]


def test_all_broken_splits_are_reported_together(tmp_path: Path) -> None:
    bad = contents()
    change(bad, "train", 5, 2, "2")
    bad["dev"].insert(3, ("one cell",))
    del bad["test"]
    with pytest.raises(ConfigError) as caught:
        split(folder(tmp_path, **bad))
    found = [(p.where, p.given) for p in caught.value.problems]
    assert found == [
        (f"{tmp_path / 'train.tsv'}:6", "label '2'"),
        (f"{tmp_path / 'dev.tsv'}:4", "1 columns"),
        ("data.path", f"{tmp_path} has no test split"),
    ]


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        ({"protocol": "kshot", "k": 61}, "data.k"),
        ({"protocol": "kshot", "k": 21, "draw": "per_class"}, "data.k"),
        ({"dev_k": 60}, "data.dev_k"),
    ],
)
def test_k_that_does_not_fit(no_dev: Folder, arguments: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        split(no_dev, **arguments)
    assert [p.where for p in caught.value.problems] == [where]
