"""All tokens of a set in one flat array, from which batches are gathered without a loop.

Shapes: E examples, P label parts each (0 for masked models), n tokens in all, B rows, T tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lpt.data.templates import Encoded, Encoder
from lpt.models.inputs import Branches

_BATCH_ROWS = 1000  # tokenized at once


class Rows(NamedTuple):
    """Sequences gathered from the packed tokens, padded on the right: (B, T) each.

    Attributes:
        input_ids: Token ids.
        attention_mask: 1 for real tokens.
        branches: Label parts of causal models.
        hidden_index: Index of each token among the n packed ones; 0 for padding.
    """

    input_ids: Tensor
    attention_mask: Tensor
    branches: Branches | None
    hidden_index: Tensor


class PackedTokens:
    """The tokens of a set: of each example its context, then the label part of each label.

    The hidden states of a set are stored in the same order.

    Args:
        batches: Token ids of the examples, in batches.
        pad_id: Padding token.

    Attributes:
        ids: (n,) token ids.
        starts: (E, 1+P) index of the first token of each context and label part.
        lengths: (E, 1+P) number of tokens of each.
        mask_index: (E,) position of the mask in the context; empty for causal models.
        truncated: Number of truncated examples.
    """

    def __init__(self, batches: Iterable[Encoded], pad_id: int) -> None:
        ids: list[np.ndarray] = []
        lengths: list[np.ndarray] = []
        mask_index: list[np.ndarray] = []
        self.pad_id = pad_id
        self.truncated = 0
        for batch in batches:  # to arrays at once: lists of all tokens would take 10 times as much
            label_parts = batch.label_parts or [[]] * len(batch)
            pieces = [
                piece
                for context, parts in zip(batch.context, label_parts, strict=True)
                for piece in (context, *parts)
            ]
            sizes = np.fromiter(map(len, pieces), np.int64, len(pieces))
            ids.append(np.fromiter(chain.from_iterable(pieces), np.int32, sizes.sum()))
            lengths.append(sizes.reshape(len(batch), -1))
            mask_index.append(np.array(batch.mask_index, np.int64))
            self.truncated += batch.truncated
        self.ids = torch.from_numpy(np.concatenate(ids))
        self.lengths = torch.from_numpy(np.concatenate(lengths))
        self.mask_index = torch.from_numpy(np.concatenate(mask_index))
        ends = self.lengths.flatten().cumsum(0).view_as(self.lengths)
        self.starts = ends - self.lengths

    def __len__(self) -> int:
        """Number of examples E."""
        return len(self.lengths)

    @property
    def num_tokens(self) -> int:
        """Number of tokens n."""
        return len(self.ids)

    @property
    def num_label_parts(self) -> int:
        """Label parts P of an example; 0 for masked models."""
        return self.lengths.shape[1] - 1

    def row_lengths(self, labels: Tensor | None = None) -> Tensor:
        """Length of every example with all label parts, or with that of its label: (E,)."""
        if labels is None:
            return self.lengths.sum(1)
        return self.lengths[:, 0] + self.lengths.gather(1, 1 + labels[:, None])[:, 0]

    def rows(self, examples: Tensor, labels: Tensor | None = None) -> Rows:
        """Examples as rows, with all label parts side by side or with one each.

        Args:
            examples: (B,) indices of examples.
            labels: (B,) the label part of each; None: all of them.
        """
        starts, lengths = self.starts[examples], self.lengths[examples]
        numbers = torch.arange(lengths.shape[1]).expand_as(lengths)  # 0: context, then label parts
        if labels is not None:
            wanted = torch.stack([torch.zeros_like(labels), 1 + labels], 1)
            starts, lengths, numbers = (x.gather(1, wanted) for x in (starts, lengths, numbers))
        ends = lengths.cumsum(1)  # in the row
        column = torch.arange(int(ends.max())).repeat(len(ends), 1)
        real = column < ends[:, -1:]
        piece = torch.searchsorted(ends, column, right=True).clamp(max=ends.shape[1] - 1)
        offset = column - (ends - lengths).gather(1, piece)
        index = (starts.gather(1, piece) + offset) * real
        branches = None
        if self.num_label_parts:  # each continues its context
            position_ids = offset + lengths[:, :1] * (piece > 0)
            branches = Branches(numbers.gather(1, piece) * real, position_ids * real)
        input_ids = self.ids[index].long().masked_fill(~real, self.pad_id)
        return Rows(input_ids, real.long(), branches, index)

    def examples_beyond(self, vocab_size: int) -> dict[int, list[int]]:
        """Token ids that an embedding of that size lacks, and the examples that have them."""
        places = (self.ids >= vocab_size).nonzero()[:, 0]
        ends = self.lengths.sum(1).cumsum(0)
        examples = torch.searchsorted(ends, places, right=True)
        pairs = torch.stack([self.ids[places], examples], 1).unique(dim=0)
        found: dict[int, list[int]] = {}
        for token_id, example in pairs.tolist():
            found.setdefault(token_id, []).append(example)
        return found

    def digest(self) -> str:
        """SHA-256 of all token ids, in order."""
        digest = hashlib.sha256()
        for tensor in (self.ids, self.lengths):
            digest.update(f"{tuple(tensor.shape)}".encode())
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()


def tokenize(encoder: Encoder, columns: Mapping[str, Sequence[str]]) -> PackedTokens:
    """Render and tokenize a set batch by batch; columns that the template lacks are ignored."""
    names = encoder.template.columns
    batches = (
        encoder.encode({name: columns[name][start : start + _BATCH_ROWS] for name in names})
        for start in range(0, len(columns[names[0]]), _BATCH_ROWS)
    )
    return PackedTokens(batches, encoder.pad_id)
