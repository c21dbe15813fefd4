"""The dev scores of a run over its steps."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer
from torch import Tensor

from lpt.data.tasks import format_label
from lpt.runs.record import RunProgress
from lpt.training.callbacks.progress import log_evaluation
from lpt.training.module import MethodModule

logger = logging.getLogger(__name__)


class DevHistory(Callback):
    """Keeps every dev evaluation in `history`, as {"step": optimizer steps, metric: value, ...}.

    Of the best one it also keeps the label scores, (E, labels), as `best_scores`.

    Warns once if all dev predictions are the same although the labels differ.

    Args:
        run_dir: Folder of the run, whose progress.json is kept up to date.
        metric: Metric that selects the checkpoint.
    """

    def __init__(self, run_dir: Path, metric: str) -> None:
        self.history: list[dict[str, float]] = []
        self.best_scores: Tensor | None = None
        self.run_dir = run_dir
        self.metric = metric
        self.warned = False

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        self._write(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Add a dev evaluation."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self.history.append({"step": trainer.global_step, **pl_module.eval_metrics})
        if self.best() is self.history[-1]:
            self.best_scores = pl_module.eval_scores.scores
        steps = int(trainer.estimated_stepping_batches)
        log_evaluation(f"step {trainer.global_step} of {steps}", "dev", pl_module.eval_metrics)
        self._write(trainer)
        self._check_collapse(pl_module)

    def _write(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            steps = int(trainer.estimated_stepping_batches)
            progress = RunProgress(metric=self.metric, steps=steps, dev_history=self.history)
            progress.write(self.run_dir)

    def _check_collapse(self, module: MethodModule) -> None:
        assert module.eval_output is not None
        predicted, labels = (values.unique() for values in module.eval_output[:2])
        if len(predicted) == 1 < len(labels) and not self.warned:
            self.warned = True
            logger.warning(
                "All dev predictions are %s: the model has not learned to tell the examples "
                "apart (yet). If this persists, try another optim.lr or more steps.",
                format_label(predicted.item(), module.evaluator.task.config.labels),
            )

    def best(self) -> dict[str, float]:
        """The evaluation with the highest value of the selecting metric, the earliest of equals."""
        return max(self.history, key=lambda scores: scores[self.metric])

    def state_dict(self) -> dict[str, Any]:
        return {"history": self.history, "best_scores": self.best_scores}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = list(state_dict["history"])
        self.best_scores = state_dict["best_scores"]
