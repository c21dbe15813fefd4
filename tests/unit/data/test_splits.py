"""Which rows train, select and test, by protocol; their checksum; groups and strata."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lpt.data.examples import Examples
from lpt.data.fewshot import SAMPLERS, FewShotSplit, hold_out, sample_per_class, sample_total
from lpt.data.sources import FolderSource
from lpt.data.split_file import describe_splits
from lpt.data.splits import Splits, strata
from lpt.data.tables import Table
from lpt.data.tasks import Task, build_task
from lpt.errors import HubError, Problem
from tests.support.configs import configured
from tests.support.problems import problem_of, problems_of
from tests.support.split_sets import NUMBER, TASK, contents, folder, rows, set_cell, split
from tests.support.task_rows import ROWS, write_jsonl
from tests.support.task_tables import changed

LABELS = [int(i % 3 == 0) for i in range(60)]
SETS = contents() | {"test": rows("test", 9, labelled=False)}
KSHOT: dict[str, Any] = {"protocol": "kshot", "k": 8, "dev_k": 9, "seed": 42}
PER_CLASS = KSHOT | {"sampling": "per_class"}


@pytest.fixture
def whole(tmp_path: Path) -> FolderSource:
    return folder(tmp_path)


def without(path: Path, missing: str | None) -> FolderSource:
    return folder(path, **{name: content for name, content in SETS.items() if name != missing})


def check_rows(examples: Examples, row_ids: Sequence[int], name: str = "train") -> None:
    assert examples.row_ids == [*row_ids]
    assert examples.columns["a"] == [f"{name} {i}" for i in row_ids]
    expected = [-1 if name == "test" else int(i % 3 == 0) for i in row_ids]
    assert examples.labels == expected


TOTAL = sample_total(LABELS, 8, 9, 42)
# Settings, the set that there is not, what is sampled, the official set that is tested on.
PROTOCOLS: dict[str, tuple[dict[str, Any], str | None, FewShotSplit | None, str]] = {
    "full": ({}, None, None, "test"),
    "full, fixed test": ({"fixed_test": True, "test": "dev"}, None, None, "test"),
    "full, test=dev": ({"test": "dev"}, None, hold_out(LABELS, 10, 13), "dev"),
    "full, no test": ({"test": "dev"}, "test", hold_out(LABELS, 10, 13), "dev"),
    "full, no dev": ({"dev_k": None}, "dev", hold_out(LABELS, 12, 13), "test"),  # a fifth of train
    "kshot": (KSHOT, None, TOTAL, "dev"),
    "kshot, per class": (PER_CLASS, None, sample_per_class(LABELS, 8, 9, 42), "dev"),
    "kshot, fixed test": (KSHOT | {"fixed_test": True}, None, TOTAL, "test"),
    "kshot, no dev": (KSHOT, "dev", TOTAL, "test"),
    "kshot, no test": (KSHOT, "test", TOTAL, "dev"),
}


@pytest.mark.parametrize("case", PROTOCOLS)
def test_protocols(tmp_path: Path, case: str) -> None:
    settings, missing, sample, tested = PROTOCOLS[case]
    splits = split(without(tmp_path, missing), **settings)
    check_rows(splits.sets["test"], range(12 if tested == "dev" else 9), tested)
    assert splits.origin["test"] == f"official {tested} set"
    if sample is None:
        check_rows(splits.sets["train"], range(60))
        check_rows(splits.sets["dev"], range(12), "dev")
        return
    check_rows(splits.sets["train"], sample.train)
    check_rows(splits.sets["dev"], sample.dev)
    if case.startswith("kshot"):
        how = "per_class" if "per class" in case else "total"
        assert splits.origin["train"] == f"sampled from train ({how}, k=8, seed 42)"
    else:
        assert splits.origin["train"] == "official train set without held-out rows"
        assert splits.origin["dev"] == f"held out of train (dev_k={len(sample.dev)}, seed 13)"


@pytest.mark.parametrize(
    ("settings", "missing", "where", "given"),
    [
        ({}, "test", "data.test", "official, and there is no test file"),
        ({"protocol": "kshot", "k": 60}, None, "data.k", "60 (total) uses all 60 examples"),
    ],
)
def test_settings_that_do_not_fit(
    tmp_path: Path, settings: dict[str, Any], missing: str | None, where: str, given: str
) -> None:
    problem = problem_of(lambda: split(without(tmp_path, missing), **settings))
    assert problem.where == where
    assert problem.given.startswith(given)
    assert problem.expected


def test_without_a_dev_set_a_few_rows_do_not_do(tmp_path: Path) -> None:
    source = folder(tmp_path / "data", train=rows("train", 4), test=rows("test", 4))
    problem = problem_of(lambda: split(source, dev_k=None))
    assert (problem.where, problem.expected) == ("data.dev_k", "a dev file, or data.dev_k=N")


@pytest.mark.parametrize(
    ("listed", "settings", "cumulative"),
    [
        ([], KSHOT, False),
        (["total"], KSHOT, True),
        (["total"], KSHOT | {"seed_order": "single"}, False),
        (["total"], PER_CLASS, False),
        (["total", "per_class"], PER_CLASS, True),
    ],
)
def test_published_rows(
    tmp_path: Path, listed: list[str], settings: dict[str, Any], cumulative: bool
) -> None:
    used = changed(TASK, cumulative_sampling=listed)
    found = split(folder(tmp_path / "data"), used, **settings)
    sampler = SAMPLERS[settings.get("sampling", "total")]
    expected = sampler(LABELS, 8, 9, 42, cumulative=cumulative)
    assert found.sets["train"].row_ids == expected.train
    assert found.sets["dev"].row_ids == expected.dev


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        *((n, ["total"]) for n in ("mr", "subj", "trec", "mpqa", "cr")),
        *(("cola", ["total", "per_class"]), ("sst2", []), ("reviews", [])),
    ],
)
def test_tasks_whose_scripts_shuffle_cumulatively(name: str, listed: list[str]) -> None:
    assert configured(f"task={name}").task.cumulative_sampling == listed


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
    full, limited, again = (
        split(whole, **KSHOT | {"k": 20} | limits)
        for limits in ({}, *[{"limit_train": 7, "limit_test": 3}] * 2)
    )
    assert limited == again
    assert limited.sets["dev"] == full.sets["dev"]
    for name, count in (("train", 7), ("test", 3)):
        some, every = limited.sets[name], full.sets[name]
        positions = [every.row_ids.index(row) for row in some.row_ids]
        assert some == every.select(positions)
        assert len(some) == count
        assert positions == sorted(positions) != list(range(count))  # not just the first ones
        assert f", {count} of {len(every)} sampled with seed 42" in limited.origin[name]


def test_extra_eval_sets(tmp_path: Path) -> None:
    names = ["more", "absent", "blind"]
    blind = rows("blind", 5, labelled=False)
    source = folder(tmp_path, **SETS, more=rows("more", 7), blind=blind)
    splits, plain = split(source, extra=names), split(source)
    assert (splits.test_sets, plain.test_sets) == (["test", "more", "blind"], ["test"])
    assert set(splits.origin) == {"train", "dev", "test", "more", "blind"}
    check_rows(splits.sets["more"], range(7), "more")
    assert splits.sets["blind"].labels == [-1] * 5
    assert splits.origin["blind"] == "official blind set"
    assert checksum(splits) == checksum(plain)
    limited = split(source, extra=names, limit_test=6)
    assert [len(part) for _, part in limited.sets.items()] == [60, 12, 6, 6, 5]


class UnreachableExtraSet(FolderSource):
    """Its set `more` is on a hub that does not answer."""

    def has(self, split: str) -> bool:
        return split == "more" or super().has(split)

    def read(self, split: str) -> Table:
        if split == "more":
            raise HubError([Problem("data.path", "owner/more could not be loaded")])
        return super().read(split)


def test_unreachable_extra_sets_are_skipped(
    whole: FolderSource, caplog: pytest.LogCaptureFixture
) -> None:
    splits = split(UnreachableExtraSet(whole.path, {}), extra=["more"])
    assert splits.test_sets == ["test"]
    assert "Skipping the extra evaluation set more: owner/more could not" in caplog.text


def checksum(splits: Splits) -> Any:
    return describe_splits(splits, TASK).sha256


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


def examples(labels: Sequence[Any], groups: str | None = None) -> Examples:
    metadata = {} if groups is None else {"group": list(groups)}
    return Examples({"a": [""] * len(labels)}, list(labels), list(range(len(labels))), metadata)


CHOICE = changed(TASK, task_type="multiple_choice")
NARROW = changed(NUMBER, labels=["1", "3"])


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


def grouped(path: Path, name: str) -> tuple[FolderSource, Task]:
    """Thirty groups to train on, eight to test on: COPA's have two candidates, MultiRC's 2 or 3."""
    per_row = {"copa": 1, "multirc": 2}[name]
    for part, groups in (("train", 30), ("dev", 8)):
        write_jsonl(path / f"{part}.jsonl", ROWS[name](groups // per_row))
    return FolderSource(path, {}), build_task(configured(f"task={name}"), "masked")


@pytest.mark.parametrize(
    ("settings", "count"), [(KSHOT, 8), (PER_CLASS, 8), ({"test": "dev", "dev_k": 9}, 21)]
)
def test_groups_are_sampled_whole(tmp_path: Path, settings: dict[str, Any], count: int) -> None:
    splits = split(*grouped(tmp_path, "multirc"), **settings)
    train, dev = (Counter(splits.sets[name].metadata["group"]) for name in ("train", "dev"))
    assert (len(train), len(dev)) == (count, 9)
    assert not {*train} & {*dev}
    sizes = {group: 2 + int(group.partition("/")[2]) % 2 for group in {*train, *dev}}
    assert train + dev == sizes
    assert len(splits.sets["test"].groups()) == 8


def test_multiple_choice_is_stratified_by_the_position_of_the_right_answer(tmp_path: Path) -> None:
    train = split(*grouped(tmp_path, "copa"), **PER_CLASS).sets["train"]
    positions = Counter(tuple(train.labels[i] for i in group) for group in train.groups())
    assert positions == {(1, 0): 8, (0, 1): 8}
