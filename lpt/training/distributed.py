"""The number of ranks, and what they exchange."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import distributed

_T = TypeVar("_T")


def world_size() -> int:
    """Number of ranks; 1 before the process group is initialized."""
    started = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if started else 1


def gather(local: _T) -> list[_T]:
    """The objects of all ranks, on every rank; a collective operation."""
    if world_size() == 1:
        return [local]
    gathered: list[Any] = [None] * world_size()
    distributed.all_gather_object(gathered, local)
    return gathered
