"""From label scores to predictions, and from predictions to the metrics of each set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from lpt.data.examples import Examples
from lpt.data.tasks import Task
from lpt.data.templates import Template
from lpt.training.evaluation import Evaluator, decide
from lpt.training.metrics import Predictions


def task(decide: str = "classification", **changes: Any) -> Task:
    labels = ("0", "5") if decide == "regression" else ("0", "1")
    metrics = ("pearson",) if decide == "regression" else ("accuracy",)
    given: dict[str, Any] = {"labels": labels, "label_words": ("No", "Yes"), "metrics": metrics}
    template = Template.parse("{text} <mask>", "masked")
    return Task(name="toy", template=template, task_type=decide, **given | changes)


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


# Decisions


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


# Sets

SETS = {
    "train": examples([1, 1, 0], [5, 3, 4]),
    "dev": examples([0, 0, 0, 1]),
    "test": examples([1, 0, 1], [7, 2, 4]),
    "more": examples([1, -1]),
}
LEANING = leads(1.0, -1.0, 1.0, -1.0)  # 1, 0, 1, 0


def test_predictions_are_in_row_order() -> None:
    """The store gives rows in order; a sampled set has its own."""
    evaluator = Evaluator(task(), SETS)
    given = evaluator.predict("test", predictions(leads(-1.0, 1.0, 2.0), [2, 4, 7]))
    assert given.examples.row_ids == [2, 4, 7]
    assert given.examples.columns == {"text": ["row 2", "row 4", "row 7"]}
    assert given.predicted.tolist() == [0, 1, 1]
    assert given.labels.tolist() == [0, 1, 1]
    assert given.num_labels == 2
    assert evaluator.metrics("test", given) == {"accuracy": 1.0}


def test_a_set_without_labels_is_predicted_but_not_scored() -> None:
    evaluator = Evaluator(task(), SETS)
    given = evaluator.predict("more", predictions(leads(1.0, 2.0)))
    assert given.predicted.tolist() == [1, 1]
    assert evaluator.metrics("more", given) is None
    assert evaluator.majority("more") is None


def test_a_set_may_have_its_own_metrics() -> None:
    own = {"test": ("f1", "accuracy"), "more": ("matthews_correlation",)}
    evaluator = Evaluator(task(set_metrics=own), SETS)
    scores = evaluator.metrics(
        "test", evaluator.predict("test", predictions(LEANING[:3], [2, 4, 7]))
    )
    assert scores is not None
    assert list(scores) == ["f1", "accuracy"]
    assert evaluator.majority("dev") == {"accuracy": 0.25}
    assert evaluator.majority("test") == {"f1": 0.8, "accuracy": pytest.approx(2 / 3)}


@pytest.mark.parametrize(
    ("train", "expected"), [([1, 1, 0], 0.25), ([0, 1, 0], 0.75), ([2, 2, 0, 1], 0.0)]
)
def test_majority_of_labels_is_that_of_train(train: list[int], expected: float) -> None:
    three = task(labels=("0", "1", "2"), label_words=("a", "b", "c"))
    evaluator = Evaluator(three, {**SETS, "train": examples(train)})
    assert evaluator.majority("dev") == {"accuracy": expected}


# Numbers


def test_numbers() -> None:
    sets = {"train": examples([5.0, 1.0]), "dev": examples([1.0, 4.0, 2.0])}
    evaluator = Evaluator(task("regression", metrics=("pearson", "spearman")), sets)
    given = evaluator.predict("dev", predictions(leads(-1.0, 1.0, 0.0)))
    assert given.predicted[2] == 2.5
    scores = evaluator.metrics("dev", given)
    assert scores == {
        "pearson": pytest.approx(0.98, abs=0.01),
        "spearman": pytest.approx(1, abs=1e-5),
    }
    assert evaluator.majority("dev") == {"pearson": 0.0, "spearman": 0.0}


# Choices


def choices(groups: str, labels: Sequence[int], index: Sequence[int] | None = None) -> Examples:
    return examples(labels, index, group=groups)


def test_choices_of_a_set_in_another_order() -> None:
    """Sampled groups come in any order; candidates compete within their own."""
    part = choices("ccaa", [1, 0, 0, 1], [8, 9, 2, 3])
    evaluator = Evaluator(task("multiple_choice"), {"train": part, "dev": part})
    given = evaluator.predict("dev", predictions(leads(1, 2, 2, 1), [2, 3, 8, 9]))
    assert given.predicted.tolist() == [0, 1, 1, 0]
    assert given.groups == [[0, 1], [2, 3]]
    assert evaluator.metrics("dev", given) == {"accuracy": 1.0}


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        (choices("aabbcc", [1, 0, 1, 0, 0, 1]), 3 / 5),  # mostly the first position
        (choices("aabbcc", [0, 1, 1, 0, 0, 1]), 1 / 5),  # the second
        (choices("aaabbb", [0, 0, 1, 0, 0, 1]), 2 / 5),  # the third, or the last one
    ],
)
def test_majority_of_choices_is_a_position(train: Examples, expected: float) -> None:
    dev = choices("xxyyyzzwwwvv", [1, 0, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0])
    # Exact match, so that each position has a different score.
    evaluator = Evaluator(
        task("multiple_choice", metrics=("exact_match",)), {"train": train, "dev": dev}
    )
    assert evaluator.majority("dev") == {"exact_match": expected}
