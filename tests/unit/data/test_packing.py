"""Packed tokens of random sets: rows gathered from them are what was packed."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch

from lpt.data.packing import PackedTokens, tokenize
from lpt.data.templates import Encoded, Encoder, Template
from tests.support.tokenizers import wordpiece

PAD = 3
random_sets = pytest.mark.parametrize("seed", range(5))
kinds = pytest.mark.parametrize("parts", [0, 2, 5], ids=["masked", "causal", "five labels"])


def random_set(seed: int, parts: int) -> Encoded:
    """2 to 12 examples of 1 to 20 tokens, with label parts of 1 to 6."""
    random = np.random.default_rng((seed, parts))

    def tokens(longest: int) -> list[int]:
        return random.integers(1, 50_000, random.integers(1, longest + 1)).tolist()

    context = [tokens(20) for _ in range(random.integers(2, 13))]
    if parts:
        return Encoded(context, label_parts=[[tokens(6) for _ in range(parts)] for _ in context])
    return Encoded(context, mask_index=[int(random.integers(len(ids))) for ids in context])


def pieces(encoded: Encoded) -> list[list[int]]:
    """Contexts and label parts in the order in which they are packed."""
    if not encoded.label_parts:
        return encoded.context
    pairs = zip(encoded.context, encoded.label_parts, strict=True)
    return [piece for context, parts in pairs for piece in (context, *parts)]


@random_sets
@pytest.mark.parametrize(
    ("parts", "one_part"), [(0, False), (2, False), (2, True), (5, False), (5, True)]
)
def test_rows_are_the_packed_sequences(seed: int, parts: int, one_part: bool) -> None:
    encoded = random_set(seed, parts)
    packed = PackedTokens([encoded], PAD)
    assert (len(packed), packed.num_label_parts) == (len(encoded), parts)
    assert packed.mask_index.tolist() == encoded.mask_index
    random = np.random.default_rng(seed)
    examples = random.integers(len(packed), size=len(packed) + 2).tolist()  # some of them twice
    labels = random.integers(max(parts, 1), size=len(examples)).tolist()
    rows = packed.rows(torch.tensor(examples), torch.tensor(labels) if one_part else None)
    lengths = rows.attention_mask.sum(1)
    assert rows.input_ids.shape[1] == lengths.max()
    assert one_part or torch.equal(lengths, packed.row_lengths()[examples])
    # Real tokens are on the left.
    real = rows.attention_mask.bool()
    assert torch.equal(real, torch.arange(real.shape[1]) < lengths[:, None])
    assert torch.equal(rows.input_ids[real], packed.ids[rows.hidden_index[real]].long())
    assert rows.input_ids[~real].eq(PAD).all()
    assert not rows.hidden_index[~real].any()
    for row, (example, label) in enumerate(zip(examples, labels, strict=True)):
        context = encoded.context[example]
        label_parts = list(enumerate(encoded.label_parts[example], 1)) if parts else []
        label_parts = label_parts[label : label + 1] if one_part else label_parts
        ids = [*context, *chain.from_iterable(part for _, part in label_parts)]
        assert rows.input_ids[row][real[row]].tolist() == ids
        assert (rows.branches is None) == (parts == 0)
        if rows.branches is None:
            continue
        branch_ids, position_ids = [0] * len(context), list(range(len(context)))
        for number, part in label_parts:
            branch_ids += [number] * len(part)
            position_ids += range(len(context), len(context) + len(part))
        padding = [0] * (real.shape[1] - len(ids))
        assert rows.branches.branch_ids[row].tolist() == branch_ids + padding
        assert rows.branches.position_ids[row].tolist() == position_ids + padding


@random_sets
@pytest.mark.parametrize("parts", [2, 5])
def test_row_lengths_with_one_label_part(seed: int, parts: int) -> None:
    packed = PackedTokens([random_set(seed, parts)], PAD)
    every = torch.arange(len(packed))
    labels = torch.from_numpy(np.random.default_rng(seed).integers(parts, size=len(packed)))
    lengths = packed.rows(every, labels).attention_mask.sum(1)
    assert torch.equal(packed.row_lengths(labels), lengths)
    assert packed.row_lengths().sum() == packed.num_tokens == packed.lengths.sum()


@random_sets
@kinds
def test_digest_depends_on_every_token_and_on_where_sequences_end(seed: int, parts: int) -> None:
    """A token that moves to the next example or label part leaves the flat array as it was."""

    def digest(encoded: Encoded) -> str:
        return PackedTokens([encoded], PAD).digest()

    digests = [digest(random_set(seed, parts))]
    assert digests[0] == digest(random_set(seed, parts))
    for number, piece in enumerate(pieces(random_set(seed, parts))):
        for position in range(len(piece)):
            changed = random_set(seed, parts)
            pieces(changed)[number][position] += 1
            digests.append(digest(changed))
        if number:
            moved = random_set(seed, parts)
            before, after = pieces(moved)[number - 1 : number + 1]
            after.insert(0, before.pop())
            digests.append(digest(moved))
    assert len({*digests}) == len(digests)


@kinds
def test_batches_are_packed_as_one(parts: int) -> None:
    one, other = random_set(0, parts), random_set(1, parts)
    one.truncated, other.truncated = 1, 2
    context, mask_index = one.context + other.context, one.mask_index + other.mask_index
    both = Encoded(context, mask_index, one.label_parts + other.label_parts, truncated=3)
    packed, expected = PackedTokens(iter([one, other]), PAD), PackedTokens([both], PAD)
    assert vars(packed).keys() == vars(expected).keys()
    for name, value in vars(expected).items():
        assert np.array_equal(getattr(packed, name), value), name


def test_large_sets_are_tokenized_in_batches() -> None:
    template = Template.parse("{text} It was <mask> .", "masked")
    encoder = Encoder(wordpiece(), template, ["good", "bad"], 12)
    texts = [f"{'the film was good ' * (i % 5)}{i}" for i in range(2500)]
    packed = tokenize(encoder, {"text": texts, "unused": [""] * 2500})
    assert packed.digest() == PackedTokens([encoder.encode({"text": texts})], 0).digest()
    assert packed.truncated > 0
