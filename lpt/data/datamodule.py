"""The sets of a run as Lightning data loaders."""

from __future__ import annotations

import logging
import signal
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning import LightningDataModule
from lightning.pytorch.trainer.states import RunningStage
from torch import Tensor
from torch.utils.data import DataLoader

from lpt.config.schema import Config
from lpt.data.batching import Collator, TrainBatchSampler, eval_batches
from lpt.data.examples import Examples
from lpt.data.packing import PackedTokens, tokenize
from lpt.data.splits import Splits
from lpt.data.templates import Encoder
from lpt.models.inputs import Batch

logger = logging.getLogger(__name__)

_SETS = {
    RunningStage.TRAINING: "train",
    RunningStage.SANITY_CHECKING: "dev",
    RunningStage.VALIDATING: "dev",
}
_PREEMPTION_SECONDS = 60  # that a worker stays after SIGTERM
_WARN_TRUNCATED = 0.1  # share of texts


class TaskDataModule(LightningDataModule):
    """Tokenizes the sets of a run and makes their data loaders.

    Args:
        splits: The sets.
        encoder: Renders and tokenizes rows.
        word_ids: Token of each label's word.
        batch_size: Examples per device and training step.
        eval_batch_size: Examples per device and evaluation step.
        seed: Seed of the training order.
        train_batches: Batches per device in one of Lightning's epochs; None: a pass over the data.
        score_all_labels: Whether the training loss needs the scores of all labels.
        bucketing: Group training examples of similar length.
        num_workers: Worker processes that collate batches.

    Attributes:
        packed: Tokens of each set.
        test_set: Name of the set that `test_dataloader` loads.
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
        self.test_set = "test"
        self._consumed_batches = 0
        self._hidden: dict[str, Tensor] = {}
        self.packed: Mapping[str, PackedTokens] = {
            name: tokenize(encoder, part.columns) for name, part in splits.items()
        }

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled training batches of this rank."""
        packed, train = self.packed["train"], self.splits.train
        rank, world_size = self._ranks()
        one_label_part = packed.num_label_parts > 0 and not self.score_all_labels
        lengths = packed.row_lengths(torch.tensor(train.labels) if one_label_part else None)
        sampler = TrainBatchSampler(
            len(packed),
            self.batch_size,
            self.seed,
            lengths=lengths if self.bucketing else None,
            num_batches=self.train_batches,
            consumed_batches=self._consumed_batches,
            rank=rank,
            world_size=world_size,
        )
        return self._dataloader("train", train, sampler, score_all=self.score_all_labels)

    def val_dataloader(self) -> DataLoader[Any]:
        """Dev batches of this rank."""
        return self._eval_dataloader("dev")

    def test_dataloader(self) -> DataLoader[Any]:
        """Batches of this rank of the set that `test_set` names."""
        return self._eval_dataloader(self.test_set)

    def set_hidden_states(self, hidden: Mapping[str, Tensor]) -> None:
        """Put cached hidden states into the batches of these sets.

        They are (n, D) each, in the order of `PackedTokens`. Those on a GPU stay there: a batch
        carries their indices, and they are gathered after its transfer.
        """
        self._hidden = dict(hidden)

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints: the position in the training order."""
        assert self.trainer is not None
        total: Any = self.trainer.fit_loop.epoch_loop.batch_progress.total
        return {"consumed_batches": total.processed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From a checkpoint, before the data loaders are made."""
        self._consumed_batches = int(state_dict["consumed_batches"])

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Gather the hidden states that are on the device already."""
        if not isinstance(batch, Batch) or batch.hidden_index is None:
            return batch
        assert self.trainer is not None
        assert self.trainer.state.stage is not None
        name = _SETS.get(self.trainer.state.stage, self.test_set)
        return batch._replace(hidden=self._hidden[name][batch.hidden_index], hidden_index=None)

    def _eval_dataloader(self, name: str) -> DataLoader[Any]:
        lengths = self.packed[name].row_lengths()
        batches = eval_batches(lengths, self.eval_batch_size, *self._ranks())
        return self._dataloader(name, dict(self.splits.items())[name], batches, score_all=True)

    def _dataloader(
        self, name: str, part: Examples, batches: Any, *, score_all: bool
    ) -> DataLoader[Any]:
        hidden = self._hidden.get(name)
        # Workers must not touch hidden states on a GPU, which need no transfer either.
        on_device = hidden is not None and hidden.device.type != "cpu"
        collator = Collator(
            self.packed[name],
            part.labels,
            part.row_ids,
            self.word_ids,
            score_all=score_all,
            hidden=None if on_device else hidden,
            with_hidden_index=on_device,
        )
        return DataLoader(
            range(len(part)),  # type: ignore[arg-type]  # a range indexes like a data set
            batch_sampler=batches,
            collate_fn=collator,
            num_workers=self.num_workers,
            worker_init_fn=_ignore_preemption,
            # Otherwise, creating an iterator would draw from the generator that dropout uses.
            generator=torch.Generator().manual_seed(self.seed),
            persistent_workers=self.num_workers > 0,
            pin_memory=self.trainer is not None
            and self.trainer.strategy.root_device.type == "cuda",
        )

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


def build_datamodule(
    config: Config, splits: Splits, encoder: Encoder, word_ids: Sequence[int]
) -> TaskDataModule:
    """Tokenize the sets of a run; warn about sets of which much is truncated."""
    steps = config.trainer.max_steps
    data = TaskDataModule(
        splits,
        encoder,
        word_ids=word_ids,
        batch_size=config.data.batch_size,
        eval_batch_size=config.data.eval_batch_size,
        seed=config.seed,
        train_batches=steps * config.trainer.accumulate_grad_batches if steps else None,
        score_all_labels=config.loss == "label_words",
        bucketing=config.data.bucketing,
        num_workers=config.data.num_workers,
    )
    for name, packed in data.packed.items():
        share = packed.truncated / len(packed)
        if share > _WARN_TRUNCATED:
            text = "%.0f %% of the %s texts are truncated to %d tokens (data.max_length)."
            logger.warning(text, 100 * share, name, config.data.max_length)
    return data


def _ignore_preemption(_: int) -> None:
    """Keep a worker alive while the run saves its state; the run then ends its workers itself."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_PREEMPTION_SECONDS))
