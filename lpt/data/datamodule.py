"""The batches of a run, for Lightning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from lpt.data.batching import Collator, ShuffledBatches, eval_batches
from lpt.data.splits import Splits
from lpt.data.tasks import Examples
from lpt.data.templates import Encoded, Encoder


class LatePromptData(LightningDataModule):
    """Encoded train, dev and test sets.

    Args:
        splits: The three sets.
        encoder: Renders and tokenizes them.
        word_ids: Token of each label's word.
        pad_id: Token that fills up short rows.
        batch_size: Examples a device and training step.
        eval_batch_size: Examples a device and evaluation step.
        seed: Seed of the training order.
        train_batches: Batches a device in one training epoch; None: one pass over the data.
        score_all_labels: Whether training needs the scores of all labels, too.
        bucketing: Training batches of like length.
        num_workers: Worker processes that assemble batches.
    """

    def __init__(
        self,
        splits: Splits,
        encoder: Encoder,
        *,
        word_ids: Sequence[int],
        pad_id: int,
        batch_size: int,
        eval_batch_size: int,
        seed: int,
        train_batches: int | None,
        score_all_labels: bool,
        bucketing: bool = True,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.splits = splits
        self.word_ids = word_ids
        self.pad_id = pad_id
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.seed = seed
        self.train_batches = train_batches
        self.score_all_labels = score_all_labels
        self.bucketing = bucketing
        self.num_workers = num_workers
        self.hidden: dict[str, Tensor] = {}
        self.encoded: Mapping[str, Encoded] = {
            name: encoder.encode(part.columns) for name, part in splits.items()
        }

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled training batches of this rank."""
        rank, world_size = self._ranks()
        encoded = self.encoded["train"]
        sampler = ShuffledBatches(
            len(self.splits.train),
            self.batch_size,
            self.seed,
            lengths=[encoded.length(i) for i in range(len(encoded))] if self.bucketing else None,
            batches=self.train_batches,
            rank=rank,
            world_size=world_size,
        )
        return self._loader("train", self.splits.train, sampler, self.score_all_labels)

    def val_dataloader(self) -> DataLoader[Any]:
        """Dev batches of this rank."""
        return self._eval_loader("dev", self.splits.dev)

    def test_dataloader(self) -> DataLoader[Any]:
        """Test batches of this rank."""
        return self._eval_loader("test", self.splits.test)

    def use_hidden(self, hidden: Mapping[str, Tensor]) -> None:
        """Take the hidden states of these sets from here instead of reading their text.

        Args:
            hidden: For each set, (tokens, D), laid out as `TokenLayout` says.
        """
        self.hidden = dict(hidden)

    def _eval_loader(self, name: str, part: Examples) -> DataLoader[Any]:
        batches = eval_batches(self.encoded[name], self.eval_batch_size, *self._ranks())
        return self._loader(name, part, batches, True)

    def _loader(self, name: str, part: Examples, batches: Any, score_all: bool) -> DataLoader[Any]:
        on_gpu = name in self.hidden and self.hidden[name].is_cuda
        collator = Collator(
            self.encoded[name],
            part.labels,
            part.index,
            self.word_ids,
            self.pad_id,
            score_all=score_all,
            hidden=self.hidden.get(name),
        )
        return DataLoader(
            range(len(part)),  # type: ignore[arg-type]  # a range indexes like a data set
            batch_sampler=batches,
            collate_fn=collator,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available() and not on_gpu,
        )

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
