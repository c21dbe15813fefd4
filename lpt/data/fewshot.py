"""Few-shot sampling: which rows are for training, which for selection.

`total` is the protocol of the reference implementation of late prompt tuning, `per_class` that of
LM-BFF (Gao et al. 2021); `stratified` is `total` with exact numbers. The data seed is independent
of the model seed.

The scripts of both draw for all of `PUBLISHED_SEEDS` in one process. For the tasks that say so
(`task.cumulative_sampling`), each of these seeds shuffles the order that the one before it left.
Both draw from all lines, also from those with too few columns, which are skipped only afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import numpy as np

from lpt.errors import config_error

PUBLISHED_SEEDS = (100, 13, 21, 42, 87)


PUBLISHED = ("total", "per_class")


class NoLabel(str):
    """Last cell of a row with too few columns: drawn as a class of its own, and then skipped."""

    __slots__ = ()


class FewShotSplit(NamedTuple):
    """Indices of the sampled rows, in order."""

    train: list[int]
    dev: list[int]


def sample_total(
    labels: Sequence[Hashable], k: int, dev_k: int, seed: int, *, cumulative: bool = False
) -> FewShotSplit:
    """Sample about k training rows in total and dev_k dev rows, by the reference's rule.

    Every class but the last one gets its rounded share, and the last one the remainder: rounding
    may leave a class without a row, or change the number of rows. If fewer than dev_k rows are
    left, dev is all of them.

    Args:
        labels: Class of each row.
        k: Training rows.
        dev_k: Dev rows.
        seed: Data seed.
        cumulative: Whether a published seed shuffles the order that the one before it left.

    Raises:
        ConfigError: k does not fit the data.
    """
    classes = _shuffled_classes(labels, seed, cumulative)
    return _sample_shares(labels, k, dev_k, classes, _rounded, _rounded)


def sample_stratified(
    labels: Sequence[Hashable], k: int, dev_k: int, seed: int, *, cumulative: bool = False
) -> FewShotSplit:
    """As `sample_total`, but exactly k and dev_k rows, with shares by largest remainder.

    Each class has a training row and, as far as possible, a dev row.
    """
    classes = _shuffled_classes(labels, seed, cumulative)
    return _sample_shares(labels, k, dev_k, classes, _most_by_largest_remainder, largest_remainder)


def _sample_shares(
    labels: Sequence[Hashable],
    k: int,
    dev_k: int,
    classes: list[list[int]],
    divide_train: Callable[[list[int], int], list[int]],
    divide_dev: Callable[[list[int], int], list[int]],
) -> FewShotSplit:
    count = len(_labeled(labels, classes))
    if not count <= k <= len(labels):
        raise config_error(
            "data.k",
            f"{k} training examples of {len(labels)} rows with {count} labels",
            f"{count} (one per label) to {len(labels)} (all rows)",
        )
    train_counts = divide_train([len(rows) for rows in classes], k)
    left = [len(rows) - count for rows, count in zip(classes, train_counts, strict=True)]
    return _first_rows(classes, train_counts, divide_dev(left, min(dev_k, sum(left))))


def sample_per_class(
    labels: Sequence[Hashable], k: int, dev_k: int, seed: int, *, cumulative: bool = False
) -> FewShotSplit:
    """Sample k training rows and up to dev_k dev rows of each class.

    Raises:
        ConfigError: A class has fewer than k rows.
    """
    classes = _shuffled_classes(labels, seed, cumulative)
    smallest = min(len(rows) for rows in _labeled(labels, classes))
    if k > smallest:
        given = f"{k} per class, but the smallest class has {smallest} rows"
        raise config_error("data.k", given, f"1 to {smallest}")
    dev_counts = [max(min(dev_k, len(rows) - k), 0) for rows in classes]
    return _first_rows(classes, [k] * len(classes), dev_counts)


def hold_out(labels: Sequence[Hashable], dev_k: int, seed: int) -> FewShotSplit:
    """Hold out exactly dev_k stratified dev rows, for a task without an official dev set.

    Each class keeps a training row.

    Raises:
        ConfigError: dev_k does not leave each class a row to train on.
    """
    most = len(labels) - len(set(labels))
    if dev_k > most:
        given = f"{dev_k} dev rows of the {len(labels)} training rows"
        raise config_error("data.dev_k", given, f"at most {most}")
    classes = _shuffled_classes(labels, seed)
    dev_counts = largest_remainder([len(rows) - 1 for rows in classes], dev_k)
    train_counts = [len(rows) - n for rows, n in zip(classes, dev_counts, strict=True)]
    return _first_rows(classes, train_counts, dev_counts)


SAMPLERS = {
    "total": sample_total,
    "stratified": sample_stratified,
    "per_class": sample_per_class,
}


def _shuffled_classes(
    labels: Sequence[Hashable], seed: int, cumulative: bool = False
) -> list[list[int]]:
    """Rows of each class in random order; classes in order of first appearance."""
    seeds: Sequence[int] = (seed,)
    if cumulative and seed in PUBLISHED_SEEDS:
        seeds = PUBLISHED_SEEDS[: PUBLISHED_SEEDS.index(seed) + 1]
    # The legacy generator's in-place shuffle of a list: published row ids depend on it.
    order = list(range(len(labels)))
    for each in seeds:
        np.random.RandomState(each).shuffle(order)
    classes: dict[Hashable, list[int]] = {}
    for row in order:
        classes.setdefault(labels[row], []).append(row)
    return list(classes.values())


def _labeled(labels: Sequence[Hashable], classes: list[list[int]]) -> list[list[int]]:
    return [rows for rows in classes if not isinstance(labels[rows[0]], NoLabel)]


def largest_remainder(sizes: Sequence[int], total: int) -> list[int]:
    """`total` divided in proportion to `sizes`, of which none is exceeded.

    Shares are rounded down, and what is left goes to the largest fractions, the first of equals.
    Then a class without a row gets one of the class with most, as long as that has another.
    """
    whole = max(1, sum(sizes))
    counts = [total * size // whole for size in sizes]
    by_fraction = sorted(range(len(sizes)), key=lambda i: -(total * sizes[i] % whole))
    for i in by_fraction[: total - sum(counts)]:
        counts[i] += 1
    for i, size in enumerate(sizes):
        most = max(range(len(sizes)), key=counts.__getitem__)
        if size and not counts[i] and counts[most] > 1:
            counts[i], counts[most] = 1, counts[most] - 1
    return counts


def _most_by_largest_remainder(sizes: list[int], total: int) -> list[int]:
    """As `largest_remainder`, but each class that has two rows keeps one, as far as possible."""
    counts = largest_remainder(sizes, total)
    for i, size in enumerate(sizes):
        left = [other - count for other, count in zip(sizes, counts, strict=True)]
        most = max(range(len(sizes)), key=left.__getitem__)
        if size > 1 and not left[i] and left[most] > 1:
            counts[i], counts[most] = counts[i] - 1, counts[most] + 1
    return counts


def _rounded(sizes: list[int], total: int) -> list[int]:
    """`total` divided in proportion to `sizes` as in the reference implementation."""
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
