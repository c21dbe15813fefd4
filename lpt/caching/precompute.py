"""Fills the hidden-state cache through Lightning's predict loop, so that devices share the work."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from lightning import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from lpt.caching.entry import CacheKey
from lpt.caching.store import HiddenCache
from lpt.data.batching import eval_batches
from lpt.data.datamodule import LatePromptData
from lpt.data.packing import PackedTokens
from lpt.models.split import Branches, SplitModel

logger = logging.getLogger(__name__)


class TextBatch(NamedTuple):
    """Rows to be read.

    Attributes:
        input_ids: (B, T) token ids.
        attention_mask: (B, T), 1 for real tokens.
        branches: Of causal models.
        places: (B, T) row of the flat matrix for each real token.
    """

    input_ids: Tensor
    attention_mask: Tensor
    branches: Branches | None
    places: Tensor


class State(NamedTuple):
    """Hidden states of one set in front of one layer."""

    set: str
    layer: int


class HiddenStatePrecomputer(LightningModule):
    """Computes and stores the hidden states that the cache does not have yet.

    The first rank decides what is kept and what is missing; all ranks read.

    Args:
        split: The model whose lower layers read.
        packed: The tokens of each set.
        batch_size: Rows a batch.
        cache: Where the entries are.
        recipes: What each of the states depends on, the most wanted first.
        title: What they are, for people.
        skip: Sets that are not worth reading, and why; used where they have been read before.

    Attributes:
        skipped: Why entries are not kept, by their key.
    """

    def __init__(
        self,
        split: SplitModel,
        packed: Mapping[str, PackedTokens],
        batch_size: int,
        cache: HiddenCache,
        recipes: Mapping[State, CacheKey],
        title: Callable[[State], str],
        skip: Mapping[str, str],
    ) -> None:
        super().__init__()
        self.split = split
        self.packed = packed
        self.batch_size = batch_size
        self.cache = cache
        self.locks = ExitStack()
        self.recipes = recipes
        self.title = title
        self.skip = skip
        self.skipped: dict[str, str] = {}
        self.unfinished: dict[State, Path] = {}
        self.targets: dict[State, Tensor] = {}

    def read(self, trainer: Trainer) -> dict[State, Tensor]:
        """Those of the states that could be kept, (tokens, D) each."""
        found: dict[State, Tensor] = {}
        with self.locks:
            try:
                trainer.predict(self, return_predictions=False)
            finally:
                if trainer.is_global_zero:
                    self._discard()
            for state, recipe in self.recipes.items():
                hidden = None
                if recipe.key() not in self.skipped:
                    hidden = self._get(state, verify=False)
                # Another process may have needed the room: no rank goes on with what others lack.
                all_have_it = trainer.strategy.reduce_boolean_decision(hidden is not None)
                if hidden is not None and all_have_it:
                    found[state] = hidden
        return found

    def setup(self, stage: str) -> None:
        """Agree between the ranks on what is missing; the first one makes room for it."""
        if self.trainer.is_global_zero:
            try:
                self._make_room()
            except OSError as error:  # raised, it would leave the other ranks waiting
                self.skipped |= {recipe.key(): str(error) for recipe in self.recipes.values()}
                self._discard()
        agreed = self.trainer.strategy.broadcast((self.unfinished, self.skipped))
        self.unfinished, self.skipped = agreed
        self.targets = {
            state: self.cache.fill(path, self._shape(state), self.split.dtype)
            for state, path in self.unfinished.items()
        }

    def _discard(self) -> None:
        for path in self.unfinished.values():
            self.cache.discard(path)
        self.unfinished = {}

    def _make_room(self) -> None:
        claimed = 0
        kept: dict[str, State] = {}  # sets with the same tokens share an entry
        for state, recipe in self.recipes.items():
            key, shape = recipe.key(), self._shape(state)
            if key in kept or key in self.skipped:
                continue
            size = shape[0] * shape[1] * self.split.dtype.itemsize
            shortage = self.cache.shortage(claimed + size)
            if shortage is None:
                claimed += size
                kept[key] = state
            else:
                self.skipped[key] = shortage
        missing = []
        for _, state in sorted(kept.items()):  # in one order everywhere: no deadlock
            recipe = self.recipes[state]
            self.locks.enter_context(self.cache.lock(recipe))
            if self._get(state) is not None:
                continue
            if state.set in self.skip:
                self.skipped[recipe.key()] = self.skip[state.set]
            else:
                missing.append(state)
        # Only now, so that what is there already counts as used and makes room for nothing.
        for state in missing:
            begun = self.cache.begin(self.recipes[state], self._shape(state), self.split.dtype)
            self.unfinished[state] = begun

    def predict_dataloader(self) -> list[DataLoader[Any]]:
        """Rows of each set that lacks something, batches of like length, each in one rank."""
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        loaders: list[DataLoader[Any]] = []
        for name in self._sets():
            packed = self.packed[name]
            lengths = packed.row_lengths().tolist()
            batches = eval_batches(lengths, self.batch_size, rank, world_size)
            # Lightning remakes batch samplers when it predicts: let each item be a batch.
            loader: DataLoader[Any] = DataLoader(
                batches,  # type: ignore[arg-type]
                batch_size=None,
                collate_fn=TextCollator(packed),
            )
            loaders.append(loader)
        return loaders

    def predict_step(self, batch: TextBatch, _: int, dataloader_idx: int = 0) -> None:
        """Read one batch, in front of all layers at once, and put its tokens where they belong."""
        name = self._sets()[dataloader_idx]
        layers = [state.layer for state in self.targets if state.set == name]
        read = self.split.read_layers(layers, batch.input_ids, batch.attention_mask, batch.branches)
        real = batch.attention_mask.bool()
        places = batch.places[real].cpu()
        for layer, hidden in read.items():
            self.targets[State(name, layer)][places] = hidden[real].cpu()

    def on_predict_end(self) -> None:
        """When all ranks are done, the first one turns the files into entries."""
        self.targets = {}
        self.trainer.strategy.barrier()
        if self.trainer.is_global_zero:
            for state, path in self.unfinished.items():
                recipe, shape = self.recipes[state], self._shape(state)
                try:
                    self.cache.finish(path, recipe, self.title(state), shape, self.split.dtype)
                except OSError as error:
                    logger.warning("Hidden states could not be kept: %s", error)
        self.trainer.strategy.barrier()

    def _get(self, state: State, *, verify: bool = True) -> Tensor | None:
        shape = self._shape(state)
        return self.cache.get(self.recipes[state], shape, self.split.dtype, verify=verify)

    def _sets(self) -> list[str]:
        return list(dict.fromkeys(state.set for state in self.unfinished))

    def _shape(self, state: State) -> tuple[int, int]:
        return self.packed[state.set].tokens, self.split.hidden_size


class TextCollator:
    """Makes a `TextBatch` of the examples with the given numbers."""

    def __init__(self, packed: PackedTokens) -> None:
        self.packed = packed

    def __call__(self, examples: Sequence[int]) -> TextBatch:
        """Tensors for those examples, on the CPU."""
        rows = self.packed.rows(torch.tensor(examples))
        branches = Branches(rows.branch, rows.positions) if self.packed.parts else None
        return TextBatch(rows.ids, rows.mask, branches, rows.places)


def precompute(
    split: SplitModel,
    data: LatePromptData,
    trainer: Trainer,
    cache: HiddenCache,
    *,
    recipe: CacheKey,
    title: str,
    layers: Sequence[int] = (),
    skip: Mapping[str, str] = MappingProxyType({}),
) -> str | None:
    """Have the hidden states of all sets at hand, as far as the cache can hold them.

    Args:
        split: The model whose lower layers read.
        data: Its sets; it is given the hidden states.
        trainer: Its predict loop reads what is missing.
        cache: Where the entries are.
        recipe: What the states depend on, besides the token ids and the layer.
        title: What the entries are, for people.
        layers: Layers whose entries are made in the same pass, for other runs.
        skip: Sets that are not worth reading, and why.

    Returns:
        Why the lower stack is still needed; None if all that it would read is known.
    """
    digests = {name: packed.digest() for name, packed in data.packed.items()}
    recipes = {
        State(name, layer): replace(recipe, layer=layer, tokens=digest)
        for layer in dict.fromkeys((split.layer, *layers))
        for name, digest in digests.items()
    }
    reader = HiddenStatePrecomputer(
        split,
        data.packed,
        data.eval_batch_size,
        cache,
        recipes,
        lambda state: f"{title} in front of layer {state.layer}, {state.set}",
        skip,
    )
    found = reader.read(trainer)
    data.use_hidden({s.set: hidden for s, hidden in found.items() if s.layer == split.layer})
    reasons: list[str] = []
    for state in recipes.keys() - found.keys():
        reason = reader.skipped.get(recipes[state].key(), "the entry is gone again")
        if state.layer == split.layer:
            reasons.append(f"{state.set}: {reason}")
        else:
            logger.warning("Layer %d, %s is not kept: %s", state.layer, state.set, reason)
    return "; ".join(sorted(reasons)) or None
