"""Rows that belong together: ids, groups, candidates."""

from __future__ import annotations

from typing import Any

import pytest

from lpt.data.build import build_task
from tests.support.task_tables import jsonl, refused, table, task
from tests.unit.config.test_config import configured


@pytest.mark.parametrize("name", ["idx", "index", "id"])
def test_official_ids(name: str) -> None:
    used = build_task(configured("task=sst2"), "masked")
    rows = table(["0", "1"], text=["a", "b"], **{name: ["7", "9"]})
    assert used.examples(rows, need_labels=True).notes == {"id": ["7", "9"]}


def test_the_first_column_of_ids_counts() -> None:
    rows = table(["neg", "pos"], text=["a", "b"], id=["1", "1"], idx=["7", "9"])
    used = task(id_columns=("idx", "index", "id"))
    assert used.examples(rows, need_labels=True).notes == {"id": ["7", "9"]}


def test_ids_that_occur_twice() -> None:
    rows = table(["0", "1", "0", "1"], text=list("abcd"), index=["7", "8", "9", "8"])
    used = build_task(configured("task=sst2"), "masked")
    [problem] = refused(rows, used).problems
    assert (problem.where, problem.given) == ("train.tsv:8", "id '8', as in train.tsv:4")
    assert "'index'" in problem.allowed
    assert "task.id_columns=[]" in problem.hint
    without = build_task(configured("task=sst2", "task.id_columns=[]"), "masked")
    examples = without.examples(rows, need_labels=True)
    assert (examples.labels, examples.notes) == ([0, 1, 0, 1], {})


COPA = {"premise": "It fell.", "choice1": "A.", "choice2": "B.", "question": "cause"}


def test_groups_keep_together() -> None:
    used = build_task(configured("task=copa"), "masked")
    rows = [COPA | {"label": n % 2, "idx": 10 + n} for n in range(5)]
    examples = used.examples(jsonl("train.jsonl", *rows), need_labels=True)
    assert examples.labels == [1, 0, 0, 1] * 2 + [1, 0]
    assert examples.units() == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert examples.notes["group"] == [str(10 + n // 2) for n in range(10)]
    some = examples.limited(2, 13)
    assert len(some) == 4
    assert [at // 2 for at in some.row_ids[::2]] == [at // 2 for at in some.row_ids[1::2]]
    assert some.notes["group"] == [str(10 + at // 2) for at in some.row_ids]
    assert some.columns["choice"] == ["a", "b"] * 2


def test_groups_whose_rows_lie_apart() -> None:
    used = build_task(configured("task=multirc"), "masked")
    base = {"paragraph": "P", "answer": "a", "label": 0}
    rows = [
        base | {"question": str(q), "idx": {"paragraph": 0, "question": q, "answer": n}}
        for n, q in enumerate([0, 1, 0, 1, 1])
    ]
    examples = used.examples(jsonl("train.jsonl", *rows), need_labels=True)
    assert examples.units() == [[0, 2], [1, 3, 4]]


def test_group_twice_is_refused() -> None:
    used = build_task(configured("task=copa"), "masked")
    rows = [COPA | {"label": 0, "idx": 4}, COPA | {"label": 0, "idx": 4}]
    problems = refused(jsonl("train.jsonl", *rows), used).problems
    assert {p.where for p in problems} == {"train.jsonl:2"}
    assert problems[0].given == "id '4/0', as in train.jsonl:1"


RECORD = {"passage": "Ann met Bob", "entities": ["Ann", "Bob"], "query": "@placeholder left"}


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        (
            "record",
            RECORD | {"answers": ["Ann", "Bob"], "idx": {"query": 1}},
            RECORD | {"answers": ["Carl"], "idx": {"query": 2}},
        ),
    ],
)
def test_groups_without_a_right_answer(
    name: str, good: dict[str, Any], bad: dict[str, Any]
) -> None:
    used = build_task(configured(f"task={name}"), "masked")
    rows = jsonl("train.jsonl", good, bad)
    for need in (True, False):
        [problem] = refused(rows, used, need_labels=need).problems
        assert problem.where == "train.jsonl:2"
        assert problem.given.startswith("no right answer among ")
    assert used.examples(jsonl("train.jsonl", good), need_labels=True).labelled


def test_questions_may_have_no_right_answer_where_each_is_judged_alone() -> None:
    used = build_task(configured("task=multirc"), "masked")
    idx = {"paragraph": 0, "question": 0, "answer": 0}
    row = {"paragraph": "P", "question": "Q", "answer": "a", "label": 0, "idx": idx}
    assert used.examples(jsonl("train.jsonl", row), need_labels=True).labels == [0]


def test_groups_without_labels_are_for_tests() -> None:
    used = build_task(configured("task=copa"), "masked")
    rows = jsonl("test.jsonl", COPA | {"idx": 0}, COPA | {"idx": 1})
    assert used.examples(rows, need_labels=False).labels == [-1] * 4
    problems = refused(rows, used).problems
    assert [(p.where, p.given) for p in problems] == [
        (f"test.jsonl:{n}", "no label") for n in (1, 2)
    ]


def test_bad_rows_of_candidates_have_their_line() -> None:
    used = build_task(configured("task=copa"), "masked")
    rows = jsonl("train.jsonl", COPA | {"label": 0}, COPA | {"label": 0, "question": "why"})
    [problem] = refused(rows, used).problems
    assert problem.where == "train.jsonl:2"
