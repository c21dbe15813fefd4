"""Waiting for a device, so that what is timed is done."""

from __future__ import annotations

import torch


def synchronize(device: str) -> None:
    """Wait until everything that was started on the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()
