"""Few-shot draws: which rows train, which rows select.

`total` is the protocol of the late-prompt-tuning reference release, `per_class` that of LM-BFF
(Gao et al. 2021). The data seed is not the model seed.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from lpt.errors import config_error


class FewShotSplit(NamedTuple):
    """Row ids in order."""

    train: list[int]
    dev: list[int]


def draw_total(labels: Sequence[Hashable], k: int, dev_k: int, seed: int) -> FewShotSplit:
    """Draw k training rows in all, stratified by class frequency, and dev_k dev rows from the rest.

    Args:
        labels: Label of each row.
        k: Training rows in all; at least the number of labels, at most the number of rows.
        dev_k: Dev rows in all; where fewer are left, all of them.
        seed: Data seed.

    Raises:
        ConfigError: k does not fit the data.
    """
    groups = _shuffled_groups(labels, seed)
    _check_k(k, len(groups), len(labels))
    train_counts = _shares([len(g) for g in groups], k)
    left = [len(g) - n for g, n in zip(groups, train_counts, strict=True)]
    dev_counts = _shares(left, min(dev_k, sum(left)))
    return _take(groups, train_counts, dev_counts)


def draw_per_class(labels: Sequence[Hashable], k: int, dev_k: int, seed: int) -> FewShotSplit:
    """Draw k training rows and up to dev_k dev rows of each class.

    Raises:
        ConfigError: A class has fewer than k rows.
    """
    groups = _shuffled_groups(labels, seed)
    smallest = min(len(g) for g in groups)
    if k > smallest:
        raise config_error(
            "data.k",
            f"{k} of each class, but the smallest class has {smallest} rows",
            f"1 to {smallest}",
        )
    dev_counts = [min(dev_k, len(g) - k) for g in groups]
    return _take(groups, [k] * len(groups), dev_counts)


def hold_out(labels: Sequence[Hashable], dev_k: int, seed: int) -> FewShotSplit:
    """Split off dev_k stratified dev rows for a task that has no official dev set.

    Raises:
        ConfigError: dev_k leaves no row to train on.
    """
    most = len(labels) - len(set(labels))
    if dev_k > most:
        raise config_error(
            "data.dev_k",
            f"{dev_k} dev rows of the {len(labels)} training rows",
            f"1 to {most}" if most else "",
            "" if most else "give a dev set",
        )
    return draw_total(labels, len(labels) - dev_k, dev_k, seed)


SAMPLERS = {"total": draw_total, "per_class": draw_per_class}


def _shuffled_groups(labels: Sequence[Hashable], seed: int) -> list[list[int]]:
    # The legacy generator's in-place shuffle of a list: published row ids depend on it.
    order = list(range(len(labels)))
    np.random.RandomState(seed).shuffle(order)
    groups: dict[Hashable, list[int]] = {}
    for row in order:
        groups.setdefault(labels[row], []).append(row)
    return list(groups.values())


def _shares(sizes: list[int], total: int) -> list[int]:
    """`total` divided in proportion to `sizes`; the last one takes the remainder.

    As in the reference, rounding may leave the last class one short of its share, or none.
    """
    if not total:
        return [0] * len(sizes)
    counts = [round(total * size / sum(sizes)) for size in sizes[:-1]]
    return [*counts, max(total - sum(counts), 0)]


def _take(groups: list[list[int]], train: list[int], dev: list[int]) -> FewShotSplit:
    parts = list(zip(groups, train, dev, strict=True))
    return FewShotSplit(
        [row for group, n, _ in parts for row in group[:n]],
        [row for group, n, d in parts for row in group[n : n + d]],
    )


def _check_k(k: int, labels: int, rows: int) -> None:
    if not labels <= k <= rows:
        raise config_error(
            "data.k",
            f"{k} training examples of {rows} rows with {labels} labels",
            f"{labels} (one a label) to {rows} (all rows)",
        )
