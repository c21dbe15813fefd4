"""Batches: which examples go together, and how they become tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from lpt.data.packing import PackedTokens, Rows
from lpt.data.tasks import UNKNOWN
from lpt.methods.late_prompt import IGNORED, Batch
from lpt.models.split import Branches

_WINDOWS = 4  # of a pass, if it has enough batches: what is sorted by length together
_WINDOW_BATCHES = 32, 128  # fewest and most batches a window
_JITTER = 0.2  # largest random lengthening before sorting, where a pass is one window


class ShuffledBatches(Sampler[list[int]]):
    """Training batches: pass after pass over the examples, each in a new seeded order.

    Every pass visits each example once; its last batch may be short. Ranks share each global batch,
    which is the same for any number of them. Of a tail with fewer examples than ranks each rank
    takes all, so that none is without: the mean of the ranks is that of the tail all the same.

    With lengths, examples of like length go together, which saves padding: within a window of some
    batches they are sorted by length times a random factor. So batches differ between passes; the
    more windows there are, the more of that their random content does, and the less the factor.

    Args:
        size: Number of examples.
        batch_size: Examples a batch and rank.
        seed: Seed of the order.
        lengths: Tokens of each example, for batches of like length; None: plain random batches.
        batches: Batches a rank in one iteration, over as many passes as it takes; None: one pass.
        start: Batches a rank that were given before, by a run that is resumed.
        rank: This process.
        world_size: Number of processes.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        *,
        lengths: Sequence[int] | None = None,
        batches: int | None = None,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.lengths = None if lengths is None else np.asarray(lengths)
        assert size >= world_size, "some ranks would have nothing to do"
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.given = start
        self.length = self.batches_a_pass if batches is None else batches

    @property
    def batches_a_pass(self) -> int:
        """Batches a rank in one pass."""
        return -(-self.size // (self.batch_size * self.world_size))

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[list[int]]:
        end = (self.given // self.length + 1) * self.length
        while self.given < end:
            number, at = divmod(self.given, self.batches_a_pass)
            for batch in self._one_pass(number)[at : at + end - self.given]:
                self.given += 1
                yield batch

    def _one_pass(self, number: int) -> list[list[int]]:
        """This rank's batches of the pass with that number."""
        random = np.random.default_rng((self.seed, number))
        step = self.batch_size * self.world_size
        order = random.permutation(self.size)
        whole = self.size // step
        if self.lengths is not None:
            # Whoever is in the short last batch is chosen by chance, not by length.
            window = step * int(np.clip(whole // _WINDOWS, *_WINDOW_BATCHES))
            self._sort_windows(order[: whole * step], window, random)
        batches = [order[at : at + step] for at in range(0, self.size, step)]
        if self.lengths is not None:
            # The short batch stays last, so that its place does not depend on the order.
            batches = [*(batches[i] for i in random.permutation(whole)), *batches[whole:]]
        ranks = self.world_size
        shares = (b[self.rank :: ranks] if len(b) >= ranks else b for b in batches)
        return [share.tolist() for share in shares]

    def _sort_windows(self, order: np.ndarray, window: int, random: np.random.Generator) -> None:
        assert self.lengths is not None
        jitter = _JITTER * min(1.0, window / self.size) ** 2
        sort_by = self.lengths[order] * random.uniform(1, 1 + jitter, len(order))
        for at in range(0, len(order), window):
            part = slice(at, at + window)
            order[part] = order[part][np.argsort(sort_by[part])]


def eval_batches(
    lengths: Sequence[int], batch_size: int, rank: int = 0, world_size: int = 1
) -> list[list[int]]:
    """Evaluation batches of like length, shared between the ranks.

    Each rank gets equally many: where they do not divide, some are repeated. Whoever gathers the
    results counts a row once.
    """
    order = np.argsort(lengths, kind="stable").tolist()
    batches = [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
    count = -(-len(batches) // world_size)
    mine = batches[rank::world_size]
    return mine + batches[: count - len(mine)]


class Collator:
    """Makes a `Batch` of the examples with the given numbers.

    Args:
        packed: The tokens of the set.
        labels: Label index of each example, or its number; -1 unknown.
        index: Row id of each example.
        word_ids: Token of each label's word (the target at the mask of a masked model).
        score_all: Causal models: every label part; False: only the right label's.
        hidden: Hidden states of all tokens, (tokens, D), in the order of `packed`; None: the model
            reads the text itself, or finds them by `places`.
        places: Whether the batch says where its hidden states are (`Batch.places`).
    """

    def __init__(
        self,
        packed: PackedTokens,
        labels: Sequence[int] | Sequence[float],
        index: Sequence[int],
        word_ids: Sequence[int],
        *,
        score_all: bool,
        hidden: Tensor | None = None,
        places: bool = False,
    ) -> None:
        self.packed = packed
        self.labels = torch.tensor(labels)
        self.row_ids = torch.tensor(index)
        self.word_ids = torch.tensor(word_ids)
        self.score_all = score_all
        self.hidden = hidden
        self.places = places

    def __call__(self, examples: Sequence[int]) -> Batch:
        """Tensors for those examples, on the CPU."""
        chosen = torch.tensor(examples)
        labels = self.labels[chosen]
        one_part = self.packed.parts > 0 and not self.score_all
        rows = self.packed.rows(chosen, labels if one_part else None)
        scored = self._parts(chosen, rows) if self.packed.parts else self._mask(chosen, rows)
        return Batch(
            input_ids=rows.ids,
            attention_mask=rows.mask,
            labels=labels,
            row_ids=self.row_ids[chosen],
            **scored,
            hidden=None if self.hidden is None else self.hidden[rows.places],
            places=rows.places if self.places else None,
        )

    def _mask(self, chosen: Tensor, rows: Rows) -> dict[str, Any]:
        each, labels = torch.arange(len(chosen)), self.labels[chosen]
        if labels.is_floating_point():  # no word is the right one
            targets = torch.full_like(chosen, IGNORED)
        else:
            targets = self.word_ids[labels].masked_fill(labels == UNKNOWN, IGNORED)
        return {
            "summary_index": torch.zeros_like(chosen),
            "pool_length": rows.mask.sum(1),
            "rows": each,
            "positions": self.packed.mask_at[chosen],
            "scored": each,
            "targets": targets,
            "sequences": each,
        }

    def _parts(self, chosen: Tensor, rows: Rows) -> dict[str, Any]:
        last = self.packed.lengths[chosen, 0] - 1  # of the context
        row, at = (rows.branch > 0).nonzero(as_tuple=True)
        branch = rows.branch[row, at]
        # A token is predicted by the one before it: the first of each part by the context's last.
        first = rows.positions[row, at] == last[row] + 1
        width = rows.ids.shape[1]
        place = row * width + torch.where(first, last[row], at - 1)
        distinct, scored = torch.unique(place, return_inverse=True)
        return {
            "summary_index": last,
            "pool_length": last.clamp(min=1),
            "rows": distinct // width,
            "positions": distinct % width,
            "scored": scored,
            "targets": rows.ids[row, at],
            "sequences": row * self.packed.parts + branch - 1 if self.score_all else row,
            "branches": Branches(rows.branch, rows.positions) if self.score_all else None,
        }
