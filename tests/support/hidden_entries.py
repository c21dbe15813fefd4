"""Entries of the hidden-state cache that tests make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lpt.caching.entry import CacheKey
from lpt.caching.store import HiddenCache

RECIPE = CacheKey("weights", 3, "float32", "32-true", "sdpa", "tokens", "cpu", "torch 1")


SHAPE = (4, 6)


def filled(cache: HiddenCache, recipe: CacheKey = RECIPE, value: float = 1.0) -> Tensor:
    """Build an entry of that value."""
    unfinished = cache.begin(recipe, SHAPE, torch.float32)
    matrix = cache.fill(unfinished, SHAPE, torch.float32)
    matrix.fill_(value)
    cache.finish(unfinished, recipe, "test", SHAPE, torch.float32)
    return matrix.clone()


def got(cache: HiddenCache, recipe: CacheKey = RECIPE) -> Tensor | None:
    return cache.get(recipe, SHAPE, torch.float32)


def redescribed(folder: Path, **changes: Any) -> None:
    """As someone's editor would change an entry's description; 1e999 and the like in quotes."""
    file = folder / "entry.json"
    text = json.dumps(json.loads(file.read_text()) | changes)
    file.write_text(text.replace('"!', "").replace('!"', ""))


HUGE: list[dict[str, Any]] = [
    {"shape": [10**12, 10**6]},
    {"shape": [10**400, 10**400]},
    {"shape": [-(10**12), 10**6]},
    {"shape": ["!NaN!", "!1e999!"]},
]
