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
from lpt.data.packing import PackedTokens, tokenize
from lpt.data.splits import Splits
from lpt.data.templates import Encoder
from lpt.models.inputs import Batch

logger = logging.getLogger(__name__)

_SETS: dict[RunningStage | None, str] = {
    RunningStage.TRAINING: "train",
    RunningStage.SANITY_CHECKING: "dev",
    RunningStage.VALIDATING: "dev",
}
_PREEMPTION_SECONDS = 60  # that a worker stays after SIGTERM
_WARN_TRUNCATED = 0.1  # share of texts


class TaskDataModule(LightningDataModule):
    """Tokenizes the sets of a run and makes their data loaders.

    Args:
        config: Configuration of the run.
        splits: The sets.
        encoder: Renders and tokenizes rows.
        word_ids: Token of each label's word.

    Attributes:
        packed: Tokens of each set.
        hidden: Cached hidden states of sets, (n, D) each, in the order of `PackedTokens`. Those on
            a GPU stay there: a batch carries their indices, and they are gathered after its
            transfer.
        final: The same of the states behind the last layer; they stay on the CPU, since a batch has
            one for each row.
        test_set: Name of the set that `test_dataloader` loads.
    """

    def __init__(
        self, config: Config, splits: Splits, encoder: Encoder, word_ids: Sequence[int]
    ) -> None:
        super().__init__()
        self.config = config
        self.splits = splits
        self.word_ids = word_ids
        self.test_set = "test"
        self.hidden: Mapping[str, Tensor] = {}
        self.final: Mapping[str, Tensor] = {}
        self._consumed_batches = 0
        self.packed: Mapping[str, PackedTokens] = {
            name: tokenize(encoder, examples.columns) for name, examples in splits.sets.items()
        }
        for name, packed in self.packed.items():
            share = packed.truncated / len(packed)
            if share > _WARN_TRUNCATED:
                text = "%.0f %% of the %s texts are truncated to %d tokens (data.max_length)."
                logger.warning(text, 100 * share, name, config.data.max_length)

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled training batches of this rank."""
        config, packed = self.config, self.packed["train"]
        score_all, steps = config.loss == "label_words", config.trainer.max_steps
        one_label_part = packed.num_label_parts > 0 and not score_all
        labels = torch.tensor(self.splits.sets["train"].labels) if one_label_part else None
        rank, world_size = self._ranks()
        sampler = TrainBatchSampler(
            len(packed),
            config.data.batch_size,
            config.seed,
            lengths=packed.row_lengths(labels) if config.data.bucketing else None,
            num_batches=steps * config.trainer.accumulate_grad_batches if steps else None,
            consumed_batches=self._consumed_batches,
            rank=rank,
            world_size=world_size,
        )
        return self._dataloader("train", sampler, score_all=score_all)

    def val_dataloader(self) -> DataLoader[Any]:
        """Dev batches of this rank."""
        return self._eval_dataloader("dev")

    def test_dataloader(self) -> DataLoader[Any]:
        """Batches of this rank of the set that `test_set` names."""
        return self._eval_dataloader(self.test_set)

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
        name = _SETS.get(self.trainer.state.stage, self.test_set)
        return batch._replace(hidden=self.hidden[name][batch.hidden_index], hidden_index=None)

    def _eval_dataloader(self, name: str) -> DataLoader[Any]:
        lengths, batch_size = self.packed[name].row_lengths(), self.config.data.eval_batch_size
        batches = eval_batches(lengths, batch_size, *self._ranks())
        return self._dataloader(name, batches, score_all=True)

    def _dataloader(self, name: str, batches: Any, *, score_all: bool) -> DataLoader[Any]:
        examples, hidden = self.splits.sets[name], self.hidden.get(name)
        num_workers = self.config.data.num_workers
        # Workers must not touch hidden states on a GPU, which need no transfer either.
        on_device = hidden is not None and hidden.device.type != "cpu"
        collator = Collator(
            self.packed[name],
            examples.labels,
            examples.row_ids,
            self.word_ids,
            score_all=score_all,
            hidden=None if on_device else hidden,
            final=self.final.get(name),
            with_hidden_index=on_device,
        )
        return DataLoader(
            range(len(examples)),  # type: ignore[arg-type]  # a range indexes like a data set
            batch_sampler=batches,
            collate_fn=collator,
            num_workers=num_workers,
            worker_init_fn=_ignore_preemption,
            # Otherwise, creating an iterator would draw from the generator that dropout uses.
            generator=torch.Generator().manual_seed(self.config.seed),
            persistent_workers=num_workers > 0,
            pin_memory=self.trainer is not None
            and self.trainer.strategy.root_device.type == "cuda",
        )

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)


def _ignore_preemption(_: int) -> None:
    """Keep a worker alive while the run saves its state; the run then ends its workers itself."""
    for number in (signal.SIGUSR1, signal.SIGINT):  # Ctrl-C in a terminal reaches all processes
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_PREEMPTION_SECONDS))
