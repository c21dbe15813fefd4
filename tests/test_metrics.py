"""Metrics against hand-computed values; the store of predictions."""

from __future__ import annotations

import math

import pytest
import torch

from lpt.metrics import METRICS, PredictionStore, score

# 3 true positives, 1 false positive, 2 false negatives, 2 true negatives.
PREDICTED = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0])
LABELS = torch.tensor([1, 1, 1, 0, 1, 1, 0, 0])
BY_HAND = {
    "accuracy": 5 / 8,
    "f1": 2 * 3 / (2 * 3 + 1 + 2),
    "macro_f1": (6 / 9 + 4 / 7) / 2,
    "matthews_correlation": (3 * 2 - 1 * 2) / math.sqrt(4 * 5 * 3 * 4),
}


def test_every_metric_has_a_value_computed_by_hand() -> None:
    assert set(BY_HAND) == set(METRICS)


@pytest.mark.parametrize("name", METRICS)
def test_two_labels(name: str) -> None:
    assert score(PREDICTED, LABELS, (name,), 2)[name] == pytest.approx(BY_HAND[name])


def test_three_labels() -> None:
    predicted, labels = torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 1, 2])
    values = score(predicted, labels, ("accuracy", "macro_f1"), 3)
    assert values["accuracy"] == pytest.approx(3 / 4)
    assert values["macro_f1"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)


def test_store_gives_row_order_and_counts_each_row_once() -> None:
    store = PredictionStore()
    for rows in ([5, 2], [9], [2, 0]):  # row 2 twice, as when ranks repeat a sample
        index = torch.tensor(rows)
        store.update(index, index % 2, torch.stack([index, -index], dim=1))
    predictions = store.gather()
    assert predictions.index.tolist() == [0, 2, 5, 9]
    assert predictions.labels.tolist() == [0, 0, 1, 1]
    assert predictions.scores[:, 0].tolist() == [0.0, 2.0, 5.0, 9.0]
    assert predictions.predicted.tolist() == [0, 0, 0, 0]
    store.reset()
    store.update(torch.tensor([1]), torch.tensor([-1]), torch.tensor([[0.0, 1.0]]))
    single = store.gather()
    assert (single.index.tolist(), single.scores.tolist()) == ([1], [[0.0, 1.0]])
