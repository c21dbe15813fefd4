"""All tokens of a set in one row, so that batches are cut out of it without a loop."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lpt.data.templates import Encoded


class Rows(NamedTuple):
    """Sequences cut out of the packed tokens, padded on the right: (B, T) each.

    Attributes:
        ids: Token ids.
        mask: 1 for real tokens.
        branch: 0 for context and padding, else the label part's number, from 1.
        positions: Each token's position in its own sequence: the context, then one label part.
        places: Where each token lies among the packed ones; 0 for padding.
    """

    ids: Tensor
    mask: Tensor
    branch: Tensor
    positions: Tensor
    places: Tensor


class PackedTokens:
    """The tokens of a set: of each example its context, then the label part of each label.

    Hidden states of the set lie in the same order. Shapes: E examples, P label parts of each
    (0 for masked models), n tokens in all.

    Args:
        encoded: Token ids of each example.
        pad_id: Token that fills up short rows.

    Attributes:
        ids: (n,) token ids.
        branch: (n,) 0 for a context, else the label part's number, from 1.
        positions: (n,) position of each token in its own sequence.
        starts: (E, 1+P) where each piece begins.
        lengths: (E, 1+P) tokens of each piece.
        mask_at: (E,) index of the mask in the context; empty for causal models.
        truncated: Examples that had to be shortened.
    """

    def __init__(self, encoded: Encoded, pad_id: int) -> None:
        parts = encoded.endings or [[] for _ in encoded.context]
        pieces = [
            piece
            for context, endings in zip(encoded.context, parts, strict=True)
            for piece in (context, *endings)
        ]
        lengths = np.fromiter(map(len, pieces), np.int64, len(pieces))
        flat = np.fromiter((token for piece in pieces for token in piece), np.int32, lengths.sum())
        mask_at = np.array(encoded.mask_at, np.int64)
        self._lay_out(flat, lengths.reshape(len(encoded), -1), mask_at, encoded.truncated, pad_id)

    @classmethod
    def of_arrays(
        cls, ids: np.ndarray, lengths: np.ndarray, mask_at: np.ndarray, truncated: int, pad_id: int
    ) -> PackedTokens:
        """Of what is packed already: see the attributes."""
        packed = cls.__new__(cls)
        packed._lay_out(ids, lengths, mask_at, truncated, pad_id)
        return packed

    def _lay_out(
        self, ids: np.ndarray, pieces: np.ndarray, mask_at: np.ndarray, truncated: int, pad_id: int
    ) -> None:
        self.pad_id = pad_id
        self.truncated = truncated
        lengths, width = pieces.reshape(-1), pieces.shape[1]
        numbers = np.tile(np.arange(width), len(pieces))
        ends = np.cumsum(lengths)
        contexts = np.repeat(lengths[::width], width) * (numbers > 0)
        # One number a token, of millions: small types, and in place.
        shift = (contexts - (ends - lengths)).astype(np.int32 if ends[-1] < 2**31 else np.int64)
        positions = np.repeat(shift, lengths)
        positions += np.arange(ends[-1], dtype=shift.dtype)
        self.ids = torch.from_numpy(ids)
        self.branch = torch.from_numpy(np.repeat(numbers.astype(np.int16), lengths))
        self.positions = torch.from_numpy(positions.astype(np.int32, copy=False))
        self.starts = torch.from_numpy((ends - lengths).reshape(-1, width))
        self.lengths = torch.from_numpy(pieces)
        self.mask_at = torch.from_numpy(mask_at)

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.lengths)

    @property
    def tokens(self) -> int:
        """Number of tokens n."""
        return len(self.ids)

    @property
    def parts(self) -> int:
        """Label parts of an example; 0 for masked models."""
        return self.lengths.shape[1] - 1

    def row_lengths(self, labels: Tensor | None = None) -> Tensor:
        """Tokens of every example with all label parts, or with that of its label: (E,)."""
        if labels is None:
            return self.lengths.sum(1)
        return self.lengths[:, 0] + self.lengths.gather(1, 1 + labels[:, None])[:, 0]

    def rows(self, examples: Tensor, labels: Tensor | None = None) -> Rows:
        """Examples as rows, with all label parts side by side or with one each.

        Args:
            examples: (B,) numbers of examples.
            labels: (B,) the label part of each; None: all of them.
        """
        starts, lengths = self.starts[examples], self.lengths[examples]
        if labels is None:
            context, rest = lengths.sum(1, keepdim=True), None
            total = context
        else:
            context, part = lengths[:, :1], 1 + labels[:, None]
            total = context + lengths.gather(1, part)
            rest = starts.gather(1, part) - context
        at = torch.arange(int(total.max()))
        places = starts[:, :1] + at
        if rest is not None:
            places = torch.where(at < context, places, rest + at)
        mask = at < total
        places = places.masked_fill(~mask, 0)
        return Rows(
            self.ids[places].long().masked_fill(~mask, self.pad_id),
            mask.long(),
            self.branch[places].long() * mask,
            self.positions[places].long() * mask,
            places,
        )

    def digest(self) -> str:
        """SHA-256 of all token ids, in order."""
        digest = hashlib.sha256()
        for tensor in (self.ids, self.lengths):
            digest.update(f"{tuple(tensor.shape)}".encode())
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()
