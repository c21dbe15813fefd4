"""Batches: which examples go together, and how they become tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from lpt.data.examples import UNKNOWN
from lpt.data.packing import PackedTokens, Rows
from lpt.models.inputs import IGNORE_INDEX, Batch

_WINDOWS = 4  # per pass, if it has enough batches: each is sorted by length
_WINDOW_BATCHES = 32, 128  # smallest and largest window
_JITTER = 0.2  # largest random factor on lengths before sorting, if a pass is one window


@dataclass(eq=False)
class TrainBatchSampler(Sampler[list[int]]):
    """Training batches: pass after pass over the examples, each in a new seeded order.

    Every pass visits each example once; its last batch may be smaller. Ranks share each global
    batch, which does not depend on their number. If the last one has fewer examples than there are
    ranks, every rank takes all of it, so that the mean over ranks is the mean over the batch.

    With lengths, examples of similar length are grouped to save padding: windows of several batches
    are sorted by length times a random factor. The composition of the batches thus differs between
    passes; the more windows there are, the more their random content contributes to that, and the
    smaller the factor is.

    Args:
        num_examples: Number of examples, at least `world_size`.
        batch_size: Examples per batch and rank.
        seed: Seed of the order.
        lengths: Length of each example in tokens, to group by; None: plain shuffling.
        num_batches: Batches per rank of one iteration, over as many passes as it takes; None: one
            pass.
        consumed_batches: Batches per rank that the run had before it was resumed.
        rank: This process.
        world_size: Number of processes.
    """

    num_examples: int
    batch_size: int
    seed: int
    _: KW_ONLY
    lengths: Sequence[int] | Tensor | None = None
    num_batches: int | None = None
    consumed_batches: int = 0
    rank: int = 0
    world_size: int = 1

    @property
    def batches_per_pass(self) -> int:
        """Batches per rank in one pass."""
        return -(-self.num_examples // (self.batch_size * self.world_size))

    def __len__(self) -> int:
        return self.batches_per_pass if self.num_batches is None else self.num_batches

    def accumulated_sizes(self, number: int, accumulate: int) -> list[int]:
        """Examples, over all ranks, of each batch that is accumulated into one optimizer step.

        Args:
            number: A batch of the step, counted from the start of the run.
            accumulate: Batches per step; the last step of an iteration may have fewer.
        """
        iteration, index = divmod(number, len(self))
        start, end = number - index % accumulate, (iteration + 1) * len(self)
        size, per_pass = self.batch_size * self.world_size, self.batches_per_pass
        numbers = range(start, min(start + accumulate, end))
        return [min(size, self.num_examples - n % per_pass * size) for n in numbers]

    def __iter__(self) -> Iterator[list[int]]:
        end = (self.consumed_batches // len(self) + 1) * len(self)
        while self.consumed_batches < end:
            number, start = divmod(self.consumed_batches, self.batches_per_pass)
            for batch in self._batches(number)[start : start + end - self.consumed_batches]:
                self.consumed_batches += 1
                yield batch.tolist()

    def _batches(self, number: int) -> list[np.ndarray]:
        """This rank's batches of the pass with that number."""
        random = np.random.default_rng((self.seed, number))
        size, ranks = self.batch_size * self.world_size, self.world_size
        order = random.permutation(self.num_examples)
        starts = range(0, self.num_examples, size)
        batches = [order[start : start + size] for start in starts]  # views: sorted in place
        if self.lengths is not None:
            full = self.num_examples // size
            # The smaller last batch is left out: chance decides who is in it, not length.
            whole = order[: full * size]
            window = size * int(np.clip(full // _WINDOWS, *_WINDOW_BATCHES))
            jitter = _JITTER * min(1.0, window / self.num_examples) ** 2
            keys = np.asarray(self.lengths)[whole] * random.uniform(1, 1 + jitter, len(whole))
            for start in range(0, len(whole), window):
                part = slice(start, start + window)
                whole[part] = whole[part][np.argsort(keys[part])]
            # It also stays last, so that its step does not depend on the order.
            batches = [*(batches[i] for i in random.permutation(full)), *batches[full:]]
        return [batch[self.rank :: ranks] if len(batch) >= ranks else batch for batch in batches]


def eval_batches(
    lengths: Sequence[int] | Tensor, batch_size: int, rank: int = 0, world_size: int = 1
) -> list[list[int]]:
    """This rank's evaluation batches, of examples of similar length.

    Each rank gets the same number; if they do not divide evenly, some are repeated, and the caller
    that gathers the results must count each row once.
    """
    order = np.argsort(np.asarray(lengths), kind="stable").tolist()
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    count = -(-len(batches) // world_size)
    own = batches[rank::world_size]
    return own + batches[: count - len(own)]


class Collator:
    """Makes a `Batch` of examples, given by their indices in the set.

    Args:
        packed: Tokens of the set.
        labels: Label index of each example, or its number (regression); -1 if unknown.
        row_ids: Row id of each example.
        word_ids: Token of each label's word, the target at the mask of a masked model.
        score_all: Causal models: every label part; False: only that of the example's label.
        hidden: Precomputed hidden states of the set, (n, D), in the order of `packed`; None: the
            model computes them, or gathers them by `Batch.hidden_index`.
        final: The same of the states behind the last layer; of each row the one at `summary_index`
            is in the batch.
        with_hidden_index: Whether batches have a `hidden_index`.
    """

    def __init__(
        self,
        packed: PackedTokens,
        labels: Sequence[int] | Sequence[float],
        row_ids: Sequence[int],
        word_ids: Sequence[int],
        *,
        score_all: bool,
        hidden: Tensor | None = None,
        final: Tensor | None = None,
        with_hidden_index: bool = False,
    ) -> None:
        self.packed = packed
        self.labels = torch.tensor(labels)
        self.row_ids = torch.tensor(row_ids)
        self.word_ids = torch.tensor(word_ids)
        self.score_all = score_all
        self.hidden = hidden
        self.final = final
        self.with_hidden_index = with_hidden_index

    def __call__(self, examples: Sequence[int]) -> Batch:
        """The batch, on the CPU."""
        chosen = torch.tensor(examples)
        labels = self.labels[chosen]
        causal = self.packed.num_label_parts > 0
        rows = self.packed.rows(chosen, labels if causal and not self.score_all else None)
        targets = (self._label_part_targets if causal else self._mask_targets)(chosen, rows)
        summaries = rows.hidden_index.gather(1, targets["summary_index"][:, None])
        return Batch(
            input_ids=rows.input_ids,
            attention_mask=rows.attention_mask,
            labels=labels,
            row_ids=self.row_ids[chosen],
            branches=rows.branches if self.score_all else None,
            hidden=None if self.hidden is None else self.hidden[rows.hidden_index],
            hidden_index=rows.hidden_index if self.with_hidden_index else None,
            final=None if self.final is None else self.final[summaries],
            **targets,
        )

    def _mask_targets(self, chosen: Tensor, rows: Rows) -> dict[str, Any]:
        """Masked models: one logit position per row, one target each."""
        each, labels = torch.arange(len(chosen)), self.labels[chosen]
        if labels.is_floating_point():  # regression has no target word
            targets = torch.full_like(chosen, IGNORE_INDEX)
        else:
            targets = self.word_ids[labels].masked_fill(labels == UNKNOWN, IGNORE_INDEX)
        return {
            "summary_index": torch.zeros_like(chosen),
            "pool_length": rows.attention_mask.sum(1),
            "logit_rows": each,
            "logit_positions": self.packed.mask_index[chosen],
            "target_to_logit": each,
            "targets": targets,
            "sequences": each,
        }

    def _label_part_targets(self, chosen: Tensor, rows: Rows) -> dict[str, Any]:
        """Causal models: every token of a label part is a target."""
        assert rows.branches is not None
        branch_ids, position_ids = rows.branches
        last = self.packed.lengths[chosen, 0] - 1  # of the context
        row, column = (branch_ids > 0).nonzero(as_tuple=True)
        # Each target is predicted by the token before it in its own sequence: the first token of
        # every label part by the last one of the context, so that they share a logit position.
        first = position_ids[row, column] == last[row] + 1
        width = rows.input_ids.shape[1]
        predicted_by = row * width + torch.where(first, last[row], column - 1)
        logit_index, target_to_logit = torch.unique(predicted_by, return_inverse=True)
        part = branch_ids[row, column] - 1
        return {
            "summary_index": last,
            "pool_length": last.clamp(min=1),
            "logit_rows": logit_index // width,
            "logit_positions": logit_index % width,
            "target_to_logit": target_to_logit,
            "targets": rows.input_ids[row, column],
            "sequences": row * self.packed.num_label_parts + part if self.score_all else row,
        }
