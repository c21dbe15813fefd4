"""Means, spreads and paired comparisons; the tests and intervals are SciPy's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

# Scores are kept to six digits; what is left of a difference below this is rounding.
_NOTHING = 1e-9


@dataclass(frozen=True)
class Estimate:
    """A mean over runs.

    Attributes:
        mean: Their mean.
        sd: Sample standard deviation (n - 1); None of a single run.
        n: Runs.
    """

    mean: float
    sd: float | None
    n: int


def estimate(values: Iterable[float]) -> Estimate | None:
    """Mean, sample standard deviation and count of what is known; None if nothing is."""
    known = pd.Series(list(values), dtype=float).dropna()
    if known.empty:
        return None
    return Estimate(float(known.mean()), float(known.std()) if len(known) > 1 else None, len(known))


@dataclass(frozen=True)
class Comparison:
    """One setting against another over the seeds that both have.

    Attributes:
        pairs: Seeds in common.
        difference: Mean of the first one's score less the second one's; None without a pair.
        interval: 95 % confidence interval of it (Student's t); None where there is no spread.
        p: Of the paired, two-sided t-test; None likewise.
        holm: The same, adjusted after Holm for the comparisons made together.
        why_not: Why there is no interval and no p; empty if there is.
    """

    pairs: int
    difference: float | None
    interval: tuple[float, float] | None = None
    p: float | None = None
    holm: float | None = None
    why_not: str = ""


def compare(ours: Any, theirs: Any) -> Comparison:
    """Compare two series of scores, each indexed by the seeds of its runs."""
    pairs = pd.concat([ours, theirs], axis=1, join="inner", keys=["ours", "theirs"]).dropna()
    difference = pairs["ours"] - pairs["theirs"]
    if len(pairs) == 0:
        return Comparison(0, None, why_not="no seeds in common")
    mean = float(difference.mean())
    if len(pairs) == 1:
        return Comparison(1, mean, why_not="one pair has no spread")
    if difference.std() < _NOTHING:
        return Comparison(len(pairs), mean, why_not="the same difference at every seed")
    test = stats.ttest_rel(pairs["ours"], pairs["theirs"])
    low, high = test.confidence_interval(0.95)
    return Comparison(len(pairs), mean, (float(low), float(high)), float(test.pvalue))


def adjusted(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons with p adjusted after Holm (1979), which SciPy has not.

    The i-th smallest of m is multiplied by m - i + 1, never falls below the one before, and never
    rises above 1.
    """
    tested = sorted((c.p, at) for at, c in enumerate(comparisons) if c.p is not None)
    steps = [p * (len(tested) - rank) for rank, (p, _) in enumerate(tested)]
    done = list(comparisons)
    for (_, at), p in zip(tested, np.maximum.accumulate(steps) if steps else (), strict=True):
        done[at] = replace(done[at], holm=min(1.0, float(p)))
    return done
