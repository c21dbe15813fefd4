"""Fills the hidden-state cache through Lightning's predict loop, so that devices share the work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from lightning import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from lpt.data.batching import pad, share
from lpt.data.datamodule import LatePromptData
from lpt.data.hidden_cache import HiddenCache, Recipe, TokenLayout, token_digest
from lpt.data.templates import Encoded
from lpt.models.split import SplitModel

_NOWHERE = -1


class TextBatch(NamedTuple):
    """Rows to be read.

    Attributes:
        input_ids: (B, T) token ids.
        attention_mask: (B, T), 1 for real tokens.
        places: (B, T) row of the flat matrix for each token; -1: not kept.
    """

    input_ids: Tensor
    attention_mask: Tensor
    places: Tensor


class Reader(LightningModule):
    """Computes and stores the hidden states of sets that the cache does not have yet.

    Args:
        split: The model whose lower stack reads.
        data: The encoded sets.
        cache: Where the entries are.
        recipes: For each set, what its states depend on.
        title: What the entries are, for people.
    """

    def __init__(
        self,
        split: SplitModel,
        data: LatePromptData,
        cache: HiddenCache,
        recipes: dict[str, Recipe],
        title: Callable[[str], str],
    ) -> None:
        super().__init__()
        self.split = split
        self.data = data
        self.cache = cache
        self.locks = ExitStack()
        self.recipes = recipes
        self.title = title
        self.unfinished: dict[str, Path] = {}
        self.targets: list[Tensor] = []

    def read(self, trainer: Trainer) -> dict[str, Tensor]:
        """Hidden states of every set, (tokens, D) each, from the cache or computed now."""
        with self.locks:
            try:
                trainer.predict(self, return_predictions=False)
            finally:
                if trainer.is_global_zero:
                    for path in self.unfinished.values():
                        self.cache.discard(path)
        found = {name: self.cache.get(recipe) for name, recipe in self.recipes.items()}
        return {name: hidden for name, hidden in found.items() if hidden is not None}

    def setup(self, stage: str) -> None:
        """Agree between the ranks on what is missing; the first one makes room for it."""
        if self.trainer.is_global_zero:
            # Sets with the same tokens share an entry.
            once = {recipe.key(): (name, recipe) for name, recipe in self.recipes.items()}
            for _, (name, recipe) in sorted(once.items()):
                self.locks.enter_context(self.cache.lock(recipe))
                if self.cache.get(recipe) is None:
                    self.unfinished[name] = self.cache.begin(self._shape(name), self.split.dtype)
        self.unfinished = self.trainer.strategy.broadcast(self.unfinished)
        self.targets = [
            self.cache.fill(path, self._shape(name), self.split.dtype)
            for name, path in self.unfinished.items()
        ]

    def predict_dataloader(self) -> list[DataLoader[Any]]:
        """Rows of each missing set, batches of like length, each in one rank."""
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        loaders: list[DataLoader[Any]] = []
        for name in self.unfinished:
            rows = TextRows(self.data.encoded[name], self.data.pad_id)
            batches = share(rows.batches(self.data.eval_batch_size), rank, world_size)
            # Lightning remakes batch samplers when it predicts: let each item be a batch.
            loaders.append(DataLoader(batches, batch_size=None, collate_fn=rows))  # type: ignore[arg-type]
        return loaders

    def predict_step(self, batch: TextBatch, _: int, dataloader_idx: int = 0) -> None:
        """Read one batch and put its tokens where they belong."""
        hidden = self.split.read(batch.input_ids, batch.attention_mask)
        kept = batch.places != _NOWHERE
        self.targets[dataloader_idx][batch.places[kept].cpu()] = hidden[kept].cpu()

    def on_predict_end(self) -> None:
        """When all ranks are done, the first one turns the files into entries."""
        self.targets = []
        self.trainer.strategy.barrier()
        if self.trainer.is_global_zero:
            for name, path in self.unfinished.items():
                recipe, shape = self.recipes[name], self._shape(name)
                self.cache.finish(path, recipe, self.title(name), shape, self.split.dtype)
        self.trainer.strategy.barrier()

    def _shape(self, name: str) -> tuple[int, int]:
        return TokenLayout(self.data.encoded[name]).tokens, self.split.hidden_size


def read_ahead(
    split: SplitModel,
    data: LatePromptData,
    trainer: Trainer,
    cache: HiddenCache,
    *,
    recipe: Recipe,
    title: str,
) -> str | None:
    """Have the hidden states of all sets at hand, as far as the cache can hold them.

    Args:
        split: The model whose lower stack reads.
        data: Its sets; it is given the hidden states.
        trainer: Its predict loop reads what is missing.
        cache: Where the entries are.
        recipe: What the states depend on, besides the token ids.
        title: What the entries are, for people.

    Returns:
        Why the lower stack is still needed; None if all that it would read is known.
    """
    recipes: dict[str, Recipe] = {}
    claimed = 0
    reasons: list[str] = []
    for name, encoded in data.encoded.items():
        size = TokenLayout(encoded).tokens * split.hidden_size * split.dtype.itemsize
        shortage = cache.shortage(claimed + size)
        if shortage is None:
            claimed += size
            recipes[name] = replace(recipe, tokens=token_digest(encoded))
        else:
            reasons.append(f"{name}: {shortage}")
    try:
        reader = Reader(split, data, cache, recipes, lambda name: f"{title}, {name}")
        hidden = reader.read(trainer)
    except OSError as error:
        reasons.append(str(error))
        hidden, recipes = {}, {}
    data.use_hidden(hidden)
    reasons += [f"{name}: the entry is gone again" for name in recipes if name not in hidden]
    return "; ".join(reasons) or None


class TextRows:
    """The rows of a set whose tokens are to be read: each token is kept from one row only.

    A causal example is a row for each label; the context is kept from the first.
    """

    def __init__(self, encoded: Encoded, pad_id: int) -> None:
        self.pad_id = pad_id
        layout = TokenLayout(encoded)
        self.rows: list[tuple[list[int], list[int]]] = []
        for i, context in enumerate(encoded.context):
            if not encoded.endings:
                self.rows.append((context, layout.places(i)))
                continue
            for label, ending in enumerate(encoded.endings[i]):
                places = layout.places(i, label)
                if label > 0:
                    places[: len(context)] = [_NOWHERE] * len(context)
                self.rows.append((context + ending, places))

    def batches(self, size: int) -> list[list[int]]:
        """Numbers of rows, in batches of like length."""
        order = sorted(range(len(self.rows)), key=lambda i: len(self.rows[i][0]))
        return [order[at : at + size] for at in range(0, len(order), size)]

    def __call__(self, numbers: Sequence[int]) -> TextBatch:
        """Tensors of those rows."""
        ids, mask = pad([self.rows[i][0] for i in numbers], self.pad_id)
        places, _ = pad([self.rows[i][1] for i in numbers], _NOWHERE)
        return TextBatch(ids, mask, places)
