"""Metrics against other libraries and hand-computed values; predictions of all batches."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from lpt.config.metric_specs import METRIC_SPECS
from lpt.data.eval_output import EvalOutput
from lpt.data.examples import Examples
from lpt.training.metrics import METRICS, Predictions, compute_metrics, gather_predictions


def answers(
    predicted: Sequence[float],
    labels: Sequence[Any],
    classes: int = 2,
    index: Sequence[int] | None = None,
    **notes: list[str],
) -> EvalOutput:
    rows = list(range(len(labels))) if index is None else list(index)
    part = Examples({"text": [""] * len(rows)}, list(labels), rows, notes)
    return EvalOutput(torch.tensor(predicted), torch.tensor(labels), classes, part)


def value(name: str, given: EvalOutput) -> float:
    scores = compute_metrics(given, [name])
    assert list(scores) == [name]
    return scores[name]


def record(chosen: Sequence[str], gold: Sequence[Sequence[str]]) -> EvalOutput:
    """For each query one candidate that is chosen, and before it one that is not."""
    count = len(chosen)
    return answers(
        [0, 1] * count,
        [0, 0] * count,
        group=[str(i // 2) for i in range(2 * count)],
        answer=[text for entity in chosen for text in ("no one", entity)],
        gold=[json.dumps(of) for of in gold for _ in range(2)],
    )


# Labels: as scikit-learn has them.

LIBRARY: dict[str, Callable[..., Any]] = {
    "accuracy": accuracy_score,
    "f1": f1_score,
    "f1a": f1_score,
    "macro_f1": lambda y, p: f1_score(y, p, average="macro"),
    "matthews_correlation": matthews_corrcoef,
}


@pytest.mark.parametrize("name", LIBRARY)
@pytest.mark.parametrize(
    ("labels", "predicted"),
    [
        ([1, 1, 1, 0, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0]),
        ([0, 0, 1], [0, 0, 0]),
        ([0, 0, 1], [1, 1, 1]),
        ([1, 1, 0], [0, 0, 0]),
        ([2, 1, 0], [1, 1, 1]),
        ([2, 1, 0, 0, 2, 1, 1], [2, 0, 0, 0, 1, 1, 1]),
        ([0, 0, 1], [0, 1, 1]),
    ],
)
def test_labels_as_scikit_learn(name: str, labels: list[int], predicted: list[int]) -> None:
    """Also where one label is predicted for all, and of three labels where one never occurs."""
    classes = 3
    if METRIC_SPECS[name].two_labels or name == "f1a":
        labels, predicted = ([min(i, 1) for i in row] for row in (labels, predicted))
        classes = 2
    found = value(name, answers(predicted, labels, classes))
    assert found == pytest.approx(LIBRARY[name](labels, predicted), abs=1e-6)


@pytest.mark.parametrize("name", LIBRARY)
def test_labels_of_a_large_set_are_exact(name: str) -> None:
    random_ = random.Random(3)
    labels, predicted = (random_.choices([0, 1], [1, 30], k=50_001) for _ in range(2))
    found = value(name, answers(predicted, labels))
    assert found == pytest.approx(LIBRARY[name](labels, predicted), abs=1e-6)


def test_f1_of_either_label_by_hand() -> None:
    """4 spam and 16 ham, none of which is taken for spam."""
    labels, all_ham = [0] * 4 + [1] * 16, [1] * 20
    assert value("f1", answers(all_ham, labels)._replace(positive_label=0)) == 0
    assert value("f1", answers(all_ham, labels)) == pytest.approx(2 * 16 / (2 * 16 + 4), abs=1e-6)
    assert value("f1", answers(labels, labels)._replace(positive_label=0)) == 1
    one = answers([0, 1, 1, 0], [0, 0, 1, 1])._replace(positive_label=0)
    assert value("f1a", one) == 2 * 1 / (2 * 1 + 1 + 1)


def test_several_metrics_come_in_their_order() -> None:
    scores = compute_metrics(answers([1, 1, 0], [1, 0, 0]), ["f1", "accuracy"])
    assert list(scores.items()) == [("f1", 0.666667), ("accuracy", 0.666667)]


# Numbers: as scipy has them.

NUMBERS: dict[str, Callable[..., Any]] = {"pearson": pearsonr, "spearman": spearmanr}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    ("labels", "predicted"),
    [
        ([1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 1.0, 4.0, 3.0, 5.0]),
        ([0.0, 2.5, 2.5, 5.0, 1.0], [1.0, 2.0, 3.5, 3.5, 0.0]),  # ties
        ([0.0, 1.0, 2.0, 3.0], [2.5, 2.5001, 2.5002, 2.5003]),  # of a barely trained model
        ([1e-9, 2e-9, 3e-9, 4e-9], [3e-9, 1e-9, 2e-9, 4e-9]),
        ([1e6 + 0.25, 1e6 + 0.251, 1e6 + 0.252], [1e6 + 0.5, 1e6 + 0.502, 1e6 + 0.501]),
        ([-1.0, 1.0], [0.0, 0.5]),
    ],
)
def test_numbers_as_scipy(name: str, labels: list[float], predicted: list[float]) -> None:
    expected = NUMBERS[name](predicted, labels).statistic
    given = answers(predicted, labels)._replace(
        predicted=torch.tensor(predicted, dtype=torch.float64),
        labels=torch.tensor(labels, dtype=torch.float64),
    )
    # torchmetrics adds an epsilon to the deviations of ranks, which shows in tiny sets.
    assert value(name, given) == pytest.approx(expected, abs=1e-5)


def test_spearman_by_hand() -> None:
    """1 - 6 Σd² / n(n² - 1), where no two numbers are equal."""
    labels, predicted = [1.0, 2.0, 3.0, 4.0, 5.0], [0.1, 0.3, 0.2, 0.5, 0.4]
    squares = 0 + 1 + 1 + 1 + 1
    expected = 1 - 6 * squares / (5 * 24)
    assert value("spearman", answers(predicted, labels)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["pearson", "spearman", "matthews_correlation"])
@pytest.mark.parametrize(
    ("predicted", "labels"), [([1, 1, 1], [0, 1, 1]), ([0, 1, 1], [1, 1, 1]), ([1], [1])]
)
def test_correlation_is_0_where_one_side_is_constant(
    name: str, predicted: list[int], labels: list[int]
) -> None:
    assert value(name, answers(predicted, labels)) == 0.0


# Groups and pairs: by hand.


@pytest.mark.parametrize(
    ("groups", "predicted", "labels", "expected"),
    [
        ("aaabbbb", [0, 1, 0, 0, 0, 0, 1], [1, 0, 0, 0, 1, 0, 0], 0),  # 3 of 7 candidates agree
        ("aaabbbb", [0, 1, 0, 0, 0, 0, 1], [0, 1, 0, 0, 1, 0, 0], 1 / 2),
        ("aaab", [0, 0, 1, 1], [0, 1, 1, 1], 1),  # two right answers
        ("aabb", [0, 1, 0, 1], [0, 1, 1, 0], 1 / 2),
    ],
)
def test_accuracy_of_a_multiple_choice_is_that_of_its_groups(
    groups: str, predicted: list[int], labels: list[int], expected: float
) -> None:
    given = answers(predicted, labels, group=[*groups])
    assert value("accuracy", given._replace(multiple_choice=True)) == expected
    judged = sum(p == y for p, y in zip(predicted, labels, strict=True)) / len(labels)
    assert value("accuracy", given) == pytest.approx(judged, abs=1e-6)


@pytest.mark.parametrize(
    ("groups", "predicted", "expected"),
    [
        ([*"abab"], [1, 0, 1, 0], 1 / 2),  # rows of a group lie apart
        ([*"aabb"], [1, 0, 1, 0], 0),
    ],
)
def test_exact_match_is_of_whole_groups(
    groups: list[str], predicted: list[int], expected: float
) -> None:
    given = answers(predicted, [1, 1, 1, 1], group=groups)
    assert value("exact_match", given) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("chosen", "gold", "f1", "exact"),
    [
        ("The Kims", ["Kims"], 1, 1),
        ("Theresa", ["Resa"], 0, 0),  # articles are whole words
        ("U.S.", ["US"], 1, 1),
        ("New\t York ", ["Kim", "new york"], 1, 1),
        ("Kim Lee", ["Lee", "Kim", "Kim Lee Park"], 4 / 5, 0),
        ("York York", ["York"], 2 / 3, 0),  # words count as often as they occur
        ("Kim", ["Lee"], 0, 0),
    ],
)
def test_record(chosen: str, gold: list[str], f1: float, exact: float) -> None:
    given = record([chosen], [gold])
    assert value("record_f1", given) == pytest.approx(f1, abs=1e-6)
    assert value("record_em", given) == exact


@pytest.mark.parametrize(
    ("index", "predicted", "expected"),
    [
        ([3, 0, 2, 1], [0, 0, 1, 0], 1 / 2),  # 0 and 1 alike, 2 and 3 not: in any order
        ([1, 2], [1, 1], 0),  # no pair, though neighbors
        ([0, 1, 3, 4, 6, 7, 9], [1, 1, 0, 1, 0, 0, 1], 1),  # rows 3, 4 and 9 lack the other one
    ],
)
def test_gender_parity(index: list[int], predicted: list[int], expected: float) -> None:
    given = answers(predicted, [0] * len(index), index=index)
    assert value("gender_parity", given) == expected


def test_every_metric_is_specified_and_tested() -> None:
    by_hand = {"exact_match", "record_f1", "record_em", "gender_parity"}
    assert set(METRICS) == set(METRIC_SPECS) == {*LIBRARY, *NUMBERS, *by_hand}


# Predictions of all batches


def scores_of(rows: list[int]) -> torch.Tensor:
    index = torch.tensor(rows)
    return torch.stack([index + 0.5, -index], dim=1)


@pytest.mark.parametrize(
    "batches",
    [
        [[4], [3, 1, 0, 2]],
        [[3, 1], [4, 0], [2, 3]],  # row 3 twice, as when ranks repeat a batch
    ],
)
def test_predictions_are_in_row_order_and_count_each_row_once(batches: list[list[int]]) -> None:
    found = gather_predictions([Predictions(torch.tensor(b), scores_of(b)) for b in batches])
    assert found.row_ids.tolist() == [0, 1, 2, 3, 4]
    assert found.scores.tolist() == scores_of([0, 1, 2, 3, 4]).tolist()


def test_scores_are_in_float32() -> None:
    scores = torch.tensor([[0.0, 1.0, 2.0]], dtype=torch.bfloat16)
    found = gather_predictions([Predictions(torch.tensor([1]), scores)])
    assert (found.row_ids.tolist(), found.scores.tolist()) == ([1], [[0.0, 1.0, 2.0]])
    assert found.scores.dtype == torch.float32
