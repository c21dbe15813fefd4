"""Packed tokens of random sets: rows gathered from them are what was packed."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch

from lpt.data.packing import PackedTokens, tokenize
from lpt.data.templates import Encoded
from tests.support.tokenizers import encoder_named, kind_of

PAD = 3
random_sets = pytest.mark.parametrize("seed", range(5))


def random_set(seed: int, parts: int) -> Encoded:
    """2 to 12 examples of 1 to 20 tokens, with label parts of 1 to 6."""
    random = np.random.default_rng((seed, parts))

    def tokens(longest: int) -> list[int]:
        return random.integers(1, 50_000, random.integers(1, longest + 1)).tolist()

    context = [tokens(20) for _ in range(random.integers(2, 13))]
    if parts:
        return Encoded(context, label_parts=[[tokens(6) for _ in range(parts)] for _ in context])
    return Encoded(context, mask_index=[int(random.integers(len(ids))) for ids in context])


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
    label_of = torch.from_numpy(random.integers(max(parts, 1), size=len(packed)))
    labels = label_of[examples]
    rows = packed.rows(torch.tensor(examples), labels if one_part else None)
    lengths = rows.attention_mask.sum(1)
    assert rows.input_ids.shape[1] == lengths.max()
    assert torch.equal(lengths, packed.row_lengths(label_of if one_part else None)[examples])
    assert packed.row_lengths().sum() == packed.num_tokens
    # Real tokens are on the left.
    real = rows.attention_mask.bool()
    assert torch.equal(real, torch.arange(real.shape[1]) < lengths[:, None])
    assert torch.equal(rows.input_ids[real], packed.ids[rows.hidden_index[real]].long())
    assert rows.input_ids[~real].eq(PAD).all()
    assert not rows.hidden_index[~real].any()
    for row, (example, label) in enumerate(zip(examples, labels.tolist(), strict=True)):
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


def test_digest_depends_on_every_token_and_on_where_sequences_end() -> None:
    """A token that moves to the next example or label part leaves the flat array as it was."""

    def digest(*context: list[int], label_parts: list[list[list[int]]] | None = None) -> str:
        masks = [] if label_parts else [0] * len(context)
        return PackedTokens([Encoded([*context], masks, label_parts or [])], PAD).digest()

    digests = [
        *(digest([1, 2], [3, 4]), digest([1], [2, 3, 4]), digest([1, 2, 3, 4])),
        *(digest([9, 2], [3, 4]), digest([1, 2], [9, 4]), digest([1, 2], [3, 9])),
        *(digest([1, 2], label_parts=[parts]) for parts in ([[3], [4]], [[3, 4]], [[3], [9]])),
        *(digest([1], label_parts=[parts]) for parts in ([[2, 3], [4]], [[2], [3, 4]])),
    ]
    assert len({*digests}) == len(digests)
    # Entries of the hidden-state cache are found by it: they stay valid.
    assert digests[0] == "1ee10b1fb53aab6c785e982172daad644235b2353b622efb5a8fa04e5aebf190"


@pytest.mark.parametrize("name", ["wordpiece", "causal"])
def test_sets_are_tokenized_in_batches(name: str) -> None:
    answer = "<mask>" if kind_of(name) == "masked" else "{word}"
    encoder = encoder_named(name, f"{{text}} It was {answer} .", max_length=12)
    texts = [f"{'the film was good ' * (i % 5)}{i}" for i in range(2500)]
    packed = tokenize(encoder, {"text": texts, "unused": [""] * len(texts)})
    expected = PackedTokens([encoder.encode({"text": texts})], encoder.pad_id)
    assert packed.truncated > 0
    assert vars(packed).keys() == vars(expected).keys()
    for attribute, value in vars(expected).items():
        assert np.array_equal(getattr(packed, attribute), value), attribute
