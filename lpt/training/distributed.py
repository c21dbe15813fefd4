"""What the processes of a run do together."""

from __future__ import annotations

from typing import Any, TypeVar

import torch

_T = TypeVar("_T")


def world_size() -> int:
    """Number of ranks that have met; 1 before."""
    met = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if met else 1


def gather(ours: _T) -> list[_T]:
    """What each rank has given, in all ranks; they all have to call it."""
    if world_size() == 1:
        return [ours]
    given: list[Any] = [None] * world_size()
    torch.distributed.all_gather_object(given, ours)
    return given
