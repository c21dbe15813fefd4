"""The dev scores of a run over its steps."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from lpt.runs.record import RunProgress

logger = logging.getLogger(__name__)


class DevHistory(Callback):
    """Keeps every dev evaluation in `history`, as {"step": optimizer steps, metric: value, ...}.

    Args:
        run_dir: Folder of the run, whose progress.json is kept up to date.
        metric: Metric that selects the checkpoint.
    """

    def __init__(self, run_dir: Path, metric: str) -> None:
        self.history: list[dict[str, float]] = []
        self.run_dir = run_dir
        self.metric = metric

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write progress.json."""
        self._write(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add a dev evaluation."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        scores = {
            name.removeprefix("dev/"): round(float(value), 6)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("dev/")
        }
        self.history.append({"step": trainer.global_step, **scores})
        logger.debug("step %d: dev %s", trainer.global_step, scores)
        self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            steps = int(trainer.estimated_stepping_batches)
            progress = RunProgress(metric=self.metric, steps=steps, dev_history=self.history)
            progress.write(self.run_dir)

    def best(self) -> dict[str, float]:
        """The evaluation with the highest value of the selecting metric, the earliest of equals."""
        return max(self.history, key=lambda scores: scores[self.metric])

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore from a checkpoint."""
        self.history = list(state_dict["history"])
