"""An entry of the hidden-state cache: what it depends on, what it says it is, whether it is that.

An entry is a folder: `hidden.bin` holds the hidden states of all tokens without padding,
(tokens, D), in the order of `PackedTokens`, and `entry.json` says what they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lpt.config.constraints import limits
from lpt.errors import Problems
from lpt.files import checksum
from lpt.runs.json_records import read_json, to_record

FORMAT = 2
HIDDEN = "hidden.bin"
DESCRIPTION = "entry.json"
_SHOWN = 200


@dataclass(frozen=True)
class CacheKey:
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

    format: int = field(metadata=limits(ge=FORMAT, le=FORMAT))
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

    @classmethod
    def read(cls, path: Path) -> Entry:
        """The entry in a folder.

        Raises:
            OSError: Its description cannot be read, or is not there.
            ValueError: It is no description of this format; all faults are named.
        """
        file, problems = path / DESCRIPTION, Problems()
        known = to_record(_Description, read_json(file), "", problems)
        if known is not None and (len(known.shape) != 2 or min(known.shape) < 1):
            problems.add("shape", str(known.shape)[:_SHOWN], "two numbers >= 1")
        if problems.found or known is None:
            raise ValueError("; ".join(f"{fault.where}: {fault.given}" for fault in problems.found))
        tokens, width = known.shape
        return cls(
            path=path,
            title=known.title,
            shape=(tokens, width),
            dtype=known.dtype,
            checksum=known.checksum,
            recipe=known.recipe,
            used=file.stat().st_mtime,
        )

    @property
    def size(self) -> int:
        """Bytes of the hidden states, as described: not those that are there."""
        return self.shape[0] * self.shape[1] * getattr(torch, self.dtype).itemsize

    def problem(self, *, verify: bool = True) -> str | None:
        """Why it cannot be used; None for a sound entry. Without `verify` the size must do."""
        if size_of(self.path) != self.size:
            return "its size is wrong"
        if verify and checksum(self.path / HIDDEN, self.size) != self.checksum:
            return "its checksum is wrong"
        return None

    def mismatch(self, recipe: CacheKey, shape: tuple[int, int], dtype: torch.dtype) -> str | None:
        """Why it is not the entry of a recipe, with states of that shape and type."""
        if self.recipe != asdict(recipe):
            return "it is foreign"
        if (self.shape, self.dtype) != (shape, _name(dtype)):
            given = f"{self.dtype} {list(self.shape)}"[:_SHOWN]
            return f"it is foreign: {given} instead of {_name(dtype)} {list(shape)}"
        return None

    def load(self) -> Tensor:
        """The hidden states, memory-mapped: (tokens, D)."""
        tokens, width = self.shape
        flat = torch.from_file(
            str(self.path / HIDDEN), size=tokens * width, dtype=getattr(torch, self.dtype)
        )
        return flat.view(tokens, width)


def describe(
    folder: Path, recipe: CacheKey, title: str, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    """Write the description of the hidden states in a folder.

    Raises:
        OSError: They cannot be read, or it cannot be written.
    """
    # Not synced: whatever a power cut leaves of the states, their checksum tells.
    description = _Description(
        format=FORMAT,
        title=title,
        shape=list(shape),
        dtype=_name(dtype),
        checksum=checksum(folder / HIDDEN, size_of(folder)),
        recipe=asdict(recipe),
    )
    text = json.dumps(asdict(description), indent=2)
    (folder / DESCRIPTION).write_text(text, encoding="utf-8")


def size_of(folder: Path) -> int:
    """Bytes of the hidden states that are there, whatever is said of them."""
    try:
        return (folder / HIDDEN).stat().st_size
    except FileNotFoundError:  # finished or evicted meanwhile
        return 0


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
