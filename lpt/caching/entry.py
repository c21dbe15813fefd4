"""A cache entry: its key, and the description stored with the hidden states.

An entry is a folder named by its key. `hidden.bin` holds the hidden states of all tokens of a set
without padding, (n, D), in the order of `PackedTokens`; `entry.json` describes them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final, Literal, NamedTuple

import torch
from pydantic import PositiveInt
from torch import Tensor

from lpt.errors import ConfigError
from lpt.files import JsonModel, checksum, read_json_model

FORMAT: Final = 4
HIDDEN_FILE = "hidden.bin"
DESCRIPTION_FILE = "entry.json"


class SetLayer(NamedTuple):
    """Identifies hidden states within a run: the set, and the layer whose input they are."""

    set: str
    layer: int


class CacheKey(JsonModel):
    """Everything that the hidden states of a set depend on.

    Attributes:
        fingerprint: See `lpt.models.fingerprint`.
        layer: The layer whose input they are, 1-based.
        tokens: SHA-256 of the set's token ids.
        shape: (n, D): number of tokens and hidden size.
        dtype: Type of the frozen weights and of the hidden states.
        precision: Lightning's `precision`.
        attention: Attention implementation.
        device: Kind of device that computes them, e.g. `cuda`.
        versions: Versions of the libraries that compute them.
    """

    fingerprint: str
    layer: PositiveInt
    tokens: str
    shape: tuple[PositiveInt, PositiveInt]
    dtype: Literal["float32", "bfloat16", "float16"]
    precision: str
    attention: str
    device: str
    versions: str

    @property
    def name(self) -> str:
        """Name of the entry's folder."""
        text = f"{FORMAT} {self.model_dump_json()}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @property
    def torch_dtype(self) -> torch.dtype:
        """`dtype` as a torch type."""
        return getattr(torch, self.dtype)

    @property
    def nbytes(self) -> int:
        """Size of the hidden states in bytes."""
        return self.shape[0] * self.shape[1] * self.torch_dtype.itemsize


class CacheDescription(JsonModel):
    """Content of `entry.json`.

    Attributes:
        format: Version of the format.
        title: Task, model, layer and set, for people.
        checksum: xxh3 of `hidden.bin`.
        key: The entry's key.
    """

    format: Literal[4]
    title: str
    checksum: str
    key: CacheKey

    @classmethod
    def read(cls, path: Path) -> CacheDescription:
        """The description of the entry in a folder.

        Raises:
            ConfigError: It is damaged; all of its faults are named.
            OSError: It cannot be read, which says nothing about the entry.
        """
        try:
            return read_json_model(path / DESCRIPTION_FILE, cls)
        except ConfigError as error:
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from None
            raise

    def find_damage(self, path: Path, *, verify_checksum: bool = True) -> str | None:
        """What is wrong with the hidden states in a folder; None if they match the description."""
        if stored_bytes(path) != self.key.nbytes:
            return "its size is wrong"
        if verify_checksum and self.checksum != checksum(path / HIDDEN_FILE, self.key.nbytes):
            return "its checksum is wrong"
        return None


def map_hidden_states(path: Path, key: CacheKey, *, writable: bool = False) -> Tensor:
    """The hidden states in a folder as a memory-mapped tensor, (n, D).

    With `writable`, changes of the tensor go to the file; else they are private to the process.

    Raises:
        OSError: It cannot be opened or mapped.
    """
    file, size = str(path / HIDDEN_FILE), key.shape[0] * key.shape[1]
    try:
        flat = torch.from_file(file, shared=writable, size=size, dtype=key.torch_dtype)
    except RuntimeError as error:
        raise OSError(str(error).partition("\n")[0]) from error
    return flat.view(key.shape)


def last_used(path: Path) -> float:
    """When the entry in a folder was last used, in seconds since the epoch; 0 if unusable."""
    try:
        return (path / DESCRIPTION_FILE).stat().st_mtime
    except OSError:
        return 0.0


def stored_bytes(path: Path) -> int:
    """Size of the hidden states in a folder; 0 without any."""
    try:
        return (path / HIDDEN_FILE).stat().st_size
    except FileNotFoundError:  # finished or evicted by another process
        return 0
