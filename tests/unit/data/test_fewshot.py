"""Few-shot sampling: sizes, strata, seeds; tests/reference holds it to the published row ids."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from lpt.data.fewshot import (
    PUBLISHED_SEEDS,
    FewShotSplit,
    hold_out,
    largest_remainder,
    sample_per_class,
    sample_stratified,
    sample_total,
)
from tests.support.problems import problem_of

SEEDS = (13, 21, 42, 87, 100)


def random_labels(rng: random.Random) -> list[str]:
    """40 to 400 rows in 2 to 5 classes, none smaller than 10, in random order."""
    sizes = [rng.randint(10, 80) for _ in range(rng.randint(2, 5))]
    labels = [f"class {i}" for i, size in enumerate(sizes) for _ in range(size)]
    rng.shuffle(labels)
    return labels


def counts(labels: list[str], rows: list[int]) -> Counter[str]:
    return Counter(labels[row] for row in rows)


def check_rows(labels: list[str], sample: FewShotSplit) -> None:
    """Rows of the data, each at most once, in one set only."""
    both = [*sample.train, *sample.dev]
    assert len(set(both)) == len(both)
    assert set(both) <= set(range(len(labels)))


def check_stratified(labels: list[str], pool: Counter[str], rows: list[int]) -> None:
    """Each class has its rounded share of `rows`; one of them takes what rounding leaves."""
    total = sum(pool.values())
    off = {name: counts(labels, rows)[name] - len(rows) * pool[name] / total for name in pool}
    remainder = sorted(off.values(), key=abs)
    assert all(abs(x) <= 0.5 for x in remainder[:-1])
    assert abs(remainder[-1]) <= 0.5 * max(len(pool) - 1, 1)


@pytest.mark.parametrize("seed", range(20))
def test_samples(seed: int) -> None:
    rng = random.Random(seed)
    labels = random_labels(rng)
    sizes = Counter(labels)
    k = rng.randint(20, len(labels) // 2)
    dev_k = rng.randint(20, len(labels))
    total = sample_total(labels, k, dev_k, seed)
    check_rows(labels, total)
    assert (len(total.train), len(total.dev)) == (k, min(dev_k, len(labels) - k))
    check_stratified(labels, sizes, total.train)
    check_stratified(labels, sizes - counts(labels, total.train), total.dev)

    k, dev_k = rng.randint(1, min(sizes.values())), rng.randint(1, 60)
    per_class = sample_per_class(labels, k, dev_k, seed)
    check_rows(labels, per_class)
    assert counts(labels, per_class.train) == dict.fromkeys(sizes, k)
    expected = {label: min(dev_k, n - k) for label, n in sizes.items()}
    assert counts(labels, per_class.dev) == Counter(expected)

    dev_k = rng.randint(1, len(labels) // 2)
    held_out = hold_out(labels, dev_k, seed)
    check_rows(labels, held_out)
    assert (len(held_out.train), len(held_out.dev)) == (len(labels) - dev_k, dev_k)
    check_exact(sizes, len(labels) - dev_k, counts(labels, held_out.train))
    check_exact(sizes, dev_k, counts(labels, held_out.dev))

    exact = sample_stratified(labels, 20, 30, seed)
    check_rows(labels, exact)
    assert (len(exact.train), len(exact.dev)) == (20, min(30, len(labels) - 20))
    check_exact(sizes, 20, counts(labels, exact.train))


def check_exact(pool: Counter[str], total: int, drawn: Counter[str]) -> None:
    """Each class has a row, as far as they go, and its share to within two rows."""
    assert len(drawn) == min(len(pool), total)
    whole = sum(pool.values())
    assert all(abs(drawn[name] - total * size / whole) < 2 for name, size in pool.items())


@pytest.mark.parametrize(
    ("classes", "each", "dev_k"), [(150, 100, 1000), (150, 100, 500), (60, 6, 72), (60, 3, 36)]
)
def test_held_out_rows_of_many_classes(classes: int, each: int, dev_k: int) -> None:
    labels = [f"{i}" for i in range(classes)] * each
    sample = hold_out(labels, dev_k, 13)
    check_rows(labels, sample)
    assert len(sample.dev) == dev_k
    assert len(sample.train) == len(labels) - dev_k
    train, dev = counts(labels, sample.train), counts(labels, sample.dev)
    assert max(dev.values()) - min(dev[label] for label in labels) <= 1
    assert min(train[label] for label in labels) >= 1


@pytest.mark.parametrize(
    ("sizes", "total", "expected"),
    [
        ([190, 10], 8, [7, 1]),  # 7.6 and 0.4, but each class has a row
        ([190, 10], 1, [1, 0]),
        ([20] * 10, 15, [2] * 5 + [1] * 5),
        ([3, 3, 3], 8, [3, 3, 2]),
        ([5, 0], 5, [5, 0]),
        ([0, 0], 0, [0, 0]),
        ([1, 1, 98], 3, [1, 1, 1]),
    ],
)
def test_largest_remainder(sizes: list[int], total: int, expected: list[int]) -> None:
    assert largest_remainder(sizes, total) == expected


@pytest.mark.parametrize("seed", range(60))
def test_small_classes_have_a_row_in_both_sets_if_possible(seed: int) -> None:
    rng = random.Random(seed)
    sizes = [rng.choice([1, 2, 3, 5, 20]) for _ in range(rng.randint(2, 6))]
    labels = [f"{i}" for i, size in enumerate(sizes) for _ in range(size)]
    rng.shuffle(labels)
    divisible = sum(size > 1 for size in sizes)
    k = rng.randint(len(sizes), max(len(sizes), len(labels) - divisible))
    sample = sample_stratified(labels, k, len(labels), seed)
    check_rows(labels, sample)
    assert len(sample.train) == k
    assert len(counts(labels, sample.train)) == len(sizes)
    assert len(counts(labels, sample.dev)) == divisible


def test_rows_of_a_seed() -> None:
    """They never change; tests/reference has more of them."""
    labels = ["a", "b", "b"] * 8
    assert sample_total(labels, 6, 4, 13) == ([17, 1, 7, 8, 0, 9], [11, 20, 13, 15])
    assert sample_per_class(labels, 2, 2, 13) == ([17, 1, 0, 9], [7, 8, 15, 21])


@pytest.mark.parametrize("sampler", [sample_total, sample_per_class, sample_stratified])
def test_files_without_a_header_are_shuffled_cumulatively(
    sampler: Callable[..., FewShotSplit],
) -> None:
    """As a script does that loops over the seeds and shuffles the lines in place."""
    lines = [(i, "abb"[i % 3]) for i in range(60)]
    labels = [label for _, label in lines]
    for seed in PUBLISHED_SEEDS:
        np.random.seed(seed)
        np.random.shuffle(lines)  # type: ignore[arg-type]
        of_class = {x: [i for i, label in lines if label == x] for x in "ab"}
        sample = sampler(labels, 9, 6, seed, cumulative=True)
        for label in "ab":
            drawn = [i for i in (*sample.train, *sample.dev) if labels[i] == label]
            assert drawn == of_class[label][: len(drawn)]
    assert sampler(labels, 9, 6, 5, cumulative=True) == sampler(labels, 9, 6, 5)
    assert sampler(labels, 9, 6, 100, cumulative=True) == sampler(labels, 9, 6, 100)
    assert sampler(labels, 9, 6, 13, cumulative=True) != sampler(labels, 9, 6, 13)


@pytest.mark.parametrize(
    ("sampler", "sizes"),
    [(sample_total, (20, 30)), (sample_per_class, (20, 30)), (hold_out, (20,))],
)
def test_only_the_seed_matters(
    sampler: Callable[..., FewShotSplit], sizes: tuple[int, ...]
) -> None:
    labels = ["a", "b", "b"] * 40
    np.random.seed(1)
    before = np.random.get_state()
    samples = {seed: sampler(labels, *sizes, seed) for seed in SEEDS}
    np.testing.assert_equal(np.random.get_state(), before)
    np.random.seed(0)
    assert samples == {seed: sampler(labels, *sizes, seed) for seed in SEEDS}
    for part in ("train", "dev"):
        assert len({frozenset(getattr(s, part)) for s in samples.values()}) == len(SEEDS)


@pytest.mark.parametrize(
    ("sampler", "arguments", "where", "given", "expected"),
    [
        (sample_total, (2, 5), "data.k", "2 training examples of 12 rows with 3 labels", "3"),
        (sample_total, (13, 5), "data.k", "13 training examples of 12 rows", "12"),
        (sample_per_class, (3, 5), "data.k", "the smallest class has 2 rows", "1 to 2"),
        (hold_out, (12,), "data.dev_k", "12 dev rows of the 12 training rows", "at most 9"),
    ],
)
def test_k_that_does_not_fit(
    sampler: Callable[..., FewShotSplit],
    arguments: tuple[int, ...],
    where: str,
    given: str,
    expected: str,
) -> None:
    labels = [*"aaaaaa", *"bbbb", *"cc"]
    problem = problem_of(lambda: sampler(labels, *arguments, 13))
    assert problem.where == where
    assert given in problem.given
    assert expected in problem.expected
