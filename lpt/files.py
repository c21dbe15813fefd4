"""Files: atomic writes, JSON files that are validated on reading, checksums, cache directories."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, BinaryIO, ClassVar, Literal, Self, TypeVar

import xxhash
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from lpt.errors import ConfigError, Problems, config_error

MB, GB = 10**6, 10**9
"""Bytes: the units of every size and memory, in keys, messages, records and documentation."""
_CHUNK_BYTES = 16 * MB
_MAX_BYTES = 64 * MB  # of a record: some grow with the dev evaluations


class JsonModel(BaseModel):
    """Base class of what JSON files hold: exact types, no unknown keys, finite numbers."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


def _require_finite(content: dict[str, Any]) -> dict[str, Any]:
    json.dumps(content, allow_nan=False)
    return content


JsonObject = Annotated[dict[str, Any], AfterValidator(_require_finite)]
"""Field of a `JsonModel` with any content: a JSON object whose numbers are finite."""

_M = TypeVar("_M", bound=BaseModel)


def read_json_model(path: Path, model: type[_M], max_bytes: int = MB) -> _M:
    """Read a JSON file that may come from anywhere.

    Raises:
        ConfigError: It is missing, no regular file (a pipe would block), larger than `max_bytes`,
            no JSON in UTF-8, or not what the model describes: every fault is named by its key.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise config_error(str(path), "not a regular file", "a JSON file")
        if size > max_bytes:
            raise config_error(str(path), f"{size:,} bytes", f"at most {max_bytes:,}")
        content = path.read_bytes()
    except OSError as error:
        raise config_error(str(path), f"cannot be read: {error.strerror or error}") from error
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        problems = Problems()
        with problems.rows(str(path), "faults") as faults:
            for fault in error.errors(include_url=False):
                key = ".".join(map(str, fault["loc"]))
                faults.add(f"{path}: {key}" if key else str(path), fault["msg"])
        raise ConfigError(problems.found) from None


class JsonFile(JsonModel):
    """A record that is one JSON file in a folder."""

    file_name: ClassVar[str]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the file in a folder; a `ConfigError` names all of its faults."""
        return read_json_model(folder / cls.file_name, cls, _MAX_BYTES)

    def write(self, folder: Path) -> None:
        """Write the file into an existing folder.

        Raises:
            OSError: It cannot be written.
        """
        write_atomically(folder / self.file_name, self.model_dump_json(indent=2) + "\n")


@contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` once the block has ended.

    Raises:
        OSError: It cannot be written; no partial file is left, whatever ended the block.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            error.filename = str(path)  # a full disk does not say which file it was
        raise


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file, text as UTF-8: it holds either all of the content or what it held before.

    Raises:
        OSError: It cannot be written; no partial file is left.
    """
    with open_atomically(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def check_new_folder(folder: Path, key: str, problems: Problems) -> None:
    """Add a problem unless a folder to be written is new or empty."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        problems.add(key, f"{folder}, which is there already", "a new or an empty folder")


def checksum(file: Path, size: int) -> str:
    """xxh3 of the first `size` bytes of a file (or all, if it is shorter): 16 hexadecimal digits.

    Raises:
        OSError: It cannot be read.
    """
    digest = xxhash.xxh3_64()
    with file.open("rb") as handle:
        while size > 0 and (chunk := handle.read(min(size, _CHUNK_BYTES))):
            digest.update(chunk)
            size -= len(chunk)
    return digest.hexdigest()


def cache_dir(kind: Literal["hidden", "gguf"]) -> Path:
    """Folder of a cache, in $LPT_CACHE or else in lpt/ of the user's cache folder.

    Args:
        kind: Hidden states, or checkpoints converted from GGUF.
    """
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lpt"
    return Path(os.environ.get("LPT_CACHE", default)) / kind
