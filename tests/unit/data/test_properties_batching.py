"""Every example is visited, on each rank its share, after a stop as without one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain, islice

import torch
from hypothesis import example, given
from hypothesis import strategies as st

from lpt.data.batching import ShuffledBatches, eval_batches
from lpt.data.packing import PackedTokens
from lpt.data.templates import Encoded

Shape = tuple[int, int, int, list[int] | None]  # examples, batch size, ranks, lengths


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    ranks = draw(st.integers(1, 4))
    size = draw(st.integers(ranks, 400))
    length = st.lists(st.integers(1, 50), min_size=size, max_size=size)
    return size, draw(st.integers(1, 40)), ranks, draw(st.none() | length)


def of_ranks(shape: Shape, start: int = 0, batches: int | None = None) -> list[ShuffledBatches]:
    size, batch_size, ranks, lengths = shape
    return [
        ShuffledBatches(
            size,
            batch_size,
            13,
            lengths=lengths,
            batches=batches,
            start=start,
            rank=rank,
            world_size=ranks,
        )
        for rank in range(ranks)
    ]


def steps_of(samplers: Sequence[ShuffledBatches]) -> list[tuple[list[int], ...]]:
    """The batches of all ranks, step by step."""
    return list(zip(*samplers, strict=True))


@example((7, 3, 2, None))
@example((9, 2, 4, list(range(1, 10))))
@given(shapes())
def test_a_pass_visits_each_example_once(shape: Shape) -> None:
    size, batch_size, ranks, _ = shape
    samplers = of_ranks(shape)
    short = 0 < (tail := size % (batch_size * ranks)) < ranks  # then each rank takes all of it
    for _ in range(2):
        steps = steps_of(samplers)
        assert {len(sampler) for sampler in samplers} == {len(steps)}
        *_, last = steps
        if short:
            assert all(share == last[0] for share in last)
            assert len(last[0]) == tail
            steps[-1] = last[:1]
        seen = [i for step in steps for share in step for i in share]
        assert sorted(seen) == list(range(size))
        sizes = [[len(share) for share in step] for step in steps]
        assert all(of == [batch_size] * ranks for of in sizes[:-1])
        assert short or 0 < min(sizes[-1]) <= max(sizes[-1]) <= min(batch_size, min(sizes[-1]) + 1)


@given(shapes(), st.data())
def test_going_on_at_any_batch_is_as_if_never_stopped(shape: Shape, data: st.DataObject) -> None:
    a_pass = len(of_ranks(shape)[0])
    batches = data.draw(st.none() | st.integers(1, 2 * a_pass + 3))
    length = batches or a_pass
    start = data.draw(st.integers(0, 2 * length))
    whole = of_ranks(shape, batches=batches)
    later = of_ranks(shape, start, batches)
    uninterrupted = [step for _ in range(3) for step in steps_of(whole)]
    gone_on = steps_of(later)  # to the end of the iteration that was broken off
    gone_on += [step for _ in range(2 - start // length) for step in steps_of(later)]
    assert gone_on == uninterrupted[start:]


@given(shapes(), st.data())
def test_batches_that_were_given_are_counted(shape: Shape, data: st.DataObject) -> None:
    """A sampler that is left in the middle of an iteration goes on from there."""
    sampler = of_ranks(shape)[0]
    taken = data.draw(st.integers(1, len(sampler)))
    first = list(islice(sampler, taken))
    rest = list(sampler) if taken < len(sampler) else []
    assert first + rest == list(of_ranks(shape)[0])


@example((8, 2, 2, list(range(1, 9))))
@given(shapes())
def test_ranks_together_see_the_batches_of_one(shape: Shape) -> None:
    """W ranks with b examples see what one rank with W*b sees."""
    size, batch_size, ranks, lengths = shape
    [one] = of_ranks((size, batch_size * ranks, 1, lengths))
    alone = list(one)
    together = [{*chain.from_iterable(step)} for step in steps_of(of_ranks(shape))]
    assert together == [{*batch} for batch in alone]


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=100), st.integers(1, 40), st.integers(1, 5)
)
def test_evaluation_visits_each_example(lengths: list[int], batch_size: int, ranks: int) -> None:
    shares = [eval_batches(lengths, batch_size, rank, ranks) for rank in range(ranks)]
    assert len({len(share) for share in shares}) == 1
    seen = Counter(i for share in shares for batch in share for i in batch)
    assert {*seen} == set(range(len(lengths)))
    repeated = len(shares[0]) * ranks - -(-len(lengths) // batch_size)
    assert 0 <= repeated < ranks
    assert max(seen.values()) <= 1 + repeated
    for share in shares:
        for batch in share:
            assert len({*batch}) == len(batch) <= batch_size
            assert [lengths[i] for i in batch] == sorted(lengths[i] for i in batch)


tokens = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=6)


@st.composite
def encoded_sets(draw: st.DrawFn) -> Encoded:
    context = draw(st.lists(tokens, min_size=1, max_size=6))
    parts = draw(st.integers(0, 3))
    if not parts:
        return Encoded(context, mask_at=[draw(st.integers(0, len(of) - 1)) for of in context])
    part = st.lists(tokens, min_size=parts, max_size=parts)
    return Encoded(context, endings=[draw(part) for _ in context])


@given(encoded_sets(), st.data(), st.integers(0, 9))
def test_rows_are_the_pieces_that_were_packed(
    encoded: Encoded, data: st.DataObject, pad: int
) -> None:
    packed = PackedTokens(encoded, pad)
    every = range(len(encoded))
    chosen = data.draw(st.lists(st.sampled_from(every), min_size=1, max_size=8))
    endings = encoded.endings or [[] for _ in every]
    whole = [[*encoded.context[i], *chain.from_iterable(endings[i])] for i in chosen]
    check(packed, packed.rows(torch.tensor(chosen)).ids, whole, pad)
    assert packed.row_lengths()[chosen].tolist() == [len(ids) for ids in whole]
    assert packed.mask_at.tolist() == encoded.mask_at
    if encoded.endings:
        numbers = st.integers(0, packed.parts - 1)
        labels = [data.draw(numbers) for _ in chosen]
        pairs = zip(chosen, labels, strict=True)
        one = [[*encoded.context[i], *endings[i][label]] for i, label in pairs]
        rows = packed.rows(torch.tensor(chosen), torch.tensor(labels))
        check(packed, rows.ids, one, pad)
        assert rows.mask.sum(1).tolist() == [len(ids) for ids in one]


def check(packed: PackedTokens, rows: torch.Tensor, expected: list[list[int]], pad: int) -> None:
    width = max(map(len, expected))
    assert rows.tolist() == [[*ids, *[pad] * (width - len(ids))] for ids in expected]
    assert packed.tokens == packed.lengths.sum()
