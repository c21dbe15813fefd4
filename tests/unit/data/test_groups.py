"""Examples in groups: the candidates of a question stay together, and compete or are judged."""

from __future__ import annotations

from lpt.data.examples import UNKNOWN, Examples
from tests.support.task_tables import examples_of, jsonl, official, refused

COPA = {"premise": "It fell.", "choice1": "A.", "choice2": "B.", "question": "cause"}


def test_groups_stay_together() -> None:
    used = official("copa")
    rows = [COPA | {"label": n % 2, "idx": 10 + n} for n in range(5)]
    examples = examples_of(jsonl(*rows), used)
    assert examples.labels == [1, 0, 0, 1] * 2 + [1, 0]
    assert examples.groups() == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert examples.metadata["group"] == [str(10 + n // 2) for n in range(10)]
    some = examples.subsample(2, 13)
    assert [at // 2 for at in some.row_ids[::2]] == [at // 2 for at in some.row_ids[1::2]]
    assert some.metadata["group"] == [str(10 + at // 2) for at in some.row_ids]
    assert some.columns["choice"] == ["a", "b"] * 2
    unlabelled = jsonl(COPA, COPA)
    assert examples_of(unlabelled, used, need_labels=False).labels == [UNKNOWN] * 4
    assert [p.where for p in refused(unlabelled, used)] == ["train.jsonl:1", "train.jsonl:2"]
    problem, _ = refused(jsonl(rows[0], rows[0]), used)
    assert (problem.where, problem.given) == ("train.jsonl:2", "id '10/0', as in train.jsonl:1")


def test_groups_need_a_right_answer_where_candidates_compete() -> None:
    used = official("record")
    row = {"passage": "Ann met Bob", "entities": ["Ann", "Bob"], "query": "@placeholder left"}
    good = row | {"answers": ["Ann", "Bob"], "idx": {"query": 1}}
    bad = row | {"answers": ["Carl"], "idx": {"query": 2}}
    [problem] = refused(jsonl(good, bad), used, need_labels=False)
    assert problem.where == "train.jsonl:2"
    assert problem.given.startswith("no right answer among ")
    assert examples_of(jsonl(good), used).labeled_positions() == [0, 1]


def test_groups_that_are_judged_answer_by_answer_need_no_right_one() -> None:
    rows = [
        {"paragraph": "P", "question": "Q", "answer": "a", "label": 0}
        | {"idx": {"paragraph": 0, "question": 0, "answer": n}}
        for n in range(2)
    ]
    assert examples_of(jsonl(*rows), official("multirc")).labels == [0, 0]


def test_groups_are_scored_if_they_are_labeled_throughout() -> None:
    labels, groups = [0, 1, UNKNOWN, 1, 1, UNKNOWN], [*"abacbc"]
    part = Examples({}, labels, list(range(6)), {"group": groups})
    assert part.labeled_positions() == [1, 4]
    assert Examples({}, labels, list(range(6))).labeled_positions() == [0, 1, 3, 4]
