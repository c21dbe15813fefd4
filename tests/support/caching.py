"""Entries of the hidden-state cache, and filling it as a run does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning import Trainer
from torch import Tensor, nn

from lpt.caching.entry import CacheDescription, CacheKey, map_hidden_states
from lpt.caching.fill import cache_hidden_states
from lpt.caching.store import HiddenCache
from lpt.config.schema import Config
from lpt.runs.record import CacheRecord
from lpt.training.module import build_model
from lpt.training.plan import prepare
from tests.support.trained import build_data

KEY = CacheKey(
    fingerprint="weights",
    layer=3,
    tokens="digest",
    shape=(4, 6),
    dtype="float32",
    precision="32-true",
    attention="sdpa",
    device="cpu",
    versions="torch 1",
)


def other_key(**changes: Any) -> CacheKey:
    return CacheKey.model_validate(KEY.model_dump() | changes)


def fill(cache: HiddenCache, key: CacheKey = KEY, value: float = 1.0) -> Tensor:
    """Make an entry whose hidden states all have that value."""
    cache.allocate(key)
    hidden = map_hidden_states(cache.unfinished(key), key, writable=True)
    hidden.fill_(value)
    cache.commit(key, "test")
    return hidden.clone()


def edit_description(folder: Path, **changes: Any) -> None:
    file = folder / "entry.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def folders(cache: HiddenCache) -> set[str]:
    """Names of all folders of a cache, unfinished entries included."""
    return {path.name for path in cache.folder.glob("*") if path.is_dir()}


def stored(folder: Path) -> dict[tuple[int, str], Tensor]:
    """The hidden states of all entries, by layer and token ids."""
    paths = HiddenCache(folder, 1).paths()
    keys = {path: CacheDescription.read(path).key for path in paths}
    return {(k.layer, k.tokens): map_hidden_states(path, k) for path, k in keys.items()}


def small_trainer() -> Trainer:
    """A trainer that only predicts."""
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )


class Filling:
    """Fills the cache as a run with this configuration does before its training."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.rows: list[int] = []  # of each pass through the lower layers
        plan = prepare(config)
        model, self.identity = build_model(plan)
        self.split, self.data = model.split, build_data(config, plan)
        self.embeddings.register_forward_hook(lambda *given: self.rows.append(len(given[-1])))

    @property
    def embeddings(self) -> nn.Module:
        """Where a pass through the lower layers begins."""
        assert self.split.lower is not None
        return next(m for m in self.split.lower.modules() if isinstance(m, nn.Embedding))

    def fill(self) -> CacheRecord:
        """What is cached then."""
        fingerprint = self.identity.fingerprint
        return cache_hidden_states(self.config, small_trainer(), self.split, self.data, fingerprint)


def fill_as_run(config: Config) -> tuple[CacheRecord, Filling]:
    filling = Filling(config)
    return filling.fill(), filling
