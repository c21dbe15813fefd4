"""Synchronization with a device, for timing."""

from __future__ import annotations

import torch


def synchronize(device: str) -> None:
    """Wait until the device has finished all queued work."""
    if device == "cuda":
        torch.cuda.synchronize()
