"""What is watched while a run trains: the dev history, whether it learns, time and memory."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lpt.errors import RunError
from lpt.files import write_atomically
from lpt.memory import peak_memory_mb, reset_peak_memory
from lpt.module import LatePromptModule

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


class LearningWatch(Callback):
    """Warns when the prompt does not learn.

    Three signs: after the first evaluation a trainable tensor is still what it was at the start;
    the gradient's norm has been below AdamW's epsilon, where steps vanish, since the evaluation
    before; all labels or numbers of an evaluation are the same although the right ones are not.
    """

    def __init__(self) -> None:
        self.start: dict[str, Tensor] | None = None
        self.steepest: Tensor | None = None
        self.warned_vanishing = False
        self.warned_collapse = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep a copy of what trains, unless it has moved already."""
        if trainer.global_step:
            return
        self.start = {name: p.detach().clone() for name, p in _trainable(pl_module)}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the largest norm of the gradient, wherever it is computed."""
        assert isinstance(pl_module, LatePromptModule)
        norm = pl_module.grad_norm
        if norm is not None:
            self.steepest = norm if self.steepest is None else torch.maximum(norm, self.steepest)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look for the three signs."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if self.start is not None:
            still = [n for n, p in _trainable(pl_module) if torch.equal(p, self.start[n])]
            self.start = None
            if still:
                logger.warning(
                    "%s did not move by the first evaluation: the learning rate may be too small "
                    "(optim.lr), or the gradient does not reach the prompt.",
                    ", ".join(still),
                )
        assert isinstance(pl_module, LatePromptModule)
        self._check_gradient(pl_module)
        self._check_collapse(pl_module)

    def _check_gradient(self, module: LatePromptModule) -> None:
        steepest, self.steepest = self.steepest, None
        if self.warned_vanishing or steepest is None or not float(steepest) < module.eps:
            return
        self.warned_vanishing = True
        logger.warning(
            "The gradient vanishes: since the last evaluation its norm was at most %.1g, less than "
            "optim.eps (%.1g). Another prompt.layer, a larger model.dtype or another task.template "
            "may let it reach the prompt.",
            *(float(steepest), module.eps),
        )

    def _check_collapse(self, module: LatePromptModule) -> None:
        answers = module.answers
        if answers is None or self.warned_collapse:
            return
        predicted = answers.predicted.unique()
        if len(predicted) == 1 and len(answers.labels.unique()) > 1:
            self.warned_collapse = True
            logger.warning(
                "All dev predictions are %s: the prompt has not learned to tell the examples "
                "apart (yet). If this stays, try another optim.lr or more steps.",
                module.evaluator.task.shown(predicted.item()),
            )


class FiniteLoss(Callback):
    """Stops a run whose loss or gradient is no finite number, before anything is saved.

    They are looked at one batch late: by then a GPU has them, and nobody waits. In 16-mixed, a
    gradient may overflow: the step is left out, and the loss is scaled down.

    Raises:
        RunError: With the step, the learning rate and the rows of the batch.
    """

    def __init__(self) -> None:
        self.found: dict[str, Tensor] = {}
        self.rows: Tensor | None = None
        self.step = 0
        self.rate = self._rate_at_hand = 0.0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the learning rate of this step: the schedule goes on before it is looked at."""
        self._rate_at_hand = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check the batch before, and keep this one's numbers."""
        self._check(trainer)
        assert isinstance(pl_module, LatePromptModule)
        self.found = {"loss": outputs["loss"].detach()}
        if pl_module.grad_norm is not None and trainer.precision != "16-mixed":
            self.found["gradient's norm"] = pl_module.grad_norm
        self.rows, self.step = batch.index, trainer.global_step
        self.rate = self._rate_at_hand

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the last batch before an evaluation, which saves the state."""
        self._check(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Check the batch before a signal, which saves the state, too."""
        self._check(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the last batch of all."""
        self._check(trainer)

    def _check(self, trainer: Trainer) -> None:
        found, self.found = self.found, {}
        for what, value in found.items():
            if bool(value.isfinite()):
                continue
            assert self.rows is not None
            rows = ", ".join(map(str, self.rows.tolist()))
            raise RunError(
                f"The {what} is {float(value)} at step {self.step} (learning rate {self.rate:.3g}),"
                f" in the batch with rows {rows}. Earlier checkpoints are kept. Lower optim.lr, or "
                "look at those rows."
            )


class Meter(Callback):
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


def _trainable(module: LightningModule) -> Iterable[tuple[str, torch.nn.Parameter]]:
    assert isinstance(module, LatePromptModule)
    return module.model.trainable().items()
