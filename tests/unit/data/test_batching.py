"""Which examples go together, and how they become tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from lpt.data.batching import Collator, TrainBatchSampler, eval_batches
from lpt.data.packing import PackedTokens
from lpt.data.templates import Encoded
from lpt.models.inputs import IGNORE_INDEX, Batch
from tests.support.tokenizers import encoder_named, tokenizer_named

Shape = tuple[int, int, int, list[int] | None]  # examples, batch size, ranks, lengths
LENGTHS = [5 + 37 * i % 50 for i in range(200)]


def flat(batches: Iterable[Iterable[int]]) -> list[int]:
    return [*chain.from_iterable(batches)]


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    ranks = draw(st.integers(1, 4))
    size = draw(st.integers(ranks, 400))
    lengths = st.lists(st.integers(1, 50), min_size=size, max_size=size)
    return size, draw(st.integers(1, 40)), ranks, draw(st.none() | lengths)


def samplers(
    shape: Shape, consumed: int = 0, batches: int | None = None
) -> list[TrainBatchSampler]:
    """The sampler of each rank."""
    size, batch_size, ranks, lengths = shape
    settings: dict[str, Any] = {"lengths": lengths, "num_batches": batches, "world_size": ranks}
    return [
        TrainBatchSampler(size, batch_size, 13, consumed_batches=consumed, rank=rank, **settings)
        for rank in range(ranks)
    ]


def steps(ranks: Sequence[TrainBatchSampler]) -> list[tuple[list[int], ...]]:
    """The batches of all ranks, step by step."""
    return list(zip(*ranks, strict=True))


@example((7, 3, 2, None))
@example((9, 2, 4, list(range(1, 10))))
@given(shapes())
def test_a_pass_visits_each_example_once(shape: Shape) -> None:
    size, batch_size, ranks, _ = shape
    every = samplers(shape)
    tail = size % (batch_size * ranks)
    for _ in range(2):
        batches = steps(every)
        assert {len(sampler) for sampler in every} == {len(batches)}
        *full, last = batches
        if 0 < tail < ranks:  # every rank takes all of it
            assert last == (last[0],) * ranks
            last = last[:1]
        assert sorted(flat(chain(*full, last))) == list(range(size))
        assert {len(share) for step in full for share in step} <= {batch_size}
        sizes = [len(share) for share in last]
        assert 0 < min(sizes) <= max(sizes) <= min(batch_size * ranks, min(sizes) + 1)


@given(shapes(), st.data())
def test_resuming_at_any_batch_continues_the_order(shape: Shape, data: st.DataObject) -> None:
    per_pass = len(samplers(shape)[0])
    batches = data.draw(st.none() | st.integers(1, 2 * per_pass + 3))
    length = batches or per_pass
    consumed = data.draw(st.integers(0, 2 * length))
    whole, resumed = samplers(shape, 0, batches), samplers(shape, consumed, batches)
    expected = [step for _ in range(3) for step in steps(whole)]
    found = steps(resumed)  # to the end of the interrupted iteration
    found += [step for _ in range(2 - consumed // length) for step in steps(resumed)]
    assert found == expected[consumed:]


@example((10, 4, 1, None), 3, None)
@given(shapes(), st.integers(1, 5), st.none() | st.integers(1, 30))
def test_accumulated_sizes_are_those_of_the_batches(
    shape: Shape, window: int, batches: int | None
) -> None:
    """Also across the end of a pass; a window ends with the iteration."""
    size, batch_size, ranks, _ = shape
    [sampler] = samplers((size, batch_size * ranks, 1, None), batches=batches)
    length = len(sampler)
    several = samplers(shape, batches=batches)
    for start in (0, length):  # two iterations
        sizes = [len(batch) for batch in sampler]
        for index in range(length):
            first = index - index % window
            for rank in several:
                found = rank.accumulated_sizes(start + index, window)
                assert found == sizes[first : first + window]


@example((8, 2, 2, list(range(1, 9))))
@given(shapes())
def test_ranks_share_each_global_batch(shape: Shape) -> None:
    """W ranks with batches of b see what one rank with batches of W*b sees."""
    size, batch_size, ranks, lengths = shape
    [one] = samplers((size, batch_size * ranks, 1, lengths))
    assert [{*flat(step)} for step in steps(samplers(shape))] == [{*batch} for batch in one]


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_order_is_seeded_and_new_in_each_pass(lengths: list[int] | None) -> None:
    def batches(seed: int) -> list[list[int]]:
        return list(TrainBatchSampler(200, 8, seed, lengths=lengths, num_batches=50))

    first, second = batches(13)[:25], batches(13)[25:]
    assert sorted(map(sorted, first)) != sorted(map(sorted, second))  # batches differ as well
    assert flat(first) != list(range(200))
    assert batches(14)[:25] != first


def test_grouping_by_length_saves_padding() -> None:
    def width(batches: list[list[int]]) -> int:
        return sum(len(batch) * max(LENGTHS[i] for i in batch) for batch in batches)

    grouped = list(TrainBatchSampler(200, 8, 13, lengths=LENGTHS))
    assert sum(LENGTHS) <= width(grouped) < 0.8 * width(list(TrainBatchSampler(200, 8, 13)))
    totals = [sum(LENGTHS[i] for i in batch) for batch in grouped]
    assert totals != sorted(totals)  # short examples do not come first


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
    for batch in chain(*shares):
        assert len({*batch}) == len(batch) <= batch_size
        assert [lengths[i] for i in batch] == sorted(lengths[i] for i in batch)


WORD_IDS = [11, 12, 13]
TEXTS = ["a good film", "", "the food was great and the room was bad", "no", "people", "x y z"]
LABELS = [2, 0, 1, 1, 0, 2]
ROW_IDS = [40, 7, 13, 2, 99, 0]
PAD = 0
some_examples = pytest.mark.parametrize(
    "examples", [[0, 1, 2, 3, 4, 5], [2, 0], [1], [5, 3, 5]], ids=str
)


def encode(template: str) -> Encoded:
    tokenizer = "wordpiece" if "<mask>" in template else "causal"
    return encoder_named(tokenizer, template, ("great", "bad", "terrible")).encode({"text": TEXTS})


def collate(encoded: Encoded, examples: list[int], score_all: bool) -> Batch:
    packed = PackedTokens([encoded], PAD)
    batch = Collator(packed, LABELS, ROW_IDS, WORD_IDS, score_all=score_all)(examples)
    tensors = [*batch, *(batch.branches or ())]
    assert {t.dtype for t in tensors if isinstance(t, torch.Tensor)} == {torch.long}
    assert batch.row_ids.tolist() == [ROW_IDS[i] for i in examples]
    assert batch.labels.tolist() == [LABELS[i] for i in examples]
    return batch


def real_tokens(batch: Batch) -> list[list[int]]:
    lengths = batch.attention_mask.sum(1).tolist()
    return [ids[:n].tolist() for ids, n in zip(batch.input_ids, lengths, strict=True)]


@some_examples
def test_masked_batch(examples: list[int]) -> None:
    encoded = encode("{text} It was <mask> .")
    batch = collate(encoded, examples, score_all=True)
    rows = real_tokens(batch)
    assert rows == [encoded.context[i] for i in examples]
    assert batch.logit_rows.tolist() == list(range(len(examples)))
    at_mask = batch.input_ids[batch.logit_rows, batch.logit_positions]
    assert set(at_mask.tolist()) == {tokenizer_named("wordpiece").mask_token_id}
    assert batch.targets.tolist() == [WORD_IDS[LABELS[i]] for i in examples]
    assert batch.summary_index.tolist() == [0] * len(examples)
    assert batch.pool_length.tolist() == list(map(len, rows))


def test_unknown_labels_and_numbers_are_no_targets() -> None:
    """Of a masked model; a causal one scores every label part anyway."""

    def batch(template: str, labels: list[Any]) -> Batch:
        packed = PackedTokens([encode(template)], PAD)
        return Collator(packed, labels, ROW_IDS, WORD_IDS, score_all=True)([2, 0, 1])

    unknown, numbers = [-1, 1, -1, 0, 0, 0], [4.75, -1, 1.2, 0, 0, 0]
    masked, causal = "{text} <mask>", "{text} {word}"
    assert batch(masked, unknown).labels.tolist() == [-1, -1, 1]
    assert batch(masked, unknown).targets.tolist() == [IGNORE_INDEX, IGNORE_INDEX, WORD_IDS[1]]
    assert torch.equal(batch(masked, numbers).labels, torch.tensor([1.2, 4.75, -1]))
    assert batch(masked, numbers).targets.tolist() == [IGNORE_INDEX] * 3
    for labels in (unknown, numbers):
        assert set(batch(causal, labels).sequences.tolist()) == set(range(9))


@some_examples
@pytest.mark.parametrize("score_all", [True, False])
@pytest.mark.parametrize("template", ["{text} It was {word} .", "{word} : {text}"])
def test_causal_batch(examples: list[int], score_all: bool, template: str) -> None:
    encoded = encode(template)
    batch = collate(encoded, examples, score_all)
    assert (batch.branches is None) != score_all
    rows = real_tokens(batch)
    sequence = 0
    for row, i in enumerate(examples):
        context, parts = encoded.context[i], encoded.label_parts[i]
        parts = parts if score_all else [parts[LABELS[i]]]
        assert rows[row] == [*context, *flat(parts)]
        assert batch.summary_index[row] == len(context) - 1
        # A pooling generator reads what comes before the last context token, or that token.
        assert batch.pool_length[row] == max(len(context) - 1, 1)
        start = len(context)
        for part in parts:
            chosen = batch.sequences == sequence
            logits = batch.target_to_logit[chosen]
            assert batch.logit_rows[logits].tolist() == [row] * len(part)
            assert batch.targets[chosen].tolist() == part
            # Each token of a label part is predicted by the one before it in its sequence.
            columns = range(start, start + len(part))
            assert batch.logit_positions[logits].tolist() == [len(context) - 1, *columns[:-1]]
            start += len(part)
            sequence += 1
    assert len(batch.target_to_logit) == len(batch.targets) == len(batch.sequences)
    positions = list(zip(batch.logit_rows.tolist(), batch.logit_positions.tolist(), strict=True))
    assert len(positions) == len({*positions})
    assert batch.sequences.unique().tolist() == list(range(sequence))
