"""Which rows train, select and test, by protocol; their checksum; groups and strata."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lpt.data.examples import Examples
from lpt.data.fewshot import SAMPLERS, hold_out
from lpt.data.sources import FolderSource
from lpt.data.split_file import describe_splits
from lpt.data.splits import Splits, strata
from lpt.data.tables import Table
from lpt.data.tasks import Task
from lpt.errors import HubError, Problem
from tests.support.problems import problem_of, problems_of
from tests.support.split_sets import NUMBER, TASK, contents, folder, rows, set_cell, split
from tests.support.task_tables import task

LABELS = [int(i % 3 == 0) for i in range(60)]


@pytest.fixture
def whole(tmp_path: Path) -> FolderSource:
    return folder(tmp_path)


@pytest.fixture
def no_dev(tmp_path: Path) -> FolderSource:
    return folder(tmp_path, train=rows("train", 60), test=rows("test", 9, labelled=False))


def check_rows(examples: Examples, row_ids: list[int], name: str = "train") -> None:
    assert examples.row_ids == row_ids
    assert examples.columns["a"] == [f"{name} {i}" for i in row_ids]
    assert examples.labels == [int(i % 3 == 0) for i in row_ids]


# Protocols


def test_full_uses_the_official_sets(whole: FolderSource) -> None:
    splits = split(whole)
    for name, count in (("train", 60), ("dev", 12), ("test", 9)):
        check_rows(dict(splits.items())[name], list(range(count)), name)
        assert splits.origin[name] == f"official {name} set"


@pytest.mark.parametrize("has_test", [True, False])
def test_full_may_test_on_the_dev_set(tmp_path: Path, has_test: bool) -> None:
    sets = {name: content for name, content in contents().items() if name != "test" or has_test}
    splits = split(folder(tmp_path, **sets), test="dev", dev_k=10)
    sample = hold_out(LABELS, 10, 13)
    check_rows(splits.train, sample.train)
    check_rows(splits.dev, sample.dev)
    check_rows(splits.test, list(range(12)), "dev")
    assert splits.origin["test"] == "official dev set"
    assert splits.origin["dev"] == "held out of train (dev_k=10, seed 13)"


def test_full_without_a_dev_set_holds_out_rows(no_dev: FolderSource) -> None:
    splits = split(no_dev, dev_k=None)  # a fifth of train by default
    sample = hold_out(LABELS, 12, 13)
    check_rows(splits.train, sample.train)
    check_rows(splits.dev, sample.dev)
    assert splits.origin["train"].startswith("official train set without")
    assert splits.test.columns["a"] == [f"test {i}" for i in range(9)]
    assert splits.test.labels == [-1] * 9


@pytest.mark.parametrize("sampling", SAMPLERS)
def test_kshot(whole: FolderSource, sampling: str) -> None:
    splits = split(whole, protocol="kshot", k=8, dev_k=9, sampling=sampling, seed=42)
    sample = SAMPLERS[sampling](LABELS, 8, 9, 42)
    check_rows(splits.train, sample.train)
    check_rows(splits.dev, sample.dev)
    check_rows(splits.test, list(range(12)), "dev")
    assert splits.origin["train"] == f"sampled from train ({sampling}, k=8, seed 42)"
    assert splits.origin["test"] == "official dev set"


def test_kshot_without_a_dev_set_tests_on_test(no_dev: FolderSource) -> None:
    splits = split(no_dev, protocol="kshot", k=8)
    assert not splits.test.labelled
    assert splits.origin["test"] == "official test set"


def test_kshot_needs_no_test_set(tmp_path: Path) -> None:
    source = folder(tmp_path, train=rows("train", 60), dev=rows("dev", 12))
    assert len(split(source, protocol="kshot", k=8).test) == 12
    problem = problem_of(lambda: split(source))
    assert (problem.where, problem.given) == ("data.test", "official, and there is no test file")
    assert "data.test=dev" in problem.hint


@pytest.mark.parametrize("settings", [{}, {"test": "dev"}, {"protocol": "kshot", "k": 8}])
def test_fixed_test_sets(whole: FolderSource, settings: dict[str, Any]) -> None:
    splits = split(whole, fixed_test=True, **settings)
    check_rows(splits.test, list(range(9)), "test")
    assert splits.origin["test"] == "official test set"


def test_small_classes_are_warned_of(whole: FolderSource, caplog: pytest.LogCaptureFixture) -> None:
    split(whole, protocol="kshot", sampling="per_class", k=8, dev_k=20)
    assert "The dev set of toy has only 32 of 40 examples" in caplog.text


@pytest.mark.parametrize(
    ("settings", "where"),
    [({"protocol": "kshot", "k": 60}, "data.k"), ({"dev_k": 60}, "data.dev_k")],
)
def test_k_that_does_not_fit(no_dev: FolderSource, settings: dict[str, Any], where: str) -> None:
    assert problem_of(lambda: split(no_dev, **settings)).where == where


def test_all_broken_sets_are_reported_together(tmp_path: Path) -> None:
    bad = contents() | {"more": rows("more", 7)}
    set_cell(bad, "train", 5, 2, "2")
    bad["dev"].insert(3, ("one cell",))
    bad["test"][0] = ("a", "c", "label")
    set_cell(bad, "more", 3, 2, "7")
    problems = problems_of(lambda: split(folder(tmp_path, **bad), extra=["more"]))
    assert [(p.where, p.given) for p in problems] == [
        (f"{tmp_path / 'train.tsv'}:6", "label '2'"),
        (f"{tmp_path / 'dev.tsv'}:4", "1 columns"),
        (f"{tmp_path / 'test.tsv'}", "no column b (it has: a, c, label)"),
        (f"{tmp_path / 'more.tsv'}:4", "label '7'"),
    ]


def test_limits(whole: FolderSource) -> None:
    settings: dict[str, Any] = {"protocol": "kshot", "k": 20}
    full = split(whole, **settings)
    limited = split(whole, **settings, limit_train=7, limit_test=3)
    assert limited == split(whole, **settings, limit_train=7, limit_test=3)
    assert limited.dev == full.dev
    for name, count in (("train", 7), ("test", 3)):
        some, every = getattr(limited, name), getattr(full, name)
        positions = [every.row_ids.index(row) for row in some.row_ids]
        assert some == every.select(positions)
        assert len(some) == count
        assert positions == sorted(positions) != list(range(count))  # not just the first ones
        assert f", {count} of {len(every)} sampled with seed 13" in limited.origin[name]


# Extra evaluation sets


def test_extra_eval_sets(tmp_path: Path) -> None:
    names, sets = ["more", "absent", "blind"], {"train", "dev", "test", "more", "blind"}
    blind = rows("blind", 5, labelled=False)
    source = folder(tmp_path, **contents(), more=rows("more", 7), blind=blind)
    splits, plain = split(source, extra=names), split(source)
    assert splits.test_sets == ["test", "more", "blind"]
    assert plain.test_sets == ["test"]
    assert {name for name, _ in splits.items()} == set(splits.origin) == sets
    check_rows(splits.extra["more"], list(range(7)), "more")
    assert splits.extra["blind"].labels == [-1] * 5
    assert splits.origin["blind"] == "official blind set"
    assert checksum(splits) == checksum(plain)
    limited = split(source, extra=names, limit_test=6)
    assert [len(part) for _, part in limited.items()] == [60, 12, 6, 6, 5]


class UnreachableExtraSet:
    """A source whose set `more` is on a hub that does not answer."""

    def __init__(self, folder: FolderSource) -> None:
        self.folder = folder

    def has(self, split: str) -> bool:
        return split == "more" or self.folder.has(split)

    def read(self, split: str) -> Table:
        if split == "more":
            raise HubError([Problem("data.path", "owner/more could not be loaded")])
        return self.folder.read(split)


def test_unreachable_extra_sets_are_skipped(
    whole: FolderSource, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        splits = split(UnreachableExtraSet(whole), extra=["more"])
    assert splits.test_sets == ["test"]
    assert "Skipping the extra evaluation set more: owner/more could not" in caplog.text


# The checksum


def checksum(splits: Splits) -> Any:
    return describe_splits(splits, TASK)["sha256"]


def test_the_checksum_is_of_the_data_alone(tmp_path: Path, whole: FolderSource) -> None:
    expected = checksum(split(whole))
    assert len(expected) == 64
    assert checksum(split(whole, dev_k=20, seed=7)) == expected  # nothing is sampled
    wider = {
        name: [(f"more {i}", *row[::-1]) for i, row in enumerate(content)]
        for name, content in contents().items()
    }
    other = folder(tmp_path / "other", ",", **wider)  # CSV, columns in another order, one more
    assert checksum(split(other)) == expected
    kshot = [checksum(split(whole, protocol="kshot", k=8, seed=seed)) for seed in (13, 21, 13)]
    assert kshot[0] == kshot[2] != kshot[1]


# Groups and strata


def examples(labels: Sequence[Any], groups: str | None = None) -> Examples:
    metadata = {} if groups is None else {"group": list(groups)}
    return Examples({"a": [""] * len(labels)}, list(labels), list(range(len(labels))), metadata)


CHOICE = dataclasses.replace(TASK, task_type="multiple_choice")
NARROW = dataclasses.replace(NUMBER, labels=("1", "3"))


@pytest.mark.parametrize(
    ("used", "part", "expected"),
    [
        (TASK, examples([1, 0, 1]), [1, 0, 1]),
        (TASK, examples([1, 0, 1], "abc"), [1, 0, 1]),
        (TASK, examples([1, 0, 1], "aba"), [0, 0]),  # each group has labels of its own
        (NUMBER, examples([0.0, 2.4, 2.5, 5.0]), [False, False, True, True]),
        (NARROW, examples([1.0, 1.9, 2.0]), [False, False, True]),
        (CHOICE, examples([1, 0, 0, 1, 1, 0], "aabbcc"), [(1, 0), (0, 1), (1, 0)]),
        (CHOICE, examples([1, 0, 0, 1, 1, 0], "ababcc"), [(1, 0), (0, 1), (1, 0)]),
        (CHOICE, examples([1, 0, 0, 1, 1], "aabbb"), [0, 0]),
    ],
)
def test_strata(used: Task, part: Examples, expected: list[Any]) -> None:
    assert strata(used, part) == expected


def grouped(path: Path, sizes: Sequence[int]) -> FolderSource:
    """MultiRC's questions, each with one right answer; those of train are interleaved."""
    for name, some in (("train", sizes), ("dev", sizes[:8])):
        lines = [
            {"paragraph": f"{name} {group}", "question": "?", "answer": str(at)}
            | {"idx": {"paragraph": 0, "question": group, "answer": at}}
            | {"label": int(at == group % size)}
            for group, size in enumerate(some)
            for at in range(size)
        ]
        lines.sort(key=lambda line: line["answer"])
        (path / f"{name}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return FolderSource(path, {})


def group_task(task_type: str) -> Task:
    return task(
        "{paragraph} {question} {answer} <mask>",
        labels=("0", "1"),
        task_type=task_type,
        row_expansion="multirc",
    )


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"protocol": "kshot", "k": 6}, 6),
        ({"protocol": "kshot", "k": 6, "sampling": "per_class"}, 6),
        ({"test": "dev"}, 25),
    ],
)
def test_groups_are_sampled_whole(tmp_path: Path, settings: dict[str, Any], count: int) -> None:
    sizes = [1 + i % 4 for i in range(30)]
    splits = split(
        grouped(tmp_path, sizes), group_task("classification"), dev_k=5, seed=42, **settings
    )
    train, dev = (Counter(part.metadata["group"]) for part in (splits.train, splits.dev))
    assert (len(train), len(dev)) == (count, 5)
    assert not {*train} & {*dev}
    assert train + dev == {group: sizes[int(group[2:])] for group in {*train, *dev}}
    assert len(splits.test.groups()) == 8


def test_multiple_choice_is_stratified_by_the_position_of_the_right_answer(tmp_path: Path) -> None:
    source = grouped(tmp_path, [2] * 30)
    settings: dict[str, Any] = {"protocol": "kshot", "k": 6, "sampling": "per_class"}
    train = split(source, group_task("multiple_choice"), dev_k=5, **settings).train
    positions = Counter(tuple(train.labels[i] for i in group) for group in train.groups())
    assert positions == {(1, 0): 6, (0, 1): 6}
