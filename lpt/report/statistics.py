"""Statistics over the examples of a set: resampled metrics, McNemar's test, calibration.

Shapes: n examples, U units that are resampled (examples, or groups of them), K labels, S runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

RESAMPLES = 2000
_BINS = 15  # of confidence, as in Guo et al., ICML 2017


class Counts(NamedTuple):
    """What the metrics of a set are computed from.

    Attributes:
        rows: (U, 3 K): hits, gold labels and predictions of each label, summed over the examples of
            a unit. Of a regression (n, 2): gold and predicted number.
        positive: Index of the label whose F1 is `f1`.
    """

    rows: np.ndarray
    positive: int


# Functions of totals (..., 3 K) and of the positive label.


def _f1(totals: np.ndarray) -> np.ndarray:
    """F1 of each label, (..., K); NaN for one that neither occurs nor is predicted."""
    hits, gold, predicted = np.split(totals, 3, axis=-1)
    with np.errstate(invalid="ignore"):
        return 2 * hits / (gold + predicted)


def _accuracy(totals: np.ndarray, _: int) -> np.ndarray:
    hits, gold, _predicted = np.split(totals, 3, axis=-1)
    return hits.sum(-1) / gold.sum(-1)


def _positive_f1(totals: np.ndarray, positive: int) -> np.ndarray:
    return np.nan_to_num(_f1(totals)[..., positive])


def _macro_f1(totals: np.ndarray, _: int) -> np.ndarray:
    return np.nanmean(_f1(totals), axis=-1)


def _matthews(totals: np.ndarray, _: int) -> np.ndarray:
    """Gorodkin, 2004; 0 where gold labels or predictions do not vary."""
    hits, gold, predicted = np.split(totals, 3, axis=-1)
    n = gold.sum(-1)
    covariance = hits.sum(-1) * n - (gold * predicted).sum(-1)
    variances = (n**2 - (gold**2).sum(-1)) * (n**2 - (predicted**2).sum(-1))
    return np.where(variances > 0, covariance / np.sqrt(np.where(variances > 0, variances, 1)), 0)


_OF_LABELS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "accuracy": _accuracy,
    "f1": _positive_f1,
    "f1a": _positive_f1,
    "macro_f1": _macro_f1,
    "matthews_correlation": _matthews,
}
_OF_NUMBERS: dict[str, Callable[..., Any]] = {
    "pearson": stats.pearsonr,
    "spearman": stats.spearmanr,
}
RESAMPLED = (*_OF_LABELS, *_OF_NUMBERS)
"""The metrics that can be resampled; they agree with those of `lpt.training.metrics`."""


def score(counts: Counts, metric: str) -> float:
    """A metric of the examples."""
    if metric in _OF_LABELS:
        return float(_OF_LABELS[metric](counts.rows.sum(0), counts.positive))
    varies = (np.ptp(counts.rows, axis=0) > 0).all()
    return float(_OF_NUMBERS[metric](*counts.rows.T)[0]) if varies else 0.0


def bootstrap(
    first: Sequence[Counts], second: Sequence[Counts], metric: str
) -> tuple[float, float]:
    """95 % percentile interval of the difference of a metric over resampled units.

    Both sides see the same resampled units (paired). A score is the mean over the S runs of a side,
    which are not resampled.

    Source: Efron and Tibshirani, 1993; for test sets, Berg-Kirkpatrick et al., EMNLP 2012.
    """
    if metric in _OF_NUMBERS:
        found = _resampled_numbers(first, second, metric)
    else:
        rows = np.hstack([counts.rows for counts in (*first, *second)])
        # Equal units are drawn together: there are few kinds of them.
        kinds, sizes = np.unique(rows, axis=0, return_counts=True)
        random = np.random.default_rng(0)
        drawn = random.multinomial(len(rows), sizes / len(rows), size=RESAMPLES)
        totals = (drawn @ kinds).reshape(RESAMPLES, 2, len(first), -1)
        ours, theirs = _OF_LABELS[metric](totals, first[0].positive).mean(axis=2).T
        found = ours - theirs
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def _resampled_numbers(
    first: Sequence[Counts], second: Sequence[Counts], metric: str
) -> np.ndarray:
    random, size = np.random.default_rng(0), len(first[0].rows)
    differences = []
    for _ in range(RESAMPLES):
        drawn = random.integers(size, size=size)
        ours, theirs = (
            np.mean([score(counts._replace(rows=counts.rows[drawn]), metric) for counts in side])
            for side in (first, second)
        )
        differences.append(ours - theirs)
    return np.array(differences)


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """P of McNemar's exact test, of whether each prediction of two runs is right, (n,) each.

    NaN if the runs are right on the same examples.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    if only_first + only_second == 0:
        return float("nan")
    return float(stats.binomtest(only_first, only_first + only_second).pvalue)


def reliability(confidence: np.ndarray, right: np.ndarray) -> pd.DataFrame:
    """Bins of equal width of the confidence, (n,): count, mean confidence, accuracy of each."""
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    found = pd.DataFrame({"confidence": confidence, "accuracy": right}).groupby(bins)
    return found.mean().assign(count=found.size())


def calibration_error(bins: pd.DataFrame) -> float:
    """Expected calibration error: mean distance of confidence and accuracy, weighted by count.

    Source: Guo et al., ICML 2017.
    """
    distance = (bins["confidence"] - bins["accuracy"]).abs()
    return float(np.average(distance, weights=bins["count"]))
