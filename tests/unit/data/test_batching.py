from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from lpt.data.batching import Collator, ShuffledBatches, eval_batches
from lpt.data.datamodule import LatePromptData
from lpt.data.packing import PackedTokens
from lpt.data.splits import Splits
from lpt.data.tasks import Examples
from lpt.data.templates import Encoded, Encoder, Template
from lpt.methods.late_prompt import IGNORED, Batch
from tests.support.tokenizers import causal, wordpiece

TEMPLATES = {"masked": "{text} It was <mask> .", "causal": "{text} It was {word} ."}
WORDS = ["great", "bad", "terrible"]
TEXTS = ["a good film", "", "the food was great and the room was bad", "no", "people", "x y z"]
LABELS = [2, 0, 1, 1, 0, 2]
INDEX = [40, 7, 13, 2, 99, 0]
PAD = 0


def encoder(kind: str, template: str | None = None) -> Encoder:
    tokenizer: PreTrainedTokenizerFast = wordpiece() if kind == "masked" else causal()
    parsed = Template.parse(template or TEMPLATES[kind], "masked" if kind == "masked" else "causal")
    return Encoder(tokenizer, parsed, WORDS, 64)


def flat(batches: Iterable[list[int]]) -> list[int]:
    return [*chain.from_iterable(batches)]


# Which examples go together


def shuffled(size: int, batch_size: int, seed: int = 13, **more: Any) -> list[list[int]]:
    sampler = ShuffledBatches(size, batch_size, seed, **more)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    return batches


LENGTHS = [5 + 37 * i % 50 for i in range(200)]
by_length = pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["plain", "by length"])


@by_length
@pytest.mark.parametrize(("size", "batch_size"), [(10, 4), (12, 4), (3, 8), (7, 1), (200, 4)])
def test_each_pass_visits_each_example_once(
    size: int, batch_size: int, lengths: list[int] | None
) -> None:
    sampler = ShuffledBatches(size, batch_size, 13, lengths=lengths and lengths[:size])
    for _ in range(3):
        batches = list(sampler)
        assert len(batches) == len(sampler) == -(-size // batch_size)
        assert {len(batch) for batch in batches[:-1]} <= {batch_size}
        assert sorted(flat(batches)) == list(range(size))


@by_length
def test_order_is_seeded_and_new_in_each_pass(lengths: list[int] | None) -> None:
    sampler = ShuffledBatches(200, 8, 13, lengths=lengths)
    first, second = list(sampler), list(sampler)
    assert sorted(map(sorted, first)) != sorted(map(sorted, second))  # other batches, too
    assert flat(first) != list(range(200))
    assert shuffled(200, 8, lengths=lengths) == first
    assert shuffled(200, 8, seed=14, lengths=lengths) != first


def test_batches_of_like_length_hold_less_padding() -> None:
    def width(batches: list[list[int]]) -> int:
        return sum(len(batch) * max(LENGTHS[i] for i in batch) for batch in batches)

    bucketed = shuffled(200, 8, lengths=LENGTHS)
    assert sum(LENGTHS) <= width(bucketed) < 0.8 * width(shuffled(200, 8))
    means = [sum(LENGTHS[i] for i in batch) for batch in bucketed]
    assert means != sorted(means)  # short ones do not come first


@pytest.mark.parametrize("batches", [1, 3, 7, 20])
def test_a_number_of_batches_spans_passes(batches: int) -> None:
    """10 examples in batches of 4 are 3 batches a pass."""
    given = shuffled(10, 4, batches=batches)
    assert len(given) == batches
    for start in range(0, batches - batches % 3, 3):
        assert sorted(flat(given[start : start + 3])) == list(range(10))
    sampler = ShuffledBatches(10, 4, 13)
    assert given == [batch for _ in range(7) for batch in sampler][:batches]


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("size", [24, 25, 26, 29])
@pytest.mark.parametrize("batches", [None, 9])
@by_length
def test_ranks_share_each_global_batch(
    size: int, world_size: int, batches: int | None, lengths: list[int] | None
) -> None:
    more: dict[str, Any] = {"batches": batches, "lengths": lengths and lengths[:size]}
    shares = [
        shuffled(size, 4, rank=rank, world_size=world_size, **more) for rank in range(world_size)
    ]
    steps = list(zip(*shares, strict=True))  # the same number of batches on every rank
    whole = shuffled(size, 4 * world_size, **more)
    assert len(steps) == len(whole)
    for step, batch in zip(steps, whole, strict=True):
        sizes = [len(share) for share in step]
        assert min(sizes) > 0
        assert max(sizes) - min(sizes) <= 1
        if len(batch) < world_size:  # too few to go round: everyone has all
            assert list(step) == [batch] * world_size
        else:
            assert sorted(flat(list(step))) == sorted(batch)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize(("size", "batch_size"), [(7, 2), (12, 4), (1, 8), (9, 3)])
def test_evaluation_sees_each_example(size: int, batch_size: int, world_size: int) -> None:
    lengths = [1 + 7 * i % 5 for i in range(size)]
    ranks = [eval_batches(lengths, batch_size, rank, world_size) for rank in range(world_size)]
    batches = [batch for rank in ranks for batch in rank]
    assert set(flat(batches)) == set(range(size))
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    # Ranks get equally many batches; only what that takes is repeated.
    assert {len(rank) for rank in ranks} == {math.ceil(size / batch_size / world_size)}
    if world_size == 1:
        assert len(flat(batches)) == size


def test_evaluation_batches_are_of_like_length() -> None:
    lengths = [7 * i % 20 for i in range(20)]
    found = [sorted(lengths[i] for i in batch) for batch in eval_batches(lengths, 5)]
    assert sorted(found) == [[*range(start, start + 5)] for start in (0, 5, 10, 15)]


# How they become tensors


def collate(encoded: Encoded, examples: list[int], score_all: bool = True) -> Batch:
    word_ids = [11, 12, 13]
    packed = PackedTokens(encoded, PAD)
    collator = Collator(packed, LABELS, INDEX, word_ids, score_all=score_all)
    batch = collator(examples)
    tensors = [*batch, *(batch.branches or ())]
    assert {t.dtype for t in tensors if isinstance(t, torch.Tensor)} == {torch.long}
    assert batch.row_ids.tolist() == [INDEX[i] for i in examples]
    assert batch.labels.tolist() == [LABELS[i] for i in examples]
    return batch


def real_tokens(batch: Batch) -> list[list[int]]:
    """The tokens of each row; padding is on the right, masked, and no wider than it must be."""
    lengths = batch.attention_mask.sum(1).tolist()
    assert max(lengths) == batch.input_ids.shape[1] == batch.attention_mask.shape[1]
    for ids, mask, length in zip(batch.input_ids, batch.attention_mask, lengths, strict=True):
        assert mask.tolist() == [1] * length + [0] * (len(mask) - length)
        assert set(ids[length:].tolist()) <= {PAD}
    return [ids[:n].tolist() for ids, n in zip(batch.input_ids, lengths, strict=True)]


EXAMPLES = [[0, 1, 2, 3, 4, 5], [2, 0], [1], [5, 3, 5]]


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("score_all", [True, False])
def test_masked_batch(examples: list[int], score_all: bool) -> None:
    used = encoder("masked")
    encoded = used.encode({"text": TEXTS})
    batch = collate(encoded, examples, score_all)
    rows = real_tokens(batch)
    assert rows == [encoded.context[i] for i in examples]
    assert batch.rows.tolist() == list(range(len(examples)))
    at_mask = batch.input_ids[batch.rows, batch.positions]
    assert set(at_mask.tolist()) == {used.tokenizer.mask_token_id}
    assert batch.targets.tolist() == [[11, 12, 13][LABELS[i]] for i in examples]
    assert batch.summary_index.tolist() == [0] * len(examples)
    assert batch.pool_length.tolist() == list(map(len, rows))


def test_unknown_label_of_a_masked_example_is_no_target() -> None:
    encoded = encoder("masked").encode({"text": TEXTS[:3]})
    batch = Collator(
        PackedTokens(encoded, PAD), [-1, 1, -1], [0, 1, 2], [11, 12, 13], score_all=True
    )([0, 1, 2])
    assert batch.targets.tolist() == [-100, 12, -100]
    assert batch.labels.tolist() == [-1, 1, -1]


@pytest.mark.parametrize("kind", ["masked", "causal"])
@pytest.mark.parametrize("numbers", [[0.0, 2.5, 5.0], [4.75, -1, 1.2]])
def test_numbers_are_no_targets(kind: str, numbers: list[float]) -> None:
    """They are shares of both words; the batch is otherwise that of unknown labels."""
    packed = PackedTokens(encoder(kind).encode({"text": TEXTS[:3]}), PAD)

    def batch(labels: list[Any]) -> Batch:
        return Collator(packed, labels, [3, 4, 5], [11, 12, 13], score_all=True)([2, 0, 1])

    found, unknown = batch(numbers), batch([-1, -1, -1])
    assert found.labels.dtype == torch.float32
    assert found.labels.tolist() == torch.tensor([numbers[i] for i in (2, 0, 1)]).tolist()
    assert found.row_ids.tolist() == [5, 3, 4]
    assert torch.equal(found.targets, unknown.targets)
    if kind == "masked":
        assert found.targets.tolist() == [IGNORED] * 3
    for name in ("input_ids", "rows", "positions", "scored", "sequences", "pool_length"):
        assert torch.equal(getattr(found, name), getattr(unknown, name)), name


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("score_all", [True, False])
@pytest.mark.parametrize("template", [TEMPLATES["causal"], "{word} : {text}"])
def test_causal_batch(examples: list[int], score_all: bool, template: str) -> None:
    encoded = encoder("causal", template).encode({"text": TEXTS})
    batch = collate(encoded, examples, score_all)
    assert (batch.branches is None) != score_all
    rows = real_tokens(batch)
    sequence = 0
    for row, i in enumerate(examples):
        context = encoded.context[i]
        endings = encoded.endings[i] if score_all else [encoded.endings[i][LABELS[i]]]
        assert rows[row] == [*context, *flat(endings)]
        assert batch.summary_index[row] == len(context) - 1
        # A pooling generator reads what comes before the last context token, or that token.
        assert batch.pool_length[row] == max(len(context) - 1, 1)
        start = len(context)
        for number, ending in enumerate(endings, 1):
            chosen = batch.sequences == sequence
            scored = batch.scored[chosen]
            assert batch.rows[scored].tolist() == [row] * len(ending)
            assert batch.targets[chosen].tolist() == ending
            # Each token of a label part is predicted by the one before it in its sequence.
            places = list(range(start, start + len(ending)))
            assert batch.positions[scored].tolist() == [len(context) - 1, *places[:-1]]
            if batch.branches is not None:
                assert batch.branches.branch[row, places].tolist() == [number] * len(ending)
                inside = range(len(context), len(context) + len(ending))
                assert batch.branches.positions[row, places].tolist() == list(inside)
            start += len(ending)
            sequence += 1
        if batch.branches is not None:
            assert not batch.branches.branch[row, : len(context)].any()
            assert not batch.branches.branch[row, start:].any()
            assert batch.branches.positions[row, : len(context)].tolist() == list(
                range(len(context))
            )
    assert len(batch.scored) == len(batch.targets) == len(batch.sequences)
    places = set(zip(batch.rows.tolist(), batch.positions.tolist(), strict=True))
    assert len(batch.rows) == len(batch.positions) == len(places)
    assert batch.sequences.unique().tolist() == list(range(sequence))


def test_unlabelled_causal_examples_are_scored_for_every_label() -> None:
    encoded = encoder("causal").encode({"text": TEXTS[:2]})
    batch = Collator(PackedTokens(encoded, PAD), [-1, -1], [0, 1], [11, 12, 13], score_all=True)(
        [0, 1]
    )
    assert set(batch.sequences.tolist()) == set(range(2 * len(WORDS)))
    assert batch.labels.tolist() == [-1, -1]


FIRST = {"train": "good", "dev": "bad", "test": "great"}  # word of every text of a split


@pytest.mark.parametrize("kind", ["masked", "causal"])
@pytest.mark.parametrize("score_all_labels", [True, False])
def test_data_module(kind: str, score_all_labels: bool) -> None:
    parts = {
        name: Examples({"text": [f"{FIRST[name]} {t}" for t in TEXTS]}, LABELS, INDEX)
        for name in FIRST
    }
    used = encoder(kind)
    extra = {"more": Examples({"text": [f"terrible {t}" for t in TEXTS[:3]]}, [-1] * 3, [8, 6, 7])}
    data = LatePromptData(
        Splits(**parts, origin={}, extra=extra),
        used,
        word_ids=[11, 12, 13],
        batch_size=4,
        eval_batch_size=5,
        seed=13,
        train_batches=5,
        score_all_labels=score_all_labels,
    )
    loaders = {"train": data.train_dataloader()}
    loaders |= {"dev": data.val_dataloader(), "test": data.test_dataloader()}
    data.test_set = "more"
    loaders["more"] = data.test_dataloader()
    first = {**FIRST, "more": "terrible"}
    for name, loader in loaders.items():
        batches: list[Batch] = list(loader)
        assert len(batches) == len(loader)
        seen = Counter(i for batch in batches for i in batch.row_ids.tolist())
        assert set(seen) == set({**parts, **extra}[name].row_ids)
        if name == "train":  # two batches a pass
            assert len(batches) == 5
            assert set(seen.values()) == {2, 3}
        else:
            assert set(seen.values()) == {1}
        every_label = kind == "causal" and (name != "train" or score_all_labels)
        for batch in batches:
            assert len(batch.input_ids) == len(batch.row_ids)
            assert (batch.branches is not None) == every_label
            texts = used.tokenizer.batch_decode(batch.input_ids, skip_special_tokens=True)
            assert all(text.strip().startswith(first[name]) for text in texts)
