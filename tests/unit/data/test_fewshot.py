from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lpt.data.fewshot import SAMPLERS, FewShotSplit, draw_per_class, draw_total, hold_out
from lpt.errors import ConfigError

Drawing = Callable[[list[str], int, int, int], FewShotSplit]
SEEDS = (13, 21, 42, 87, 100)


def random_labels(rng: random.Random) -> list[str]:
    """40 to 400 rows in 2 to 5 classes, none smaller than 10, in random order."""
    sizes = [rng.randint(10, 80) for _ in range(rng.randint(2, 5))]
    labels = [f"class {i}" for i, size in enumerate(sizes) for _ in range(size)]
    rng.shuffle(labels)
    return labels


def counts(labels: list[str], rows: list[int]) -> Counter[str]:
    return Counter(labels[row] for row in rows)


def check_rows(labels: list[str], drawn: FewShotSplit) -> None:
    """Rows of the data, each at most once, in one set only."""
    both = [*drawn.train, *drawn.dev]
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
def test_draw_total(seed: int) -> None:
    rng = random.Random(seed)
    labels = random_labels(rng)
    k = rng.randint(20, len(labels) // 2)
    dev_k = rng.randint(20, len(labels) - k)
    drawn = draw_total(labels, k, dev_k, seed)
    check_rows(labels, drawn)
    assert (len(drawn.train), len(drawn.dev)) == (k, dev_k)
    check_stratified(labels, Counter(labels), drawn.train)
    check_stratified(labels, Counter(labels) - counts(labels, drawn.train), drawn.dev)


@pytest.mark.parametrize("seed", range(10))
def test_draw_per_class(seed: int) -> None:
    rng = random.Random(seed)
    labels = random_labels(rng)
    sizes = Counter(labels)
    k, dev_k = rng.randint(1, min(sizes.values())), rng.randint(1, 60)
    drawn = draw_per_class(labels, k, dev_k, seed)
    check_rows(labels, drawn)
    assert counts(labels, drawn.train) == dict.fromkeys(sizes, k)
    assert counts(labels, drawn.dev) == Counter({x: min(dev_k, n - k) for x, n in sizes.items()})


@pytest.mark.parametrize("seed", range(10))
def test_hold_out_uses_every_row_once(seed: int) -> None:
    rng = random.Random(seed)
    labels = random_labels(rng)
    dev_k = rng.randint(1, len(labels) // 2)
    drawn = hold_out(labels, dev_k, seed)
    check_rows(labels, drawn)
    assert (len(drawn.train), len(drawn.dev)) == (len(labels) - dev_k, dev_k)
    check_stratified(labels, Counter(labels), drawn.train)


def test_dev_takes_what_is_left() -> None:
    labels = ["a", "b"] * 20
    drawn = draw_total(labels, 10, 1000, 13)
    assert sorted([*drawn.train, *drawn.dev]) == list(range(40))
    assert len(drawn.train) == 10


@pytest.mark.parametrize("draw", [*SAMPLERS.values(), hold_out], ids=[*SAMPLERS, "hold_out"])
def test_seed_alone_decides(draw: Callable[..., FewShotSplit]) -> None:
    labels = ["a", "b", "b"] * 40
    arguments: tuple[Any, ...] = (labels, 20) if draw is hold_out else (labels, 20, 30)
    draws = {}
    for seed in SEEDS:
        np.random.seed(seed + 1)
        before = np.random.get_state()
        draws[seed] = draw(*arguments, seed)
        after = np.random.get_state()
        np.testing.assert_equal(after, before)
        np.random.seed(0)
        assert draw(*arguments, seed) == draws[seed]
    for part in ("train", "dev"):
        drawn = {frozenset(getattr(d, part)) for d in draws.values()}
        assert len(drawn) == len(SEEDS)


@pytest.mark.parametrize(
    ("draw", "arguments", "where", "given", "allowed"),
    [
        (draw_total, (2, 5), "data.k", "2 training examples of 12 rows with 3 labels", "3"),
        (draw_total, (13, 5), "data.k", "13 training examples of 12 rows", "12"),
        (draw_per_class, (3, 5), "data.k", "the smallest class has 2 rows", "1 to 2"),
        (hold_out, (12,), "data.dev_k", "12 dev rows of the 12 training rows", "1"),
        (hold_out, (1000,), "data.dev_k", "1000 dev rows of the 12 training rows", "1"),
    ],
)
def test_k_that_does_not_fit(
    draw: Callable[..., FewShotSplit],
    arguments: tuple[int, ...],
    where: str,
    given: str,
    expected: str,
) -> None:
    labels = [*"aaaaaa", *"bbbb", *"cc"]
    with pytest.raises(ConfigError) as caught:
        draw(labels, *arguments, 13)
    [problem] = caught.value.problems
    assert problem.where == where
    assert given in problem.given
    assert expected in problem.expected
