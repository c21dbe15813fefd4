"""What a run costs, in the units of the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lpt.files import MB
from lpt.training.callbacks.throughput import peak_memory_mb, reset_peak_memory


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux only")
def test_peak_memory_is_in_units_of_a_million_bytes() -> None:
    cpu = torch.device("cpu")
    reset_peak_memory(cpu)
    before = peak_memory_mb(cpu)
    for _ in range(2):  # the peak, not the sum
        torch.ones(300 * MB, dtype=torch.uint8)
    assert peak_memory_mb(cpu) - before == pytest.approx(300, abs=7)
