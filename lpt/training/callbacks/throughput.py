"""What a run costs: time, throughput, padding and peak memory."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer

from lpt.files import MB
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
        # Over all starts. `tokens` becomes a tensor: adding on a GPU does not wait for it.
        self.totals: dict[str, Any] = {"starts": 1, "cache_seconds": 0.0, "train_seconds": 0.0}
        self.totals |= {"examples": 0, "tokens": 0, "padded_tokens": 0}
        self.totals |= {"peak_memory_mb": 0.0, "peak_memory_mb_before_training": 0.0}
        self._device = torch.device("cpu")
        self._training_since: float | None = None

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        self._device = trainer.strategy.root_device
        self._note_peak("peak_memory_mb_before_training")
        reset_peak_memory(self._device)
        self._training_since = time.perf_counter()

    def on_validation_start(self, *_: Any, **__: Any) -> None:
        self._count_training()
        self._training_since = None

    on_train_end = on_validation_start

    def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._training_since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the examples, and the tokens of this rank."""
        self.totals["examples"] += len(batch.labels) * trainer.world_size
        self.totals["tokens"] += batch.attention_mask.sum()
        self.totals["padded_tokens"] += batch.attention_mask.numel()

    def cost(self, steps: int) -> Cost:
        """All costs up to now, for a run of that many optimizer steps."""
        totals = self.state_dict()
        examples, tokens, padded = (totals.pop(n) for n in ("examples", "tokens", "padded_tokens"))
        seconds = totals["train_seconds"]
        return Cost(
            steps=steps,
            examples_per_second=examples / seconds if seconds else 0.0,
            padding_share=1.0 - tokens / padded if padded else 0.0,
            **totals,
        )

    def state_dict(self) -> dict[str, Any]:
        """Totals over all starts up to now."""
        self._count_training()
        total_seconds = time.perf_counter() - self.run_started
        return self.totals | {"tokens": int(self.totals["tokens"]), "total_seconds": total_seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the totals of earlier starts."""
        for name, own in self.totals.items():
            earlier = state_dict[name]
            self.totals[name] = max(own, earlier) if "peak" in name else own + earlier
        self.run_started -= state_dict["total_seconds"]

    def _count_training(self) -> None:
        """Add the time since the clock of the training was started or read."""
        if self._training_since is None:
            return
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # only here: in each step it would cost speed
        now = time.perf_counter()
        self.totals["train_seconds"] += now - self._training_since
        self._training_since = now
        self._note_peak("peak_memory_mb")

    def _note_peak(self, name: str) -> None:
        self.totals[name] = max(self.totals[name], peak_memory_mb(self._device))


def reset_peak_memory(device: torch.device) -> None:
    """Forget the peak so far, where the system allows it: on GPUs and on Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR.exists():
        _CLEAR.write_text("5")  # man 5 proc


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory of this process since the last reset, in MB: allocated on the GPU, or RSS."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MB
    if _STATUS.exists():
        peak = next(x for x in _STATUS.read_text().splitlines() if x.startswith("VmHWM"))
        return int(peak.split()[1]) * 1024 / MB  # the kernel's kB are 1,024 bytes
    if sys.platform == "win32":
        return 0.0
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MB  # bytes on macOS
