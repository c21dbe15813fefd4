"""The hidden-state cache: lookup of entries, eviction, and how new ones are made.

Hidden states below the method are a pure function of weights, token ids, layer and arithmetic, so
epochs, seeds, learning rates, methods and processes share them. An entry
(`lpt.caching.entry`) is a folder named by a hash of its key. It is filled under a temporary name
and renamed when complete; its checksum is verified before it is used.
"""

from __future__ import annotations

import logging
import os
import shutil
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout
from torch import Tensor

from lpt.caching.entry import (
    DESCRIPTION_FILE,
    FORMAT,
    HIDDEN_FILE,
    CacheDescription,
    CacheKey,
    last_used,
    map_hidden_states,
    stored_bytes,
)
from lpt.caching.scores import SCORE_FILES
from lpt.errors import ConfigError
from lpt.files import GB, checksum

logger = logging.getLogger(__name__)

_UNFINISHED = ".unfinished-"
_SPARE_BYTES = GB  # left free on the disk


class HiddenCache:
    """A folder of entries within a budget.

    Args:
        folder: Created when the first entry is.
        max_bytes: Size of all entries; the least recently used ones are evicted first.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes

    def paths(self) -> list[Path]:
        """Folders of the finished entries, the least recently used first."""
        return sorted(filter(Path.is_dir, self.folder.glob("[!.]*")), key=last_used)

    def get(self, key: CacheKey, *, verify_checksum: bool = True) -> Tensor | None:
        """The hidden states of a key, memory-mapped: (n, D); None without a sound entry.

        `verify_checksum` reads the whole entry. A damaged one stays until `allocate` replaces it.

        Raises:
            OSError: The entry cannot be read, e.g. without permission or with too many open files:
                it may be sound.
        """
        path = self.folder / key.name
        if not path.exists():
            return None
        try:
            description = CacheDescription.read(path)
            damage = description.find_damage(path, verify_checksum=verify_checksum)
            if description.key != key:
                damage = "it belongs to a different cache key"
            if damage is None:
                with suppress(OSError):  # of another user, or on a read-only disk
                    os.utime(path / DESCRIPTION_FILE)
                return map_hidden_states(path, key)
        except (FileNotFoundError, ConfigError) as error:
            damage = str(error)
        logger.warning("Rebuilding cached hidden states in %s: %s.", path, damage)
        return None

    def lock(self, key: CacheKey) -> FileLock:
        """Held by the process that fills an entry; others wait for it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / f".{key.name}.lock")

    def describe_shortage(self, nbytes: int) -> str | None:
        """Why entries of this size in total cannot be cached, whatever is evicted for them."""
        if nbytes > self.max_bytes:
            available = f"the budget (cache.max_gb) is {self.max_bytes / GB:.1f} GB"
        else:
            parent = next(p for p in (self.folder, *self.folder.parents) if p.exists())
            evictable = sum(map(stored_bytes, self.paths()))
            if nbytes + _SPARE_BYTES <= shutil.disk_usage(parent).free + evictable:
                return None
            available = f"the disk of {parent} is too full"
        return f"{nbytes / GB:.1f} GB are needed, but {available}"

    def unfinished(self, key: CacheKey) -> Path:
        """Folder in which an entry is filled, by the process that holds its lock."""
        return self.folder / f"{_UNFINISHED}{key.name}"

    def allocate(self, key: CacheKey) -> None:
        """Create an unfinished entry with room for its hidden states; evict others if needed.

        Whatever there is for the key is removed: damaged, or left by a killed process.

        Raises:
            OSError: The disk is full or not writable.
        """
        self._remove_abandoned()
        for path in (self.unfinished(key), self.folder / key.name):
            shutil.rmtree(path, ignore_errors=True)
        self.unfinished(key).mkdir(parents=True)
        with (self.unfinished(key) / HIDDEN_FILE).open("wb") as file:
            for path in self.paths():  # only now that a file can be created
                if self._has_room(key.nbytes):
                    break
                shutil.rmtree(path, ignore_errors=True)
            if hasattr(os, "posix_fallocate"):
                # With blocks reserved: writing to a memory-mapped file kills on a full disk.
                os.posix_fallocate(file.fileno(), 0, key.nbytes)
            else:  # macOS, Windows
                file.truncate(key.nbytes)

    def commit(self, key: CacheKey, title: str) -> None:
        """Turn a filled entry into a finished one, atomically.

        Raises:
            OSError: It cannot be written.
        """
        unfinished = self.unfinished(key)
        # Not synced to the disk: the checksum detects whatever a power failure leaves.
        digest = checksum(unfinished / HIDDEN_FILE, key.nbytes)
        description = CacheDescription(format=FORMAT, title=title, checksum=digest, key=key)
        text = description.model_dump_json(indent=2)
        (unfinished / DESCRIPTION_FILE).write_text(text, encoding="utf-8")
        unfinished.rename(self.folder / key.name)

    def abort(self, key: CacheKey) -> None:
        """Remove an unfinished entry; does nothing if it was committed."""
        shutil.rmtree(self.unfinished(key), ignore_errors=True)

    def clear(self) -> int:
        """Remove all entries, unfinished ones included, and kept scores; returns the number."""
        for file in self.folder.glob(SCORE_FILES):
            file.unlink(missing_ok=True)
        paths = [path for path in self.folder.glob("*") if path.is_dir()]
        for path in paths:
            shutil.rmtree(path, ignore_errors=True)
        return len(paths)

    def _remove_abandoned(self) -> None:
        """Remove unfinished entries of killed processes, which no longer hold their locks."""
        for path in self.folder.glob(f"{_UNFINISHED}*"):
            lock = FileLock(self.folder / f".{path.name.removeprefix(_UNFINISHED)}.lock")
            with suppress(Timeout), lock.acquire(timeout=0):
                shutil.rmtree(path, ignore_errors=True)

    def _has_room(self, nbytes: int) -> bool:
        # Unfinished entries of other processes count as well.
        used = sum(stored_bytes(file.parent) for file in self.folder.glob(f"*/{HIDDEN_FILE}"))
        free = shutil.disk_usage(self.folder).free
        return used + nbytes <= self.max_bytes and nbytes + _SPARE_BYTES <= free
