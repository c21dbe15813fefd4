"""Label scores of the language model without a method: kept, as no run changes them.

A file `scores-*.json` beside the cache entries holds those of one set; see `lpt.caching.entry`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import torch
import xxhash
from filelock import FileLock
from torch import Tensor

from lpt.caching.entry import CacheKey
from lpt.errors import ConfigError
from lpt.files import GB, JsonModel, read_json_model, write_atomically

logger = logging.getLogger(__name__)

SCORE_FILES = "scores-*.json"


class ScoresKey(JsonModel):
    """Everything that the label scores of a set depend on.

    Attributes:
        states: Key of the final hidden states, the input of layer L + 1.
        words: Token of each label word.
    """

    states: CacheKey
    words: list[int]

    @property
    def file_name(self) -> str:
        """Name of the file."""
        digest = hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:32]
        return SCORE_FILES.replace("*", digest)


class CachedScores(JsonModel):
    """Content of a file.

    Attributes:
        format: Version of the format.
        checksum: xxh3 of the scores.
        key: What they depend on.
        scores: (E, labels) in the order of `PackedTokens`.
    """

    format: Literal[1] = 1
    checksum: str
    key: ScoresKey
    scores: list[list[float]]


def cached_scores(folder: Path, key: ScoresKey, compute: Callable[[], Tensor]) -> Tensor:
    """The label scores of a set, (E, labels) in float32, from its file or else computed.

    A process that computes the same scores is waited for. Without a folder that can be written,
    scores are computed and not cached.
    """
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(folder / f".{key.file_name}.lock"))
            kept = _read(folder / key.file_name, key)
        except OSError as error:
            logger.warning("Zero-shot scores are not cached: %s.", error)
            return compute()
        if kept is not None:
            return kept
        scores = compute()
        if scores.isfinite().all():
            try:
                _write(folder / key.file_name, key, scores)
            except OSError as error:
                logger.warning("Zero-shot scores are not cached: %s.", error)
        return scores


def _read(file: Path, key: ScoresKey) -> Tensor | None:
    if not file.exists():
        return None
    try:
        kept = read_json_model(file, CachedScores, max_bytes=GB)
    except ConfigError as error:
        logger.warning("Computing zero-shot scores again: %s", error)
        return None
    if kept.key != key or kept.checksum != _checksum(kept.scores):
        logger.warning("Computing zero-shot scores again: %s is damaged.", file)
        return None
    return torch.tensor(kept.scores)


def _write(file: Path, key: ScoresKey, scores: Tensor) -> None:
    values = scores.tolist()
    kept = CachedScores(checksum=_checksum(values), key=key, scores=values)
    write_atomically(file, kept.model_dump_json() + "\n")


def _checksum(scores: list[list[float]]) -> str:
    return xxhash.xxh3_64(repr(scores).encode()).hexdigest()
