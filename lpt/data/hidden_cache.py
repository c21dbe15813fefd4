"""What the frozen lower stack says of every example, computed once and kept.

Everything in front of the prompt is a pure function of weights, token ids, layer and arithmetic, so
it is shared by epochs, seeds, learning rates, generators and prompt lengths, and by processes.

An entry is a folder named by a hash of all it depends on: `hidden.bin` holds the hidden states of
all tokens without padding, (tokens, D), in the order of `PackedTokens`, and `entry.json` says what
they are. It is built under another name and renamed when complete, and its checksum is verified
whenever it is opened.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from filelock import FileLock
from torch import Tensor

logger = logging.getLogger(__name__)

FORMAT = 2
_HIDDEN = "hidden.bin"
_ENTRY = "entry.json"
_UNFINISHED = ".unfinished-"
_CHUNK_BYTES = 1 << 24
_SPARE_BYTES = 1 << 30  # left free on the disk
_ABANDONED_S = 86_400


@dataclass(frozen=True)
class Recipe:
    """All that the hidden states of a set depend on.

    Attributes:
        weights: Fingerprint of the backbone.
        layer: Layer in front of which the states are taken.
        dtype: Type of the frozen weights.
        precision: Lightning's arithmetic.
        attention: Attention implementation in use.
        tokens: SHA-256 of the token ids.
        versions: Versions of the libraries that compute.
    """

    weights: str
    layer: int
    dtype: str
    precision: str
    attention: str
    tokens: str
    versions: str

    def key(self) -> str:
        """Name of the entry."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Entry:
    """A finished entry as `entry.json` describes it.

    Attributes:
        path: Its folder.
        title: What it is, for people.
        shape: (tokens, D).
        dtype: Type of the stored states.
        checksum: xxh3 of hidden.bin.
        recipe: All it depends on.
        used: Time of last use, seconds since the epoch.
    """

    path: Path
    title: str
    shape: tuple[int, int]
    dtype: str
    checksum: str
    recipe: Mapping[str, Any]
    used: float

    @property
    def size(self) -> int:
        """Bytes of the hidden states."""
        return self.shape[0] * self.shape[1] * getattr(torch, self.dtype).itemsize

    def problem(self) -> str | None:
        """Why it cannot be used; None for a sound entry."""
        file = self.path / _HIDDEN
        if not file.is_file() or file.stat().st_size != self.size:
            return "its size is wrong"
        if _checksum(file) != self.checksum:
            return "its checksum is wrong"
        return None

    def load(self) -> Tensor:
        """The hidden states, memory-mapped: (tokens, D)."""
        tokens, width = self.shape
        flat = torch.from_file(
            str(self.path / _HIDDEN), size=tokens * width, dtype=getattr(torch, self.dtype)
        )
        return flat.view(tokens, width)


class HiddenCache:
    """A folder of entries within a budget.

    Args:
        folder: Made if it is not there.
        max_bytes: Size of all entries; the ones unused for longest go first.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes

    def entries(self) -> list[Entry]:
        """Finished entries of this format, the last used first."""
        found = [self._describe(path) for path in self.folder.glob("[!.]*") if path.is_dir()]
        return sorted(filter(None, found), key=lambda entry: -entry.used)

    def get(self, recipe: Recipe) -> Tensor | None:
        """The hidden states of a recipe; None if there are none or they are damaged."""
        path = self.folder / recipe.key()
        entry = self._describe(path)
        if entry is None:
            return None
        problem = entry.problem() or (None if entry.recipe == asdict(recipe) else "it is foreign")
        if problem:
            logger.warning("Hidden states in %s are built anew: %s.", path, problem)
            shutil.rmtree(path, ignore_errors=True)
            return None
        os.utime(path / _ENTRY)
        return entry.load()

    def lock(self, recipe: Recipe) -> FileLock:
        """Held by the process that builds an entry; others wait for it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / f".{recipe.key()}.lock")

    def shortage(self, size: int) -> str | None:
        """Why an entry of that many bytes does not fit; None if it does."""
        if size > self.max_bytes:
            return f"it takes {size / 1e9:.1f} GB, the budget (cache.max_gb) is {self._gb():.1f}"
        parent = next(p for p in (self.folder, *self.folder.parents) if p.exists())
        if not os.access(parent, os.W_OK):
            return f"{parent} cannot be written to"
        free = shutil.disk_usage(parent).free + sum(e.size for e in self.entries())
        if size + _SPARE_BYTES > free:
            return f"it takes {size / 1e9:.1f} GB, more than the disk of {parent} has free"
        return None

    def make_room(self, size: int) -> None:
        """Evict entries, the longest unused first, until that many bytes fit."""
        entries = self.entries()
        while entries and self._too_full(entries, size):
            shutil.rmtree(entries.pop().path, ignore_errors=True)

    def begin(self, shape: tuple[int, int], dtype: torch.dtype) -> Path:
        """Make an unfinished entry with room for that matrix, to be filled through `fill`.

        Raises:
            OSError: The disk is full or cannot be written to.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        size = shape[0] * shape[1] * dtype.itemsize
        self._sweep()
        self.make_room(size)
        unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=self.folder))
        with (unfinished / _HIDDEN).open("wb") as file:
            # Without the blocks set aside, a full disk would kill the process that fills them.
            os.posix_fallocate(file.fileno(), 0, size)
        return unfinished

    @staticmethod
    def fill(unfinished: Path, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """The matrix of an unfinished entry; what is written to it goes to the file."""
        file = str(unfinished / _HIDDEN)
        size = shape[0] * shape[1]
        return torch.from_file(file, shared=True, size=size, dtype=dtype).view(shape)

    def finish(
        self,
        unfinished: Path,
        recipe: Recipe,
        title: str,
        shape: tuple[int, int],
        dtype: torch.dtype,
    ) -> None:
        """Turn a filled entry into a finished one, at once."""
        description = {
            "format": FORMAT,
            "title": title,
            "shape": shape,
            "dtype": str(dtype).removeprefix("torch."),
            "checksum": _checksum(unfinished / _HIDDEN),
            "recipe": asdict(recipe),
        }
        (unfinished / _ENTRY).write_text(json.dumps(description, indent=2), encoding="utf-8")
        unfinished.rename(self.folder / recipe.key())

    @staticmethod
    def discard(unfinished: Path) -> None:
        """Remove an entry that was not finished; nothing happens if it was."""
        shutil.rmtree(unfinished, ignore_errors=True)

    def clear(self) -> int:
        """Remove all entries and what interrupted builds left; returns how many."""
        paths = [path for path in self.folder.glob("*") if path.is_dir()]  # unfinished ones, too
        for path in paths:
            shutil.rmtree(path, ignore_errors=True)
        return len(paths)

    def _sweep(self) -> None:
        """Remove what builds that were killed left behind long ago."""
        for path in self.folder.glob(f"{_UNFINISHED}*"):
            if time.time() - path.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(path, ignore_errors=True)

    def _unfinished_bytes(self) -> int:
        """Size of what is being built, here or by others."""
        files = self.folder.glob(f"{_UNFINISHED}*/{_HIDDEN}")
        return sum(file.stat().st_size for file in files if file.exists())

    def _describe(self, path: Path) -> Entry | None:
        try:
            file = path / _ENTRY
            known = json.loads(file.read_text(encoding="utf-8"))
            if known.pop("format") != FORMAT:
                return None
            tokens, width = (int(n) for n in known.pop("shape"))
            used = file.stat().st_mtime
            return Entry(path=path, shape=(tokens, width), used=used, **known)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _too_full(self, entries: Sequence[Entry], size: int) -> bool:
        held = sum(entry.size for entry in entries) + self._unfinished_bytes()
        free = shutil.disk_usage(self.folder).free
        return held + size > self.max_bytes or size + _SPARE_BYTES > free

    def _gb(self) -> float:
        return self.max_bytes / 1e9


def _checksum(file: Path) -> str:
    digest = xxhash.xxh3_64()
    with file.open("rb") as handle:
        while chunk := handle.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
