"""The packed tokens of random sets: whatever is cut out of them is what was put in."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch

from lpt.data.packing import PackedTokens
from lpt.data.templates import Encoded

PAD = 0
random_sets = pytest.mark.parametrize("seed", range(5))
kinds = pytest.mark.parametrize("parts", [0, 2, 5], ids=["masked", "causal", "five labels"])


def random_set(seed: int, parts: int) -> Encoded:
    """2 to 12 examples of 1 to 20 tokens, with label parts of 1 to 6."""
    random = np.random.default_rng((seed, parts))

    def tokens(longest: int) -> list[int]:
        return random.integers(1, 50_000, random.integers(1, longest + 1)).tolist()

    context = [tokens(20) for _ in range(random.integers(2, 13))]
    if parts:
        return Encoded(context, endings=[[tokens(6) for _ in range(parts)] for _ in context])
    return Encoded(context, mask_at=[int(random.integers(len(ids))) for ids in context])


def chosen(seed: int, size: int) -> list[int]:
    """Some of the examples in any order, some of them twice."""
    return np.random.default_rng(seed).integers(size, size=size + 2).tolist()


@random_sets
@kinds
def test_rows_hold_all_label_parts_side_by_side(seed: int, parts: int) -> None:
    encoded = random_set(seed, parts)
    packed = PackedTokens(encoded, PAD)
    assert (len(packed), packed.parts) == (len(encoded.context), parts)
    examples = chosen(seed, len(packed))
    rows = packed.rows(torch.tensor(examples))
    for row, example in enumerate(examples):
        context = encoded.context[example]
        endings = encoded.endings[example] if parts else []
        real = rows.mask[row].bool()
        assert rows.ids[row][real].tolist() == [*context, *chain.from_iterable(endings)]
        branch = [0] * len(context)
        positions = list(range(len(context)))
        for number, ending in enumerate(endings, 1):
            branch += [number] * len(ending)
            positions += range(len(context), len(context) + len(ending))
        assert rows.branch[row][real].tolist() == branch
        assert rows.positions[row][real].tolist() == positions


@random_sets
@pytest.mark.parametrize("parts", [2, 5])
def test_rows_with_one_label_part_are_context_and_ending(seed: int, parts: int) -> None:
    encoded = random_set(seed, parts)
    packed = PackedTokens(encoded, PAD)
    examples = chosen(seed, len(packed))
    labels = np.random.default_rng(seed).integers(parts, size=len(examples)).tolist()
    rows = packed.rows(torch.tensor(examples), torch.tensor(labels))
    for row, (example, label) in enumerate(zip(examples, labels, strict=True)):
        context, ending = encoded.context[example], encoded.endings[example][label]
        real = rows.mask[row].bool()
        assert rows.ids[row][real].tolist() == [*context, *ending]
        assert rows.positions[row][real].tolist() == list(range(len(context) + len(ending)))
        assert rows.branch[row][real].tolist() == [0] * len(context) + [label + 1] * len(ending)


@random_sets
@kinds
def test_lengths_are_those_of_the_rows(seed: int, parts: int) -> None:
    packed = PackedTokens(random_set(seed, parts), PAD)
    every = torch.arange(len(packed))
    choices = [None, *(torch.full_like(every, label) for label in range(parts))]
    for labels in choices:
        lengths = packed.row_lengths(labels)
        rows = packed.rows(every, labels)
        assert lengths.tolist() == rows.mask.sum(1).tolist()
        assert rows.mask.shape[1] == lengths.max()
        # Real tokens lie on the left and say where they are; the rest is blank.
        real = rows.mask.bool()
        assert torch.equal(real, torch.arange(real.shape[1]) < lengths[:, None])
        assert torch.equal(rows.ids[real], packed.ids[rows.places[real]].long())
        assert rows.ids[~real].eq(PAD).all()
        for blank in (rows.branch, rows.positions, rows.places):
            assert not blank[~real].any()
    assert packed.row_lengths().sum() == packed.tokens


def test_padding_is_the_token_that_was_given() -> None:
    rows = PackedTokens(Encoded([[7, 8, 9], [5]], mask_at=[0, 0]), 3).rows(torch.tensor([1, 0]))
    assert rows.ids.tolist() == [[5, 3, 3], [7, 8, 9]]


def pieces(encoded: Encoded) -> list[list[int]]:
    """Contexts and label parts in the order in which they are packed."""
    if not encoded.endings:
        return encoded.context
    pairs = zip(encoded.context, encoded.endings, strict=True)
    return [piece for context, endings in pairs for piece in (context, *endings)]


@random_sets
@kinds
def test_digest_tells_where_one_piece_ends_and_the_next_begins(seed: int, parts: int) -> None:
    """A token that moves to the next example or label part leaves the row of tokens as it was."""
    encoded = random_set(seed, parts)
    packed = PackedTokens(encoded, PAD)
    assert packed.digest() == PackedTokens(random_set(seed, parts), PAD).digest()
    digests = {packed.digest()}
    count = len(pieces(encoded)) - 1
    for at in range(count):
        moved = random_set(seed, parts)
        before, after = pieces(moved)[at : at + 2]
        after.insert(0, before.pop())
        other = PackedTokens(moved, PAD)
        assert torch.equal(other.ids, packed.ids)
        digests.add(other.digest())
    assert len(digests) == 1 + count


@random_sets
@kinds
def test_digest_depends_on_every_token(seed: int, parts: int) -> None:
    count = PackedTokens(random_set(seed, parts), PAD).tokens
    digests = set()
    for at in range(count):
        changed = random_set(seed, parts)
        for piece in pieces(changed):
            if at < len(piece):
                piece[at] += 1
                break
            at -= len(piece)
        digests.add(PackedTokens(changed, PAD).digest())
    assert len(digests | {PackedTokens(random_set(seed, parts), PAD).digest()}) == count + 1


@random_sets
@kinds
def test_packed_arrays_are_taken_as_they_are(seed: int, parts: int) -> None:
    """As they are kept on disk: tokens, lengths of the pieces, masks."""
    encoded = random_set(seed, parts)
    encoded.truncated = seed
    packed = PackedTokens(encoded, 3)
    every = pieces(encoded)
    again = PackedTokens.of_arrays(
        np.array([*chain.from_iterable(every)], np.int32),
        np.array([len(piece) for piece in every], np.int64).reshape(len(encoded), -1),
        np.array(encoded.mask_at, np.int64),
        encoded.truncated,
        3,
    )
    for name in ("ids", "branch", "positions", "starts", "lengths", "mask_at"):
        ours, theirs = getattr(again, name), getattr(packed, name)
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)
    assert (again.truncated, again.pad_id, again.parts) == (seed, 3, parts)
    assert again.digest() == packed.digest()
    examples = torch.tensor(chosen(seed, len(packed)))
    for ours, theirs in zip(again.rows(examples), packed.rows(examples), strict=True):
        assert torch.equal(ours, theirs)
