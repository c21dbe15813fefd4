"""From label scores to predictions, and from predictions to the metrics of each set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from lpt.data.examples import Examples
from lpt.training.evaluation import Evaluator, decide
from lpt.training.metrics import Predictions
from tests.support.task_tables import task


def evaluator(
    sets: dict[str, Examples], task_type: str = "classification", **changes: Any
) -> Evaluator:
    """Of a task with two labels and accuracy as metric, or as changed."""
    toy = task(**{"task_type": task_type, "labels": ["0", "1"]} | changes)
    return Evaluator(toy, sets)


def examples(
    labels: Sequence[Any], index: Sequence[int] | None = None, **notes: Sequence[str]
) -> Examples:
    rows = list(range(len(labels)) if index is None else index)
    columns = {"text": [f"row {row}" for row in rows]}
    return Examples(columns, list(labels), rows, {k: list(v) for k, v in notes.items()})


def leads(*values: float) -> torch.Tensor:
    """Scores of two labels with these margins of the second over the first."""
    return torch.tensor([[i, i + value] for i, value in enumerate(values)])


def predictions(scores: torch.Tensor, index: Sequence[int] | None = None) -> Predictions:
    return Predictions(torch.tensor(range(len(scores)) if index is None else index), scores)


def test_the_best_label() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.3], [3.0, -1.0, 2.0], [-5.0, -4.0, -3.0]])
    assert decide("classification", scores).tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    ("groups", "values", "expected"),
    [
        ("aabb", (1, 2, -3, -2), [0, 1, 0, 1]),  # in b neither margin is positive
        ("abab", (1, 5, 2, 4), [0, 1, 1, 0]),  # groups may be interleaved
        ("aaab", (3, 7, 5, -9), [0, 1, 0, 1]),  # and of any size
        ("aaa", (2, 2, 2), [1, 0, 0]),  # the first of equals
    ],
)
def test_the_candidate_that_leads_in_its_group(
    groups: str, values: tuple[float, ...], expected: list[int]
) -> None:
    part = examples([0] * len(groups), group=groups)
    chosen = decide("multiple_choice", leads(*values), groups=part.groups)
    assert chosen.tolist() == expected
    assert chosen.dtype == torch.long


@pytest.mark.parametrize("scale", [(0.0, 5.0), (-2.0, 2.0)])
def test_a_number_is_a_share_of_the_range(scale: tuple[float, float]) -> None:
    numbers = decide("regression", leads(0.0, math.log(3), -100.0, 100.0), scale)
    low, high = scale
    shares = [1 / 2, 3 / 4, 0, 1]
    assert numbers.tolist() == pytest.approx([low + (high - low) * share for share in shares])


SETS = {
    "train": examples([1, 1, 0], [5, 3, 4]),
    "dev": examples([0, 0, 0, 1]),
    "test": examples([1, 0, 1], [7, 2, 4]),
    "more": examples([-1, -1]),
    "some": examples([1, -1, 0, -1, 1], [9, 4, 2, 3, 8]),
}


def test_predictions_are_in_row_order() -> None:
    """Predictions come in row order; a sampled set has its own."""
    toy = evaluator(SETS)
    given = toy.predict("test", predictions(leads(-1.0, 1.0, 2.0), [2, 4, 7]))
    assert given.examples.row_ids == [2, 4, 7]
    assert given.examples.columns == {"text": ["row 2", "row 4", "row 7"]}
    assert given.predicted.tolist() == [0, 1, 1]
    assert given.labels.tolist() == [0, 1, 1]
    assert given.num_labels == 2
    assert toy.metrics("test", given) == {"accuracy": 1.0}


def test_a_set_without_labels_is_predicted_but_not_scored() -> None:
    toy = evaluator(SETS)
    given = toy.predict("more", predictions(leads(1.0, 2.0)))
    assert given.predicted.tolist() == [1, 1]
    assert toy.metrics("more", given) is None
    assert toy.majority("more") is None


def test_a_set_that_is_labeled_in_part_is_scored_on_that_part() -> None:
    toy = evaluator(SETS, metrics=["f1"])
    given = toy.predict("some", predictions(leads(1.0, 1.0, 1.0, -1.0, 1.0), [2, 3, 4, 8, 9]))
    assert given.predicted.tolist() == [1, 1, 1, 0, 1]
    # Rows 2, 8 and 9: predicted 1, 0, 1 for 0, 1, 1.
    assert toy.metrics("some", given) == {"accuracy": 0.333333, "f1": 0.5}
    assert toy.majority("some") == {"accuracy": 0.666667, "f1": 0.8}


def test_groups_that_are_labeled_in_part_are_not_scored() -> None:
    part = examples([1, 0, -1, -1, 0, 0, 1], group="aabbccc")
    toy = evaluator({"train": part.select([0, 1]), "test": part}, "multiple_choice")
    given = toy.predict("test", predictions(leads(2, 1, 2, 1, 2, 3, 1)))
    assert toy.metrics("test", given) == {"accuracy": 1 / 2}


def test_numbers_that_are_labeled_in_part() -> None:
    sets = {"train": examples([-1.0, 1.0]), "test": examples([-1.0, math.nan, 1.0, 0.5])}
    toy = evaluator(sets, "regression", labels=["-1", "1"], metric="spearman")
    given = toy.predict("test", predictions(leads(0.1, 9.0, 0.2, 0.3)))
    assert toy.metrics("test", given) == {"spearman": pytest.approx(1 / 2, abs=1e-5)}


def test_f1_is_of_the_positive_label() -> None:
    changes = {"labels": ["spam", "ham"], "metric": "f1"}
    sets = {"train": examples([1]), "dev": examples([0] * 4 + [1] * 16)}
    assert evaluator(sets, **changes).majority("dev") == {"f1": 0.888889}
    for label, expected in {"spam": 0.0, "ham": 0.888889}.items():
        toy = evaluator(sets, **changes, positive_label=label)
        assert toy.majority("dev") == {"f1": expected}


def test_close_numbers_do_not_tie() -> None:
    """Labels that differ in the tenth digit, predictions near the end of a range."""
    labels = [0.1234567891, 0.1234567892, 0.1234567893]
    sets = {"train": examples(labels), "dev": examples(labels)}
    toy = evaluator(sets, "regression", labels=["0", "1"], metric="spearman")
    given = toy.predict("dev", predictions(leads(20.0, 22.0, 21.0)))
    assert toy.metrics("dev", given) == {"spearman": pytest.approx(1 / 2, abs=1e-5)}


def test_a_set_may_have_its_own_metrics() -> None:
    toy = evaluator(SETS, test_metrics=["f1", "accuracy"])
    given = toy.predict("test", predictions(leads(1.0, -1.0, 1.0), [2, 4, 7]))
    assert list(toy.metrics("test", given) or ()) == ["f1", "accuracy"]
    assert toy.majority("dev") == {"accuracy": 0.25}
    assert toy.majority("test") == {"f1": 0.8, "accuracy": 0.666667}


@pytest.mark.parametrize(
    ("train", "expected"), [([1, 1, 0], 0.25), ([0, 1, 0], 0.75), ([2, 2, 0, 1], 0.0)]
)
def test_majority_of_labels_is_that_of_train(train: list[int], expected: float) -> None:
    sets = {**SETS, "train": examples(train)}
    toy = evaluator(sets, labels=["0", "1", "2"], label_words=["a", "b", "c"])
    assert toy.majority("dev") == {"accuracy": expected}


def test_numbers() -> None:
    sets = {"train": examples([5.0, 1.0]), "dev": examples([1.0, 4.0, 2.0])}
    metrics = {"metric": "pearson", "metrics": ["spearman"]}
    toy = evaluator(sets, "regression", labels=["0", "5"], **metrics)
    given = toy.predict("dev", predictions(leads(-1.0, 1.0, 0.0)))
    assert given.predicted[2] == 2.5
    assert toy.metrics("dev", given) == {
        "pearson": pytest.approx(0.98, abs=0.01),
        "spearman": pytest.approx(1, abs=1e-5),
    }
    assert toy.majority("dev") == {"pearson": 0.0, "spearman": 0.0}


def test_choices_of_a_set_in_another_order() -> None:
    """Sampled groups come in any order; candidates compete within their own."""
    part = examples([1, 0, 0, 1], [8, 9, 2, 3], group="ccaa")
    toy = evaluator({"train": part, "dev": part}, "multiple_choice")
    given = toy.predict("dev", predictions(leads(1, 2, 2, 1), [2, 3, 8, 9]))
    assert given.predicted.tolist() == [0, 1, 1, 0]
    assert given.examples.groups() == [[0, 1], [2, 3]]
    assert toy.metrics("dev", given) == {"accuracy": 1.0}


@pytest.mark.parametrize(
    ("groups", "labels", "expected"),
    [
        ("aabbcc", [1, 0, 1, 0, 0, 1], 3 / 5),  # mostly the first position
        ("aabbcc", [0, 1, 1, 0, 0, 1], 1 / 5),  # the second
        ("aaabbb", [0, 0, 1, 0, 0, 1], 2 / 5),  # the third, or the last one
    ],
)
def test_majority_of_choices_is_a_position(groups: str, labels: list[int], expected: float) -> None:
    train = examples(labels, group=groups)
    dev = examples([1, 0, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0], group="xxyyyzzwwwvv")
    # Exact match, so that each position has a different score.
    toy = evaluator({"train": train, "dev": dev}, "multiple_choice", metric="exact_match")
    assert toy.majority("dev") == {"exact_match": expected}
