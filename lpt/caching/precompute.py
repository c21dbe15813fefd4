"""Fills the hidden-state cache through Lightning's predict loop, so that devices share the work."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from lpt.caching.entry import CacheKey, SetLayer, map_hidden_states
from lpt.caching.store import HiddenCache
from lpt.data.batching import eval_batches
from lpt.data.packing import PackedTokens, Rows
from lpt.models.split import SplitModel


class HiddenStatePrecomputer(LightningModule):
    """Computes and stores the hidden states that the cache lacks.

    Rank 0 decides what is computed and allocates the entries; all ranks fill them.

    Args:
        split: The model whose lower layers are run.
        packed: Tokens of each set.
        batch_size: Rows per batch.
        cache: Where the entries are stored.
        keys: Cache key of each requested set and layer, the most important first.
        title: Task and model, for the descriptions of the entries.
        skip: Sets that are not to be computed, and why; they are used if they are cached already.
    """

    def __init__(
        self,
        split: SplitModel,
        packed: Mapping[str, PackedTokens],
        batch_size: int,
        cache: HiddenCache,
        keys: Mapping[SetLayer, CacheKey],
        title: str,
        skip: Mapping[str, str],
    ) -> None:
        super().__init__()
        self.split = split
        self.packed = packed
        self.batch_size = batch_size
        self.cache = cache
        self.keys = keys
        self.title = title
        self.skip = skip
        self.reasons: dict[CacheKey, str] = {}  # why entries are not cached
        self.missing: list[SetLayer] = []
        self.outputs: dict[str, dict[int, Tensor]] = {}
        self.cleanup = ExitStack()

    def compute(self, trainer: Trainer) -> dict[SetLayer, Tensor]:
        """Fill the cache; return the hidden states that it now holds, (n, D) each."""
        with self.cleanup, warnings.catch_warnings():
            # If everything is cached, there is nothing to predict.
            warnings.filterwarnings("ignore", ".*across ranks is zero.*")
            trainer.predict(self, return_predictions=False)
            opened = {name: self._open(key) for name, key in self.keys.items()}
        return {name: hidden for name, hidden in opened.items() if hidden is not None}

    def setup(self, stage: str) -> None:
        if self.trainer.is_global_zero:
            try:
                self._allocate_missing()
            except OSError as error:  # raising it here would leave the other ranks waiting
                self.reasons |= dict.fromkeys(self.keys.values(), str(error))
                self.missing = []
        agreed = self.trainer.strategy.broadcast((self.missing, self.reasons))
        self.missing, self.reasons = agreed
        try:
            for name in self.missing:
                path, key = self.cache.unfinished(self.keys[name]), self.keys[name]
                hidden = map_hidden_states(path, key, writable=True)
                self.outputs.setdefault(name.set, {})[name.layer] = hidden
            mapped = True
        except OSError as error:
            mapped = False
            self.reasons |= dict.fromkeys(self.keys.values(), str(error))
        if not self.trainer.strategy.reduce_boolean_decision(mapped):
            self.missing, self.outputs = [], {}

    def predict_dataloader(self) -> list[DataLoader[Any]]:
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        loaders: list[DataLoader[Any]] = []
        for packed in (self.packed[name] for name in self.outputs):
            batches: Any = eval_batches(packed.row_lengths(), self.batch_size, rank, world_size)
            # Lightning replaces batch samplers for prediction, so each batch is one item.
            collate = partial(_collate, packed)
            loaders.append(DataLoader(batches, batch_size=None, collate_fn=collate))
        return loaders

    def predict_step(self, batch: Rows, _: int, dataloader_idx: int = 0) -> int:
        """Run the lower stack once for all layers and write the states of real tokens.

        Returns:
            The number of tokens; Lightning warns of None.
        """
        outputs = list(self.outputs.values())[dataloader_idx]
        hidden_states = self.split.forward_lower_layers(
            list(outputs), batch.input_ids, batch.attention_mask, batch.branches
        )
        real = batch.attention_mask.bool()
        index = batch.hidden_index[real].cpu()
        for layer, hidden in hidden_states.items():
            outputs[layer][index] = hidden[real].cpu()
        return len(index)

    def on_predict_end(self) -> None:
        """Commit the entries on rank 0 once all ranks have written their share."""
        self.outputs = {}
        self.trainer.strategy.barrier()
        if self.trainer.is_global_zero:
            for name in self.missing:
                title = f"{self.title}, {name.set}, input of layer {name.layer}"
                try:
                    self.cache.commit(self.keys[name], title)
                except OSError as error:
                    self.reasons[self.keys[name]] = str(error)
        self.trainer.strategy.barrier()

    def _allocate_missing(self) -> None:
        selected: dict[CacheKey, SetLayer] = {}  # sets with the same tokens share an entry
        for name, key in self.keys.items():
            shortage = self.cache.describe_shortage(key.nbytes + sum(k.nbytes for k in selected))
            if key not in selected and shortage is not None:
                self.reasons[key] = shortage
            else:
                selected.setdefault(key, name)
        for key in sorted(selected, key=lambda key: key.name):  # one order everywhere: no deadlock
            self.cleanup.enter_context(self.cache.lock(key))
            if self.cache.get(key) is not None:
                continue
            if selected[key].set in self.skip:
                self.reasons[key] = self.skip[selected[key].set]
            else:
                self.missing.append(selected[key])
        # Only now: `get` has marked the entries in use, so that none of them is evicted.
        for name in self.missing:
            self.cleanup.callback(self.cache.abort, self.keys[name])  # unless it is committed
            self.cache.allocate(self.keys[name])

    def _open(self, key: CacheKey) -> Tensor | None:
        """The hidden states of a key if every rank can open them: ranks must not differ."""
        hidden = None
        try:
            if key not in self.reasons:
                hidden = self.cache.get(key, verify_checksum=False)
        except OSError as error:
            self.reasons[key] = str(error)
        everywhere = self.trainer.strategy.reduce_boolean_decision(hidden is not None)
        return hidden if everywhere else None


def _collate(packed: PackedTokens, examples: list[int]) -> Rows:
    return packed.rows(torch.tensor(examples))
