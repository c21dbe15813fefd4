"""Files: atomic writes, checksums, the cache directory."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Literal

import xxhash

_CHUNK_BYTES = 1 << 24


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that either all of it is there or what was there before.

    Args:
        path: The file; its folder is there.
        content: Text is written as UTF-8.

    Raises:
        OSError: It cannot be written; nothing half-written is left.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            error.filename = str(path)  # a full disk does not say which file it was
        raise
    _keep_name(path.parent)


def checksum(file: Path, size: int) -> str:
    """xxh3 of the first bytes of a file, 16 hexadecimal digits.

    Args:
        file: The file.
        size: How many bytes; of a shorter file all there are.

    Raises:
        OSError: It cannot be read.
    """
    digest = xxhash.xxh3_64()
    with file.open("rb") as handle:
        while size > 0 and (chunk := handle.read(min(size, _CHUNK_BYTES))):
            digest.update(chunk)
            size -= len(chunk)
    return digest.hexdigest()


def _keep_name(folder: Path) -> None:
    """Have the new name survive a power cut, too, where folders can be synced."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def cache_dir(kind: Literal["hidden", "tokens", "gguf"]) -> Path:
    """Folder for one kind of it, in $LPT_CACHE or else in lpt of the user's cache folder.

    Args:
        kind: Hidden states, tokens of larger sets, or checkpoints converted from GGUF.
    """
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lpt"
    return Path(os.environ.get("LPT_CACHE", default)) / kind
