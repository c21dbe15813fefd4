"""What is measured while a run trains: dev history, time and memory."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lpt.files import write_atomically
from lpt.training.callbacks.memory import peak_memory_mb, reset_peak_memory

logger = logging.getLogger(__name__)


class DevHistory(Callback):
    """Every dev evaluation, as {"step": optimizer steps, metric: value, ...} in `history`.

    Args:
        file: Is told how far the run is, for those who watch.
        metric: By which the run is selected.
    """

    def __init__(self, file: Path, metric: str) -> None:
        self.history: list[dict[str, float]] = []
        self.file = file
        self.metric = metric

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell where the training begins."""
        self._tell(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the metrics of a dev evaluation."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        metrics = {
            name.removeprefix("dev/"): round(float(value), 6)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("dev/")
        }
        self.history.append({"step": trainer.global_step, **metrics})
        logger.debug("step %d: dev %s", trainer.global_step, metrics)
        self._tell(trainer)

    def _tell(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            steps = int(trainer.estimated_stepping_batches)
            known = {"metric": self.metric, "steps": steps, "dev_history": self.history}
            write_atomically(self.file, json.dumps(known) + "\n")

    def best(self, metric: str) -> dict[str, float]:
        """The evaluation with the highest value of that metric; the first one of equals."""
        return max(self.history, key=lambda entry: entry[metric])

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.history = list(state_dict["history"])


class ThroughputMonitor(Callback):
    """Seconds, examples, padding and peak memory of the training itself.

    Evaluation and cache building do not count as its time; padding is that of this rank.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.examples = 0
        self.places = 0
        # Soon a tensor: a GPU need not be waited for in each step.
        self.tokens: Tensor | float = 0.0
        self.device = torch.device("cpu")
        self.peak_memory_mb = 0.0
        self._since: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.device = trainer.strategy.root_device
        reset_peak_memory(self.device)
        self._start()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._stop()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock again, unless this was no evaluation within the training."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._start()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._stop()
        self.peak_memory_mb = peak_memory_mb(self.device)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the examples and the tokens of this rank."""
        self.examples += len(batch.labels) * trainer.world_size
        self.tokens += batch.attention_mask.sum()
        self.places += batch.attention_mask.numel()

    @property
    def padding_share(self) -> float:
        """Share of padding among the tokens of the training batches."""
        return 1.0 - float(self.tokens) / self.places if self.places else 0.0

    @property
    def examples_per_second(self) -> float:
        """Training examples a second, over all devices."""
        return self.examples / self.seconds if self.seconds else 0.0

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints: what a run that goes on adds to."""
        running = time.perf_counter() - self._since if self._since is not None else 0.0
        return {
            "seconds": self.seconds + running,
            "examples": self.examples,
            "places": self.places,
            "tokens": float(self.tokens),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From a checkpoint."""
        self.seconds = state_dict["seconds"]
        self.examples = state_dict["examples"]
        self.places = state_dict["places"]
        self.tokens = state_dict["tokens"]

    def _start(self) -> None:
        self._since = time.perf_counter()

    def _stop(self) -> None:
        if self._since is not None:
            if self.device.type == "cuda":
                # Only here: in every step it would slow the training.
                torch.cuda.synchronize(self.device)
            self.seconds += time.perf_counter() - self._since
            self._since = None
