"""Few-shot sampling: which rows are for training, which for selection.

`total` is the protocol of the reference implementation of late prompt tuning, `per_class` that of
LM-BFF (Gao et al. 2021). The data seed is independent of the model seed.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from lpt.errors import config_error


class FewShotSplit(NamedTuple):
    """Indices of the sampled rows, in order."""

    train: list[int]
    dev: list[int]


def sample_total(labels: Sequence[Hashable], k: int, dev_k: int, seed: int) -> FewShotSplit:
    """Sample k training rows in total, stratified by class, and dev_k dev rows from the rest.

    If fewer than dev_k rows are left, dev is all of them. `seed` is the data seed.

    Raises:
        ConfigError: k does not fit the data.
    """
    classes = _shuffled_classes(labels, seed)
    if not len(classes) <= k <= len(labels):
        raise config_error(
            "data.k",
            f"{k} training examples of {len(labels)} rows with {len(classes)} labels",
            f"{len(classes)} (one per label) to {len(labels)} (all rows)",
        )
    train_counts = _proportional_counts([len(rows) for rows in classes], k)
    left = [len(rows) - count for rows, count in zip(classes, train_counts, strict=True)]
    dev_counts = _proportional_counts(left, min(dev_k, sum(left)))
    return _first_rows(classes, train_counts, dev_counts)


def sample_per_class(labels: Sequence[Hashable], k: int, dev_k: int, seed: int) -> FewShotSplit:
    """Sample k training rows and up to dev_k dev rows of each class.

    Raises:
        ConfigError: A class has fewer than k rows.
    """
    classes = _shuffled_classes(labels, seed)
    smallest = min(len(rows) for rows in classes)
    if k > smallest:
        given = f"{k} per class, but the smallest class has {smallest} rows"
        raise config_error("data.k", given, f"1 to {smallest}")
    dev_counts = [min(dev_k, len(rows) - k) for rows in classes]
    return _first_rows(classes, [k] * len(classes), dev_counts)


def hold_out(labels: Sequence[Hashable], dev_k: int, seed: int) -> FewShotSplit:
    """Hold out dev_k stratified dev rows, for a task without an official dev set.

    Raises:
        ConfigError: dev_k leaves no row to train on.
    """
    most = len(labels) - len(set(labels))
    if dev_k > most:
        given = f"{dev_k} dev rows of the {len(labels)} training rows"
        raise config_error("data.dev_k", given, f"at most {most}")
    return sample_total(labels, len(labels) - dev_k, dev_k, seed)


SAMPLERS = {"total": sample_total, "per_class": sample_per_class}


def _shuffled_classes(labels: Sequence[Hashable], seed: int) -> list[list[int]]:
    """Rows of each class in random order; classes in order of first appearance."""
    # The legacy generator's in-place shuffle of a list: published row ids depend on it.
    order = list(range(len(labels)))
    np.random.RandomState(seed).shuffle(order)
    classes: dict[Hashable, list[int]] = {}
    for row in order:
        classes.setdefault(labels[row], []).append(row)
    return list(classes.values())


def _proportional_counts(sizes: list[int], total: int) -> list[int]:
    """`total` divided in proportion to `sizes`; the last class gets the remainder.

    As in the reference implementation, rounding may leave the last class short of its share, or
    without any row.
    """
    if not total:
        return [0] * len(sizes)
    counts = [round(total * size / sum(sizes)) for size in sizes[:-1]]
    return [*counts, max(total - sum(counts), 0)]


def _first_rows(classes: list[list[int]], train: list[int], dev: list[int]) -> FewShotSplit:
    """Of each class, the first rows for training and the next ones for dev."""
    counts = list(zip(classes, train, dev, strict=True))
    return FewShotSplit(
        [row for rows, n, _ in counts for row in rows[:n]],
        [row for rows, n, d in counts for row in rows[n : n + d]],
    )
