"""Metrics against hand-computed values and other libraries; the prediction store."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from lpt.config.metric_specs import METRIC_SPECS, TWO_LABELS
from lpt.data.candidates import GROUP
from lpt.data.eval_output import EvalOutput
from lpt.data.examples import Examples
from lpt.training.metrics import METRICS, PredictionStore, compute_metrics

# 3 true positives, 1 false positive, 2 false negatives, 2 true negatives.
PREDICTED = [1, 1, 1, 1, 0, 0, 0, 0]
LABELS = [1, 1, 1, 0, 1, 1, 0, 0]
GROUPS = [*"aabbccdd"]  # b and c have a wrong answer each
NUMBERS = [1.0, 2.0, 3.0, 4.0, 5.0]
ENTITIES = ["the U.S.", "Kim", "Paris", "New  York City"]


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


BINARY = answers(PREDICTED, LABELS, **{GROUP: GROUPS})
SHIFTED = answers([2.0, 1.0, 4.0, 3.0, 5.0], NUMBERS)
RECORD = record(ENTITIES, [["us"], ["Lee", "Kim Lee"], ["London"], ["york city", "new york"]])
PAIRS = answers([1, 1, 0, 1, 0, 0, 1], [0] * 7, index=[0, 1, 3, 4, 6, 7, 9])
BY_HAND: dict[str, tuple[EvalOutput, float]] = {
    "accuracy": (BINARY, 5 / 8),
    "f1": (BINARY, 2 * 3 / (2 * 3 + 1 + 2)),
    "macro_f1": (BINARY, (6 / 9 + 4 / 7) / 2),
    "matthews_correlation": (BINARY, (3 * 2 - 1 * 2) / math.sqrt(4 * 5 * 3 * 4)),
    "pearson": (SHIFTED, 0.8),  # sums of products 8, of squares 10 and 10
    "spearman": (SHIFTED, 1 - 6 * 4 / (5 * 24)),
    "f1a": (BINARY, 2 * 3 / (2 * 3 + 1 + 2)),
    "exact_match": (BINARY, 2 / 4),
    # 1; precision 1 of recall 1/2: 2/3; 0; the better of 4/5 and 4/5.
    "record_f1": (RECORD, (1 + 2 / 3 + 0 + 4 / 5) / 4),
    "record_em": (RECORD, 1 / 4),
    # Rows 0 and 1, 6 and 7: both alike. Row 3 lacks row 2, 4 lacks 5, 9 lacks 8.
    "gender_parity": (PAIRS, 1.0),
}


def test_every_metric_is_specified_and_computed_by_hand() -> None:
    assert set(METRICS) == set(METRIC_SPECS) == set(BY_HAND)


@pytest.mark.parametrize("name", METRICS)
def test_by_hand(name: str) -> None:
    given, expected = BY_HAND[name]
    assert value(name, given) == pytest.approx(expected, abs=1e-6)


def test_several_metrics_come_in_their_order() -> None:
    assert compute_metrics(BINARY, ["f1", "accuracy"]) == {
        "f1": pytest.approx(2 / 3),
        "accuracy": 0.625,
    }


LIBRARY: dict[str, Callable[..., Any]] = {
    "accuracy": accuracy_score,
    "f1": f1_score,
    "macro_f1": lambda y, p: f1_score(y, p, average="macro"),
    "matthews_correlation": matthews_corrcoef,
    "f1a": f1_score,
}


@pytest.mark.parametrize("name", LIBRARY)
@pytest.mark.parametrize(
    ("labels", "predicted"),
    [
        ([0, 0, 1], [0, 0, 0]),
        ([0, 0, 1], [1, 1, 1]),
        ([1, 1, 0], [0, 0, 0]),
        ([2, 1, 0], [1, 1, 1]),
        ([2, 1, 0, 0, 2, 1, 1], [2, 0, 0, 0, 1, 1, 1]),
    ],
)
def test_labels_as_scikit_learn(name: str, labels: list[int], predicted: list[int]) -> None:
    """Also where one label is predicted for all."""
    if METRIC_SPECS[name].needs == TWO_LABELS or name == "f1a":
        labels, predicted = ([min(i, 1) for i in row] for row in (labels, predicted))
    found = value(name, answers(predicted, labels, max(labels) + 1))
    assert found == pytest.approx(LIBRARY[name](labels, predicted), abs=1e-6)


def test_macro_f1_leaves_out_labels_that_never_occur() -> None:
    """As scikit-learn: two of three labels occur."""
    assert value("macro_f1", answers([0, 1, 1], [0, 1, 0], 3)) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("name", "library"), [("pearson", pearsonr), ("spearman", spearmanr)])
def test_numbers_with_ties_as_scipy(name: str, library: Callable[..., Any]) -> None:
    labels, predicted = [0.0, 2.5, 2.5, 5.0, 1.0], [1.0, 2.0, 3.5, 3.5, 0.0]
    expected = library(predicted, labels).statistic
    assert value(name, answers(predicted, labels)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["pearson", "spearman", "matthews_correlation"])
@pytest.mark.parametrize(
    ("predicted", "labels"), [([1, 1, 1], [0, 1, 1]), ([0, 1, 1], [1, 1, 1]), ([1], [1])]
)
def test_correlation_is_0_where_one_side_is_constant(
    name: str, predicted: list[int], labels: list[int]
) -> None:
    assert value(name, answers(predicted, labels)) == 0.0


def test_close_numbers_correlate() -> None:
    """The predictions of a barely trained model differ little."""
    given = answers([2.5, 2.5001, 2.5002, 2.5003], [0.0, 1.0, 2.0, 3.0])
    assert value("pearson", given) == pytest.approx(1.0, abs=1e-4)


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
        ([1, 2], [1, 1], 0),  # no pair, though neighbours
    ],
)
def test_gender_parity(index: list[int], predicted: list[int], expected: float) -> None:
    given = answers(predicted, [0] * len(index), index=index)
    assert value("gender_parity", given) == expected


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
def test_store_gives_row_order_and_counts_each_row_once(batches: list[list[int]]) -> None:
    store = PredictionStore()
    for rows in batches:
        store.update(torch.tensor(rows), scores_of(rows))
    predictions = store.gather()
    assert predictions.row_ids.tolist() == [0, 1, 2, 3, 4]
    assert predictions.scores.tolist() == scores_of([0, 1, 2, 3, 4]).tolist()
    assert predictions.scores.dtype == torch.float32


def test_store_is_empty_after_it_was_read() -> None:
    store = PredictionStore()
    store.update(torch.tensor([5, 2]), scores_of([5, 2]))
    assert store.gather().row_ids.tolist() == [2, 5]
    store.update(torch.tensor([1]), torch.tensor([[0.0, 1.0, 2.0]], dtype=torch.bfloat16))
    single = store.gather()
    assert (single.row_ids.tolist(), single.scores.tolist()) == ([1], [[0.0, 1.0, 2.0]])
