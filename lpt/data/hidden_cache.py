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
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import xxhash
from filelock import FileLock, Timeout
from torch import Tensor

from lpt.errors import Problems
from lpt.limits import limits
from lpt.records import read_json, to_record

logger = logging.getLogger(__name__)

FORMAT = 2
_HIDDEN = "hidden.bin"
_ENTRY = "entry.json"
_UNFINISHED = ".unfinished-"
_CHUNK_BYTES = 1 << 24
_SPARE_BYTES = 1 << 30  # left free on the disk


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
        device: Kind of device.
        versions: Versions of the libraries that compute.
    """

    weights: str
    layer: int
    dtype: str
    precision: str
    attention: str
    tokens: str
    device: str
    versions: str

    def key(self) -> str:
        """Name of the entry."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class _Description:
    """What entry.json says."""

    format: int
    title: str
    shape: list[int]
    dtype: str = field(metadata=limits(choices=("float32", "bfloat16", "float16")))
    checksum: str
    recipe: dict[str, Any]


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

    def problem(self, *, verify: bool = True) -> str | None:
        """Why it cannot be used; None for a sound entry. Without `verify` the size must do."""
        file = self.path / _HIDDEN
        if not file.is_file() or file.stat().st_size != self.size:
            return "its size is wrong"
        if verify and _checksum(file) != self.checksum:
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
        found = map(self._describe, self._finished())
        return sorted(filter(None, found), key=lambda entry: -entry.used)

    def get(self, recipe: Recipe, *, verify: bool = True) -> Tensor | None:
        """The hidden states of a recipe; None if there are none or they are damaged.

        Args:
            recipe: What they depend on.
            verify: Whether to read the whole entry for its checksum; False: it was just done.
        """
        path = self.folder / recipe.key()
        try:
            entry = self._describe(path)
            if entry is None:
                shutil.rmtree(path, ignore_errors=True)  # nothing there, or nothing of use
                return None
            problem = entry.problem(verify=verify)
            if entry.recipe != asdict(recipe):
                problem = "it is foreign"
            if problem:
                logger.warning("Hidden states in %s are built anew: %s.", path, problem)
                shutil.rmtree(path, ignore_errors=True)
                return None
            os.utime(path / _ENTRY)
            return entry.load()
        except FileNotFoundError:  # another process needed the room
            return None

    def lock(self, recipe: Recipe) -> FileLock:
        """Held by the process that builds an entry; others wait for it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self._lock(recipe.key())

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
        """Evict entries until that many bytes fit: what cannot be read, then the longest unused."""
        used = {entry.path: entry.used for entry in self.entries()}
        for path in sorted(self._finished(), key=lambda path: used.get(path, 0.0)):
            if not self._too_full(size):
                break
            shutil.rmtree(path, ignore_errors=True)

    def begin(self, recipe: Recipe, shape: tuple[int, int], dtype: torch.dtype) -> Path:
        """Make an unfinished entry with room for that matrix, to be filled through `fill`.

        The caller holds the recipe's lock, by which others know that the builder is alive.

        Raises:
            OSError: The disk is full or cannot be written to.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        size = shape[0] * shape[1] * dtype.itemsize
        self._sweep()
        self.make_room(size)
        prefix = f"{_UNFINISHED}{recipe.key()}-"
        unfinished = Path(tempfile.mkdtemp(prefix=prefix, dir=self.folder))
        try:
            with (unfinished / _HIDDEN).open("wb") as file:
                # Without the blocks set aside, a full disk would kill the process that fills them.
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError:
            self.discard(unfinished)
            raise
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
        # Not synced: whatever a power cut leaves of the states, their checksum tells.
        description = _Description(
            format=FORMAT,
            title=title,
            shape=list(shape),
            dtype=str(dtype).removeprefix("torch."),
            checksum=_checksum(unfinished / _HIDDEN),
            recipe=asdict(recipe),
        )
        text = json.dumps(asdict(description), indent=2)
        (unfinished / _ENTRY).write_text(text, encoding="utf-8")
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

    def _lock(self, key: str) -> FileLock:
        return FileLock(self.folder / f".{key}.lock")

    def _finished(self) -> list[Path]:
        return [path for path in self.folder.glob("[!.]*") if path.is_dir()]

    def _sweep(self) -> None:
        """Remove what builds that were killed left behind: nobody holds their lock."""
        for path in self.folder.glob(f"{_UNFINISHED}*"):
            key = path.name.removeprefix(_UNFINISHED).partition("-")[0]
            with suppress(Timeout), self._lock(key).acquire(timeout=0):
                shutil.rmtree(path, ignore_errors=True)

    def _describe(self, path: Path) -> Entry | None:
        try:
            file = path / _ENTRY
            known = to_record(_Description, read_json(file), "", Problems())
            if known is None or known.format != FORMAT or len(known.shape) != 2:
                return None
            tokens, width = known.shape
            return Entry(
                path=path,
                title=known.title,
                shape=(tokens, width),
                dtype=known.dtype,
                checksum=known.checksum,
                recipe=known.recipe,
                used=file.stat().st_mtime,
            )
        except (OSError, ValueError):
            return None

    def _too_full(self, size: int) -> bool:
        # All that is there, also what other processes are building.
        held = sum(_size(file) for file in self.folder.glob(f"*/{_HIDDEN}"))
        free = shutil.disk_usage(self.folder).free
        return held + size > self.max_bytes or size + _SPARE_BYTES > free

    def _gb(self) -> float:
        return self.max_bytes / 1e9


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # finished or evicted meanwhile
        return 0


def _checksum(file: Path) -> str:
    digest = xxhash.xxh3_64()
    with file.open("rb") as handle:
        while chunk := handle.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
