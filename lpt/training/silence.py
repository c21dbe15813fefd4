"""What other libraries log, warn of and show while a run trains, and lpt has dealt with."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils.logging import (
    disable_progress_bar,
    enable_progress_bar,
    is_progress_bar_enabled,
)

_LOGGERS = ("lightning.pytorch", "httpx", "httpx2", "wandb")
_WARNINGS = (
    "does not have many workers",  # batches are small and ready-made
    "isinstance.treespec, LeafSpec",  # Lightning 2.6 with torch 2.13
    "sync_dist=True",  # logged values are already global
    "in eval mode at the start of training",  # frozen layers are, on purpose
    "smaller than the logging interval",  # few-shot runs have few steps
    # A resumed run: its folder is not empty, and the data module knows its place in the epoch.
    "Checkpoint directory .* exists and is not empty",
    "your dataloader is not resumable",
)


def silence_libraries(*, bars: bool = False) -> None:
    """Log and warn of nothing that lpt has dealt with; without `bars`, transformers shows none."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", f".*{message}.*")
    if not bars:
        disable_progress_bar()


@contextmanager
def libraries_silenced() -> Iterator[None]:
    """As `silence_libraries`, within the block."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    bars = is_progress_bar_enabled()
    with warnings.catch_warnings():
        silence_libraries()
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
            if bars:
                enable_progress_bar()
