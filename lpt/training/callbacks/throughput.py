"""What a run costs: time, throughput, padding and peak memory."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lpt.runs.record import Cost

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class ThroughputMonitor(Callback):
    """Measures the training of a run, and adds up its starts if it is interrupted and resumed.

    Evaluation does not count as training time; padding is that of this rank. Totals travel in the
    checkpoints: what a killed run did after its last checkpoint is not counted.
    """

    def __init__(self) -> None:
        self.run_started = time.perf_counter()
        """Start of this process's run; set it where the run starts before the trainer is built."""
        self.cache_seconds = 0.0
        self.train_seconds = 0.0
        self.examples = 0
        self.padded_tokens = 0
        # Soon a tensor: adding on the GPU does not wait for it in each step.
        self.tokens: Tensor | int = 0
        self.peak_memory = 0.0
        self.peak_memory_before_training = 0.0
        self._previous: dict[str, float] = {}
        self._device = torch.device("cpu")
        self._training_since: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._device = trainer.strategy.root_device
        self.peak_memory_before_training = peak_memory_mib(self._device)
        reset_peak_memory(self._device)
        self._start_clock()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._stop_clock()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock again, unless this was an evaluation before or after the training."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._start_clock()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._stop_clock()
        self.peak_memory = peak_memory_mib(self._device)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the examples, and the tokens of this rank."""
        self.examples += len(batch.labels) * trainer.world_size
        self.tokens += batch.attention_mask.sum()
        self.padded_tokens += batch.attention_mask.numel()

    def cost(self, steps: int) -> Cost:
        """All costs up to now, for a run of that many optimizer steps."""
        total = self.state_dict()
        seconds, padded = total["train_seconds"], total["padded_tokens"]
        return Cost(
            starts=total["starts"],
            steps=steps,
            train_seconds=seconds,
            total_seconds=total["total_seconds"],
            cache_seconds=total["cache_seconds"],
            examples_per_second=total["examples"] / seconds if seconds else 0.0,
            padding_share=1.0 - total["tokens"] / padded if padded else 0.0,
            peak_memory_mib=total["peak_memory"],
            peak_memory_mib_before_training=total["peak_memory_before_training"],
        )

    def state_dict(self) -> dict[str, Any]:
        """Totals over all starts up to now; for checkpoints, too."""
        now, training, peak = time.perf_counter(), 0.0, self.peak_memory
        if self._training_since is not None:
            training, peak = now - self._training_since, peak_memory_mib(self._device)
        sums = {
            "starts": 1,
            "total_seconds": now - self.run_started,
            "cache_seconds": self.cache_seconds,
            "train_seconds": self.train_seconds + training,
            "examples": self.examples,
            "tokens": int(self.tokens),
            "padded_tokens": self.padded_tokens,
        }
        peaks = {
            "peak_memory": peak,
            "peak_memory_before_training": self.peak_memory_before_training,
        }
        before = self._previous
        totals = {name: value + before.get(name, 0) for name, value in sums.items()}
        return totals | {name: max(peaks[name], before.get(name, 0.0)) for name in peaks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the totals of earlier starts."""
        self._previous = state_dict

    def _start_clock(self) -> None:
        self._training_since = time.perf_counter()

    def _stop_clock(self) -> None:
        if self._training_since is None:
            return
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # only here: in each step it would cost speed
        self.train_seconds += time.perf_counter() - self._training_since
        self._training_since = None


def reset_peak_memory(device: torch.device) -> None:
    """Forget the peak so far, where the system allows it: on GPUs and on Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR.exists():
        _CLEAR.write_text("5")  # man 5 proc


def peak_memory_mib(device: torch.device) -> float:
    """Peak memory of this process since the last reset, in MiB: allocated on the GPU, or RSS."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if _STATUS.exists():
        peak = next(x for x in _STATUS.read_text().splitlines() if x.startswith("VmHWM"))
        return int(peak.split()[1]) / 2**10
    if sys.platform == "win32":
        return 0.0
    import resource  # not on Windows

    peak_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak_rss / (2**20 if sys.platform == "darwin" else 2**10)
