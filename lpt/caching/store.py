"""What the frozen lower stack says of every example, computed once and kept.

Everything in front of the prompt is a pure function of weights, token ids, layer and arithmetic, so
it is shared by epochs, seeds, learning rates, generators and prompt lengths, and by processes.

An entry (`lpt.caching.entry`) is a folder named by a hash of all it depends on. It is built
under another name and renamed when complete, and its checksum is verified whenever it is opened.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from lpt.caching.entry import DESCRIPTION, HIDDEN, CacheKey, Entry, describe, size_of

logger = logging.getLogger(__name__)

_UNFINISHED = ".unfinished-"
_SPARE_BYTES = 1 << 30  # left free on the disk
_SHOWN = 200


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
        found = []
        for path in self._finished():
            with suppress(OSError, ValueError):
                found.append(Entry.read(path))
        return sorted(found, key=lambda entry: -entry.used)

    def unreadable(self) -> list[tuple[Path, str]]:
        """What else is there, and why it is no entry of this format."""
        found = []
        for path in self._finished():
            try:
                Entry.read(path)
            except (OSError, ValueError) as error:
                found.append((path, _undescribed(error)))
        return found

    def get(
        self, recipe: CacheKey, shape: tuple[int, int], dtype: torch.dtype, *, verify: bool = True
    ) -> Tensor | None:
        """The hidden states of a recipe; None if there are none or they are damaged.

        Args:
            recipe: What they depend on.
            shape: (tokens, D), which they must have.
            dtype: Type that they must have.
            verify: Whether to read the whole entry for its checksum; False: it was just done.
        """
        path = self.folder / recipe.key()
        try:
            entry = Entry.read(path)
            # What it says costs nothing to check: before all of it is read for the checksum.
            problem = entry.mismatch(recipe, shape, dtype) or entry.problem(verify=verify)
            if problem is None:
                os.utime(path / DESCRIPTION)
                return entry.load()
        except FileNotFoundError:  # nothing there, or another process needed the room
            return None
        except (OSError, ValueError) as error:
            problem = _undescribed(error)
        logger.warning("Hidden states in %s are built anew: %s.", path, problem)
        shutil.rmtree(path, ignore_errors=True)
        return None

    def lock(self, recipe: CacheKey) -> FileLock:
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
        # What would be freed is what is there, not what descriptions say.
        free = shutil.disk_usage(parent).free + sum(map(_taken, self._finished()))
        if size + _SPARE_BYTES > free:
            return f"it takes {size / 1e9:.1f} GB, more than the disk of {parent} has free"
        return None

    def make_room(self, size: int) -> None:
        """Evict entries until that many bytes fit: what is of no use, then the longest unused."""
        used = {entry.path: entry.used for entry in self.entries() if self._of_use(entry)}
        for path in sorted(self._finished(), key=lambda path: (path in used, used.get(path, 0.0))):
            if not self._too_full(size):
                break
            shutil.rmtree(path, ignore_errors=True)

    def begin(self, recipe: CacheKey, shape: tuple[int, int], dtype: torch.dtype) -> Path:
        """Make an unfinished entry with room for that matrix, to be filled through `fill`.

        The caller holds the recipe's lock, by which others know that the builder is alive.

        Raises:
            OSError: The disk is full or cannot be written to.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        size = shape[0] * shape[1] * dtype.itemsize
        self._sweep()
        shutil.rmtree(self.folder / recipe.key(), ignore_errors=True)  # what was of no use
        self.make_room(size)
        prefix = f"{_UNFINISHED}{recipe.key()}-"
        unfinished = Path(tempfile.mkdtemp(prefix=prefix, dir=self.folder))
        try:
            with (unfinished / HIDDEN).open("wb") as file:
                # Without the blocks set aside, a full disk would kill the process that fills them.
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError:
            self.discard(unfinished)
            raise
        return unfinished

    @staticmethod
    def fill(unfinished: Path, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """The matrix of an unfinished entry; what is written to it goes to the file."""
        file = str(unfinished / HIDDEN)
        size = shape[0] * shape[1]
        return torch.from_file(file, shared=True, size=size, dtype=dtype).view(shape)

    def finish(
        self,
        unfinished: Path,
        recipe: CacheKey,
        title: str,
        shape: tuple[int, int],
        dtype: torch.dtype,
    ) -> None:
        """Turn a filled entry into a finished one, at once."""
        describe(unfinished, recipe, title, shape, dtype)
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

    def _of_use(self, entry: Entry) -> bool:
        """Whether it may be worth keeping: what exceeds the budget alone has to go in any case."""
        return entry.problem(verify=False) is None and entry.size <= self.max_bytes

    def _too_full(self, size: int) -> bool:
        # All that is there, also what other processes are building.
        held = sum(size_of(file.parent) for file in self.folder.glob(f"*/{HIDDEN}"))
        free = shutil.disk_usage(self.folder).free
        return held + size > self.max_bytes or size + _SPARE_BYTES > free

    def _gb(self) -> float:
        return self.max_bytes / 1e9


def _undescribed(error: Exception) -> str:
    return f"its description cannot be used ({str(error)[:_SHOWN]})"


def _taken(folder: Path) -> int:
    """Bytes of the disk that an entry takes: of a file with holes, less than its size."""
    try:
        return (folder / HIDDEN).stat().st_blocks * 512
    except FileNotFoundError:
        return 0
