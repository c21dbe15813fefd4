"""Batches: which examples go together, and how they become tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from lpt.data.hidden_cache import TokenLayout
from lpt.data.tasks import UNKNOWN
from lpt.data.templates import Encoded
from lpt.models.late_prompt import Batch

IGNORED = -100
_WINDOW = 32  # batches that are sorted by length together
_JITTER = 0.3  # random lengthening before sorting


class ShuffledBatches(Sampler[list[int]]):
    """Training batches: pass after pass over the examples, each in a new seeded order.

    Every pass visits each example once; its last batch may be short. Ranks take equal shares of
    each global batch; a tail with fewer examples than ranks is left out of its pass.

    With lengths, examples of like length go together, which saves padding: within a window of some
    batches they are sorted by length times a random factor, so that batches differ between passes.

    Args:
        size: Number of examples.
        batch_size: Examples a batch and rank.
        seed: Seed of the order.
        lengths: Tokens of each example, for batches of like length; None: plain random batches.
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
        lengths: Sequence[int] | None = None,
        batches: int | None = None,
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
        random = np.random.default_rng((self.seed, self.passes))
        self.passes += 1
        step = self.batch_size * self.world_size
        order = random.permutation(self.size)
        if self.lengths is not None:
            order = self._by_length(order, step * _WINDOW, random)
        batches = [order[at : at + step] for at in range(0, self.size, step)]
        if self.lengths is not None:
            # The short batch stays last, so that its place does not depend on the order.
            whole = len(batches) - (len(batches[-1]) < step)
            batches = [
                batches[i] for i in [*random.permutation(whole), *range(whole, len(batches))]
            ]
        for batch in batches:
            shares = [batch[rank :: self.world_size] for rank in range(self.world_size)]
            if len(shares[-1]):
                yield shares[self.rank].tolist()

    def _by_length(self, order: np.ndarray, window: int, random: np.random.Generator) -> np.ndarray:
        assert self.lengths is not None
        sort_by = self.lengths[order] * random.uniform(1, 1 + _JITTER, self.size)
        parts = [slice(at, at + window) for at in range(0, self.size, window)]
        return np.concatenate([order[part][np.argsort(sort_by[part])] for part in parts])


def eval_batches(
    encoded: Encoded, batch_size: int, rank: int = 0, world_size: int = 1
) -> list[list[int]]:
    """Evaluation batches of like length, shared between the ranks."""
    order = sorted(range(len(encoded)), key=encoded.length)
    batches = [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
    return share(batches, rank, world_size)


def share(batches: list[list[int]], rank: int, world_size: int) -> list[list[int]]:
    """A rank's batches, equally many for each: where they do not divide, some are repeated.

    Whoever gathers the results counts a row once.
    """
    count = -(-len(batches) // world_size)
    mine = batches[rank::world_size]
    return mine + batches[: count - len(mine)]


class Collator:
    """Makes a `Batch` of the examples with the given numbers.

    Args:
        encoded: Token ids.
        labels: Label index of each example; -1 unknown.
        index: Row id of each example.
        word_ids: Token of each label's word (the target at the mask of a masked model).
        pad_id: Token that fills up short rows.
        score_all: Causal models: a row for every label; False: only the right label's row.
        hidden: Hidden states of all tokens, (tokens, D), laid out as `TokenLayout` says; None: the
            model reads the text itself.
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
        hidden: Tensor | None = None,
    ) -> None:
        self.encoded = encoded
        self.labels = labels
        self.index = index
        self.word_ids = word_ids
        self.pad_id = pad_id
        self.score_all = score_all
        self.hidden = hidden
        self.layout = TokenLayout(encoded) if hidden is not None else None

    def __call__(self, examples: Sequence[int]) -> Batch:
        """Tensors for those examples, on the CPU."""
        build = self._causal if self.encoded.endings else self._masked
        return build(examples)

    def _masked(self, examples: Sequence[int]) -> Batch:
        labels = [self.labels[i] for i in examples]
        sequences = [self.encoded.context[i] for i in examples]
        targets = [self.word_ids[y] if y != UNKNOWN else IGNORED for y in labels]
        return Batch(
            *pad(sequences, self.pad_id),
            read_at=torch.zeros(len(examples), dtype=torch.long),
            pool_length=torch.tensor([len(s) for s in sequences]),
            rows=torch.arange(len(examples)),
            positions=torch.tensor([self.encoded.mask_at[i] for i in examples]),
            targets=torch.tensor(targets),
            labels=torch.tensor(labels),
            index=torch.tensor([self.index[i] for i in examples]),
            hidden=self._hidden([(i, None) for i in examples]),
        )

    def _causal(self, examples: Sequence[int]) -> Batch:
        labels = range(len(self.word_ids))
        pairs = [(i, y) for i in examples for y in (labels if self.score_all else [self.labels[i]])]
        chosen = [(i, self.encoded.endings[i][y]) for i, y in pairs]
        contexts = torch.tensor([len(self.encoded.context[i]) for i, _ in chosen])
        endings = torch.tensor([len(ending) for _, ending in chosen])
        rows = torch.repeat_interleave(torch.arange(len(chosen)), endings)
        within = torch.cat([torch.arange(n) for n in endings.tolist()])
        return Batch(
            *pad([self.encoded.context[i] + ending for i, ending in chosen], self.pad_id),
            read_at=contexts - 1,
            pool_length=(contexts - 1).clamp(min=1),
            rows=rows,
            positions=contexts[rows] + within - 1,  # a token is predicted by the one before it
            targets=torch.tensor([token for _, ending in chosen for token in ending]),
            labels=torch.tensor([self.labels[i] for i in examples]),
            index=torch.tensor([self.index[i] for i in examples]),
            hidden=self._hidden(pairs),
        )

    def _hidden(self, rows: Sequence[tuple[int, int | None]]) -> Tensor | None:
        """Known hidden states of rows of (example, label), (B, T, D); padding is arbitrary."""
        if self.hidden is None or self.layout is None:
            return None
        places, _ = pad([self.layout.places(i, label) for i, label in rows], 0)
        return self.hidden[places.to(self.hidden.device)]


def pad(sequences: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Token ids padded on the right to the longest, and their mask: both (B, T)."""
    width = max(map(len, sequences))
    ids = [[*s, *[pad_id] * (width - len(s))] for s in sequences]
    mask = [[1] * len(s) + [0] * (width - len(s)) for s in sequences]
    return torch.tensor(ids), torch.tensor(mask)
