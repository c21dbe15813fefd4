"""The batches of a run, for Lightning."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from lightning.pytorch.trainer.states import RunningStage
from torch import Tensor
from torch.utils.data import DataLoader

from lpt.data.batching import Collator, ShuffledBatches, eval_batches
from lpt.data.packing import PackedTokens
from lpt.data.splits import Splits
from lpt.data.tasks import Examples
from lpt.data.templates import Encoder
from lpt.data.tokens import tokenize
from lpt.methods.late_prompt import Batch

_SETS = {
    RunningStage.TRAINING: "train",
    RunningStage.SANITY_CHECKING: "dev",
    RunningStage.VALIDATING: "dev",
}
_STAY_SECONDS = 60  # of a worker, after a cluster has asked all processes to end


class LatePromptData(LightningDataModule):
    """The encoded sets of a run.

    Args:
        splits: The sets.
        encoder: Renders and tokenizes them.
        word_ids: Token of each label's word.
        batch_size: Examples a device and training step.
        eval_batch_size: Examples a device and evaluation step.
        seed: Seed of the training order.
        train_batches: Batches a device in one training epoch; None: one pass over the data.
        score_all_labels: Whether training needs the scores of all labels, too.
        bucketing: Training batches of like length.
        num_workers: Worker processes that assemble batches.
        tokens_dir: Where the tokens of larger sets are kept; None: nowhere.
    """

    def __init__(
        self,
        splits: Splits,
        encoder: Encoder,
        *,
        word_ids: Sequence[int],
        batch_size: int,
        eval_batch_size: int,
        seed: int,
        train_batches: int | None,
        score_all_labels: bool,
        bucketing: bool = True,
        num_workers: int = 0,
        tokens_dir: Path | None = None,
    ) -> None:
        super().__init__()
        self.splits = splits
        self.word_ids = word_ids
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.seed = seed
        self.train_batches = train_batches
        self.score_all_labels = score_all_labels
        self.bucketing = bucketing
        self.num_workers = num_workers
        self.hidden: dict[str, Tensor] = {}
        self.test_set = "test"
        self.batches_given = 0
        self.packed: Mapping[str, PackedTokens] = {
            name: tokenize(encoder, part.columns, tokens_dir) for name, part in splits.items()
        }

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled training batches of this rank."""
        rank, world_size = self._ranks()
        labels = None if self.score_all_labels else torch.tensor(self.splits.train.labels)
        packed = self.packed["train"]
        lengths = packed.row_lengths(labels if packed.parts else None)
        sampler = ShuffledBatches(
            len(packed),
            self.batch_size,
            self.seed,
            lengths=lengths.tolist() if self.bucketing else None,
            batches=self.train_batches,
            start=self.batches_given,
            rank=rank,
            world_size=world_size,
        )
        return self._loader("train", self.splits.train, sampler, self.score_all_labels)

    def val_dataloader(self) -> DataLoader[Any]:
        """Dev batches of this rank."""
        return self._eval_loader("dev", self.splits.dev)

    def test_dataloader(self) -> DataLoader[Any]:
        """Batches of this rank of the set that `test_set` names."""
        return self._eval_loader(self.test_set, dict(self.splits.items())[self.test_set])

    def use_hidden(self, hidden: Mapping[str, Tensor]) -> None:
        """Take the hidden states of these sets from here instead of reading their text.

        Args:
            hidden: For each set, (tokens, D), in the order of `PackedTokens`. On a GPU they stay
                there, and only where to find them is sent with a batch.
        """
        self.hidden = dict(hidden)

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints: how far a resumed run is in the training order."""
        assert self.trainer is not None
        total: Any = self.trainer.fit_loop.epoch_loop.batch_progress.total
        return {"batches_given": total.processed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From a checkpoint, before the loaders are made."""
        self.batches_given = int(state_dict["batches_given"])

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Fill in hidden states that are on the device already."""
        if not isinstance(batch, Batch) or batch.places is None:
            return batch
        assert self.trainer is not None
        assert self.trainer.state.stage is not None
        name = _SETS.get(self.trainer.state.stage, self.test_set)
        return batch._replace(hidden=self.hidden[name][batch.places], places=None)

    def _eval_loader(self, name: str, part: Examples) -> DataLoader[Any]:
        lengths = self.packed[name].row_lengths().tolist()
        batches = eval_batches(lengths, self.eval_batch_size, *self._ranks())
        return self._loader(name, part, batches, True)

    def _loader(self, name: str, part: Examples, batches: Any, score_all: bool) -> DataLoader[Any]:
        hidden = self.hidden.get(name)
        # What is on a GPU must not be touched by workers, and need not be sent.
        elsewhere = hidden is not None and hidden.device.type != "cpu"
        collator = Collator(
            self.packed[name],
            part.labels,
            part.row_ids,
            self.word_ids,
            score_all=score_all,
            hidden=None if elsewhere else hidden,
            places=elsewhere,
        )
        return DataLoader(
            range(len(part)),  # type: ignore[arg-type]  # a range indexes like a data set
            batch_sampler=batches,
            collate_fn=collator,
            num_workers=self.num_workers,
            worker_init_fn=_stay_for_the_last_step,
            # Its own: making an iterator would draw from the generator that dropout uses.
            generator=torch.Generator().manual_seed(self.seed),
            persistent_workers=self.num_workers > 0,
            pin_memory=self._on_gpu(),
        )

    def _on_gpu(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


def _stay_for_the_last_step(_: int) -> None:
    """The run needs its workers until its state is saved, then it ends them itself."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_STAY_SECONDS))
