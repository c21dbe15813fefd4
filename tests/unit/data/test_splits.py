"""Which rows train, select and test, and their checksum."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from lpt.data.fewshot import draw_per_class, draw_total, hold_out
from lpt.data.sources import Folder
from lpt.data.split_file import describe
from lpt.data.splits import Splits
from lpt.data.tables import Table
from lpt.errors import ConfigError, HubError, Problem
from tests.support.split_sets import (
    TASK,
    Rows,
    change,
    contents,
    folder,
    rows,
    split,
    texts,
    whole_folder,
)


@pytest.fixture
def whole(tmp_path: Path) -> Folder:
    return whole_folder(tmp_path)


@pytest.fixture
def no_dev(tmp_path: Path) -> Folder:
    return folder(tmp_path, train=rows("train", 60), test=rows("test", 9, labelled=False))


def test_full_takes_the_official_sets(whole: Folder) -> None:
    splits = split(whole)
    for name, count in (("train", 60), ("dev", 12), ("test", 9)):
        part = dict(splits.items())[name]
        assert texts(part) == [f"{name} {i}" for i in range(count)]
        assert part.labels == [int(i % 3 == 0) for i in range(count)]
        assert part.row_ids == list(range(count))
        assert splits.origin[name] == f"official {name} set"


def test_full_without_dev_holds_rows_out(no_dev: Folder) -> None:
    splits = split(no_dev)
    drawn = hold_out([int(i % 3 == 0) for i in range(60)], 10, 13)
    assert (splits.train.row_ids, splits.dev.row_ids) == (drawn.train, drawn.dev)
    assert sorted(drawn.train + drawn.dev) == list(range(60))
    for part in (splits.train, splits.dev):
        assert texts(part) == [f"train {i}" for i in part.row_ids]
        assert part.labels == [int(i % 3 == 0) for i in part.row_ids]
    assert "held out of train (dev_k=10, seed 13)" in splits.origin["dev"]
    assert splits.origin["train"].startswith("official train")
    # The test set has no labels; its rows are all there.
    assert texts(splits.test) == [f"test {i}" for i in range(9)]
    assert splits.test.labels == [-1] * 9


@pytest.mark.parametrize(
    ("draw", "function"), [("total", draw_total), ("per_class", draw_per_class)]
)
def test_kshot(whole: Folder, draw: str, function: Callable[..., Any]) -> None:
    splits = split(whole, protocol="kshot", k=8, dev_k=9, sampling=draw, seed=42)
    drawn = function([int(i % 3 == 0) for i in range(60)], 8, 9, 42)
    assert (splits.train.row_ids, splits.dev.row_ids) == (drawn.train, drawn.dev)
    for part in (splits.train, splits.dev):
        assert texts(part) == [f"train {i}" for i in part.row_ids]
        assert part.labels == [int(i % 3 == 0) for i in part.row_ids]
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
    with pytest.raises(ConfigError, match="there is no test file") as caught:
        split(source)
    [problem] = caught.value.problems
    assert problem.where == "data.test"
    assert "data.test=dev" in problem.hint


@pytest.mark.parametrize("protocol", ["full", "kshot"])
def test_limits_draw_rows(whole: Folder, protocol: str) -> None:
    arguments: dict[str, Any] = {"protocol": protocol, "k": 20 if protocol == "kshot" else None}
    unlimited = split(whole, **arguments)
    limited = split(whole, **arguments, limits=(7, None, 3))
    assert limited.dev == unlimited.dev
    for name, count in (("train", 7), ("test", 3)):
        some, every = getattr(limited, name), getattr(unlimited, name)
        assert len(some) == count
        at = [every.row_ids.index(row) for row in some.row_ids]
        assert some == every.take(at)
        assert at == sorted(at) != list(range(count))  # in order, but not just the first
    assert split(whole, **arguments, limits=(7, None, 3)) == limited
    assert len(set(limited.train.labels)) > 1  # draws are grouped by label


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


def checksum(splits: Splits) -> str:
    """That of the sets together, as split.json has it."""
    found = describe(splits, TASK)["sha256"]
    assert isinstance(found, str)
    return found


@pytest.mark.parametrize("name", CHANGES)
def test_checksum_changes_with_the_data(tmp_path: Path, whole: Folder, name: str) -> None:
    changed = contents()
    CHANGES[name](changed)
    assert changed != contents()
    assert checksum(split(folder(tmp_path / "other", **changed))) != checksum(split(whole))


def test_checksum_is_of_the_data_alone(tmp_path: Path, whole: Folder) -> None:
    expected = checksum(split(whole))
    assert len(expected) == 64
    assert checksum(split(whole, dev_k=20, seed=7)) == expected  # nothing is drawn
    wider: Mapping[str, Rows] = {
        name: [(f"more {i}", *row[::-1]) for i, row in enumerate(content)]
        for name, content in contents().items()
    }
    other = folder(tmp_path / "other", ",", **wider)  # CSV, columns in another order, one more
    assert checksum(split(other)) == expected


def test_checksum_tells_draws_apart(whole: Folder) -> None:
    drawn = [checksum(split(whole, protocol="kshot", k=8, seed=seed)) for seed in (13, 21, 13)]
    assert drawn[0] == drawn[2] != drawn[1]


def test_all_broken_splits_are_reported_together(tmp_path: Path) -> None:
    bad = contents()
    change(bad, "train", 5, 2, "2")
    bad["dev"].insert(3, ("one cell",))
    bad["test"][0] = ("a", "c", "label")
    with pytest.raises(ConfigError) as caught:
        split(folder(tmp_path, **bad))
    found = [(p.where, p.given) for p in caught.value.problems]
    assert found == [
        (f"{tmp_path / 'train.tsv'}:6", "label '2'"),
        (f"{tmp_path / 'dev.tsv'}:4", "1 columns"),
        (f"{tmp_path / 'test.tsv'}", "no column b (it has: a, c, label)"),
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


# Tests on the dev set, and further sets


@pytest.mark.parametrize("has_test", [True, False])
def test_dev_may_be_the_test_set(tmp_path: Path, has_test: bool) -> None:
    content = contents()
    if not has_test:
        del content["test"]
    splits = split(folder(tmp_path, **content), test="dev", dev_k=10)
    drawn = hold_out([int(i % 3 == 0) for i in range(60)], 10, 13)
    assert (splits.train.row_ids, splits.dev.row_ids) == (drawn.train, drawn.dev)
    assert texts(splits.test) == [f"dev {i}" for i in range(12)]
    assert splits.origin["test"] == "official dev set"
    assert splits.origin["dev"].startswith("held out of train")


@pytest.mark.parametrize(
    "arguments",
    [{}, {"test": "dev"}, {"protocol": "kshot", "k": 8}],
    ids=["official", "dev", "kshot"],
)
def test_a_diagnostic_is_the_test_set_under_every_protocol(
    whole: Folder, arguments: dict[str, Any]
) -> None:
    splits = split(whole, fixed_test=True, **arguments)
    assert texts(splits.test) == [f"test {i}" for i in range(9)]
    assert splits.origin["test"] == "official test set"


def test_further_sets_that_are_there(tmp_path: Path) -> None:
    content = {**contents(), "more": rows("more", 7), "blind": rows("blind", 5, labelled=False)}
    folder(tmp_path, **content)
    names = ["more", "absent", "blind"]
    source = Folder(tmp_path, {name: f"{name}.tsv" for name in names})
    splits = split(source, extra=names)
    assert splits.answered == ["test", "more", "blind"]
    assert [name for name, _ in splits.items()] == ["train", "dev", "test", "more", "blind"]
    assert texts(splits.extra["more"]) == [f"more {i}" for i in range(7)]
    assert splits.extra["more"].labelled
    assert splits.extra["blind"].labels == [-1] * 5
    assert splits.origin["blind"] == "official blind set"
    assert set(splits.origin) == {"train", "dev", "test", "more", "blind"}
    assert split(source).answered == ["test"]
    # They are limited as test is, and change nothing about the others.
    limited = split(source, extra=names, limits=(None, None, 6))
    assert [len(part) for _, part in limited.items()] == [60, 12, 6, 6, 5]
    rows_of = limited.extra["more"].row_ids
    assert rows_of == sorted(rows_of)
    assert describe(splits, TASK)["sha256"] == describe(split(source), TASK)["sha256"]


def test_broken_further_sets_are_reported_with_the_others(tmp_path: Path) -> None:
    content = {**contents(), "more": rows("more", 7)}
    change(content, "more", 3, 2, "7")
    change(content, "dev", 2, 2, "8")
    folder(tmp_path, **content)
    with pytest.raises(ConfigError) as caught:
        split(Folder(tmp_path, {"more": "more"}), extra=["more"])
    where = [p.where for p in caught.value.problems]
    assert where == [f"{tmp_path / 'dev.tsv'}:3", f"{tmp_path / 'more.tsv'}:4"]


class Unreachable:
    """A hub whose further sets cannot be had."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    def has(self, split: str) -> bool:
        return split == "more" or self.folder.has(split)

    def read(self, split: str) -> Table:
        if split == "more":
            raise HubError([Problem("data.path", "owner/more could not be had")])
        return self.folder.read(split)


def test_a_further_set_out_of_reach_is_left_out(
    whole: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        splits = split(Unreachable(whole), extra=["more"])  # type: ignore[arg-type]
    assert splits.answered == ["test"]
    assert "more is left out: owner/more could not be had" in caplog.text


def test_all_of_train_leaves_no_dev(whole: Folder) -> None:
    with pytest.raises(ConfigError) as caught:
        split(whole, protocol="kshot", k=60)
    [problem] = caught.value.problems
    assert problem.where == "data.k"
    assert "takes all 60 examples" in problem.given
