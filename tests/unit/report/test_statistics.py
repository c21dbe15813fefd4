"""Resampled metrics, McNemar's test and calibration against other libraries and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from torchmetrics.functional.classification import multiclass_calibration_error

from lpt.report.statistics import (
    RESAMPLED,
    Counts,
    bootstrap,
    calibration_error,
    mcnemar,
    reliability,
    score,
)

N, LABELS = 300, 3
RANDOM = np.random.default_rng(0)
GOLD = RANDOM.integers(LABELS - 1, size=N)  # the last label does not occur
FIRST, SECOND = (
    np.where(RANDOM.random(N) < share, GOLD, RANDOM.integers(LABELS, size=N))
    for share in (0.7, 0.5)
)


def counts(predicted: np.ndarray, gold: np.ndarray = GOLD) -> Counts:
    ours, theirs = (np.equal.outer(x, range(LABELS)).astype(float) for x in (gold, predicted))
    return Counts(np.hstack([ours * theirs, ours, theirs]), 1)


def numbers(predicted: np.ndarray) -> Counts:
    return Counts(np.stack([GOLD + RANDOM.random(N), predicted], axis=1), 0)


def test_metrics_are_those_of_scikit_learn() -> None:
    found = counts(FIRST)
    expected = {
        "accuracy": accuracy_score(GOLD, FIRST),
        "f1": f1_score(GOLD == 1, FIRST == 1),
        "macro_f1": f1_score(GOLD, FIRST, average="macro"),
        "matthews_correlation": matthews_corrcoef(GOLD, FIRST),
    }
    assert {name: score(found, name) for name in expected} == pytest.approx(expected)
    assert score(counts(np.zeros(N)), "matthews_correlation") == 0
    assert score(Counts(np.ones((5, 2)), 0), "pearson") == 0
    pair = numbers(FIRST)
    assert score(pair, "spearman") == pytest.approx(stats.spearmanr(*pair.rows.T).statistic)


@pytest.mark.parametrize("metric", RESAMPLED)
def test_an_interval_of_the_same_predictions_is_zero(metric: str) -> None:
    of_numbers = metric in ("pearson", "spearman")
    found = Counts(numbers(FIRST).rows[:20], 0) if of_numbers else counts(FIRST)
    assert bootstrap([found], [found], metric) == (0, 0)


def test_the_interval_is_that_of_scipy() -> None:
    low, high = bootstrap([counts(FIRST)], [counts(SECOND)], "accuracy")
    difference = (FIRST == GOLD) * 1.0 - (SECOND == GOLD)
    expected = stats.bootstrap((difference,), np.mean, method="percentile", random_state=1)
    assert (low, high) == pytest.approx(expected.confidence_interval, abs=0.01)
    # Of several seeds the mean score counts: both sides have the same mean here.
    both = [counts(FIRST), counts(SECOND)]
    assert bootstrap(both, both[::-1], "accuracy") == pytest.approx((0, 0), abs=1e-12)


def test_mcnemar_by_hand() -> None:
    first = np.array([True] * 8 + [False] * 2 + [True] * 5)
    second = np.array([False] * 8 + [True] * 2 + [True] * 5)
    # Two-sided binomial: 2 (C(10,0) + C(10,1) + C(10,2)) / 2^10.
    assert mcnemar(first, second) == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert math.isnan(mcnemar(first, first))


def test_the_calibration_error_is_that_of_torchmetrics() -> None:
    scores = torch.tensor(RANDOM.normal(size=(N, LABELS)) * 2).softmax(1)
    right = scores.argmax(1).numpy() == GOLD
    bins = reliability(scores.amax(1).numpy(), right)
    expected = multiclass_calibration_error(scores, torch.tensor(GOLD), LABELS, n_bins=15)
    assert calibration_error(bins) == pytest.approx(float(expected), abs=1e-6)
    assert bins["count"].sum() == N
