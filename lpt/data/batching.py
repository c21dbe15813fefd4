"""Batches: which examples go together, and how they become tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from lpt.data.tasks import UNKNOWN
from lpt.data.templates import Encoded
from lpt.models.late_prompt import Batch

IGNORED = -100


class ShuffledBatches(Sampler[list[int]]):
    """Training batches: pass after pass over the examples, each in a new seeded order.

    Every pass visits each example once; its last batch may be short. Ranks take equal shares of
    each global batch; a tail with fewer examples than ranks is left out of its pass.

    Args:
        size: Number of examples.
        batch_size: Examples a batch and rank.
        seed: Seed of the order.
        batches: Batches a rank in one iteration, over as many passes as it takes; None: one pass.
        rank: This process.
        world_size: Number of processes.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int,
        *,
        batches: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.passes = 0
        self.length = self.batches_a_pass if batches is None else batches

    @property
    def batches_a_pass(self) -> int:
        """Batches a rank in one pass."""
        whole, tail = divmod(self.size, self.batch_size * self.world_size)
        return whole + (tail >= self.world_size)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[list[int]]:
        left = self.length
        while left > 0:
            for batch in self._one_pass():
                yield batch
                left -= 1
                if left == 0:
                    break

    def _one_pass(self) -> Iterator[list[int]]:
        order = np.random.default_rng((self.seed, self.passes)).permutation(self.size)
        self.passes += 1
        step = self.batch_size * self.world_size
        for at in range(0, self.size, step):
            shares = np.array_split(order[at : at + step], self.world_size)
            if len(shares[-1]):
                yield shares[self.rank].tolist()


def eval_batches(
    encoded: Encoded, batch_size: int, rank: int = 0, world_size: int = 1
) -> list[list[int]]:
    """Evaluation batches of like length, each example in exactly one batch of one rank."""
    order = sorted(range(len(encoded)), key=encoded.length)
    batches = [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
    return batches[rank::world_size]


class Collator:
    """Makes a `Batch` of the examples with the given numbers.

    Args:
        encoded: Token ids.
        labels: Label index of each example; -1 unknown.
        index: Row id of each example.
        word_ids: Token of each label's word (the target at the mask of a masked model).
        pad_id: Token that fills up short rows.
        score_all: Causal models: a row for every label; False: only the right label's row.
    """

    def __init__(
        self,
        encoded: Encoded,
        labels: Sequence[int],
        index: Sequence[int],
        word_ids: Sequence[int],
        pad_id: int,
        *,
        score_all: bool,
    ) -> None:
        self.encoded = encoded
        self.labels = labels
        self.index = index
        self.word_ids = word_ids
        self.pad_id = pad_id
        self.score_all = score_all

    def __call__(self, examples: Sequence[int]) -> Batch:
        """Tensors for those examples, on the CPU."""
        build = self._causal if self.encoded.endings else self._masked
        return build(examples)

    def _masked(self, examples: Sequence[int]) -> Batch:
        labels = [self.labels[i] for i in examples]
        sequences = [self.encoded.context[i] for i in examples]
        targets = [self.word_ids[y] if y != UNKNOWN else IGNORED for y in labels]
        return Batch(
            *_pad(sequences, self.pad_id),
            read_at=torch.zeros(len(examples), dtype=torch.long),
            pool_length=torch.tensor([len(s) for s in sequences]),
            rows=torch.arange(len(examples)),
            positions=torch.tensor([self.encoded.mask_at[i] for i in examples]),
            targets=torch.tensor(targets),
            labels=torch.tensor(labels),
            index=torch.tensor([self.index[i] for i in examples]),
        )

    def _causal(self, examples: Sequence[int]) -> Batch:
        chosen = [
            (i, ending)
            for i in examples
            for ending in (
                self.encoded.endings[i]
                if self.score_all
                else [self.encoded.endings[i][self.labels[i]]]
            )
        ]
        contexts = torch.tensor([len(self.encoded.context[i]) for i, _ in chosen])
        endings = torch.tensor([len(ending) for _, ending in chosen])
        rows = torch.repeat_interleave(torch.arange(len(chosen)), endings)
        within = torch.cat([torch.arange(n) for n in endings.tolist()])
        return Batch(
            *_pad([self.encoded.context[i] + ending for i, ending in chosen], self.pad_id),
            read_at=contexts - 1,
            pool_length=(contexts - 1).clamp(min=1),
            rows=rows,
            positions=contexts[rows] + within - 1,  # a token is predicted by the one before it
            targets=torch.tensor([token for _, ending in chosen for token in ending]),
            labels=torch.tensor([self.labels[i] for i in examples]),
            index=torch.tensor([self.index[i] for i in examples]),
        )


def _pad(sequences: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Token ids padded on the right to the longest, and their mask: both (B, T)."""
    width = max(map(len, sequences))
    ids = [[*s, *[pad_id] * (width - len(s))] for s in sequences]
    mask = [[1] * len(s) + [0] * (width - len(s)) for s in sequences]
    return torch.tensor(ids), torch.tensor(mask)
