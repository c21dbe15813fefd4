"""Lightning callbacks of a run."""

from __future__ import annotations

from typing import TypeVar

from lightning import Callback, Trainer

_C = TypeVar("_C", bound=Callback)


def find_callback(trainer: Trainer, kind: type[_C]) -> _C:
    """The callback of that class, which the trainer has."""
    return next(c for c in trainer.callbacks if isinstance(c, kind))  # type: ignore[attr-defined]
