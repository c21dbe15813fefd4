"""The machine that a benchmark runs on, and the rate of its matrix products."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

import torch

from bench.clock import synchronize


def machine(device: str) -> dict[str, Any]:
    """The machine that the figures are from."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    if device == "cuda":
        name = torch.cuda.get_device_name()
    capability = torch.backends.cpu.get_cpu_capability() if device == "cpu" else None
    return {
        "name": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "capability": capability,
        "torch": torch.__version__,
    }


def matmul_gflops(device: str, dtype: torch.dtype, width: int, seconds: float = 1.0) -> float:
    """Sustained GFLOP/s of the matrix product of a feed-forward layer, (1024, D) x (D, 4D).

    On a GPU a larger one, which fills it.
    """
    if device == "cuda":
        rows = width = 8192
    else:
        rows = 1024
    a = torch.randn(rows, width, device=device, dtype=dtype)
    b = torch.randn(4 * width, width, device=device, dtype=dtype)
    torch.nn.functional.linear(a, b)
    synchronize(device)
    started, flop, spent = time.perf_counter(), 0.0, 0.0
    while spent < seconds:
        for _ in range(5):
            torch.nn.functional.linear(a, b)
            flop += 2 * rows * 4 * width**2
        synchronize(device)
        spent = time.perf_counter() - started
    return flop / spent / 1e9


def half_is_fast(device: str) -> bool:
    """Whether matrix products are faster in bf16 than in fp32 on this device."""
    if device == "cuda":
        return True
    return matmul_gflops("cpu", torch.bfloat16, 512) > matmul_gflops("cpu", torch.float32, 512)
