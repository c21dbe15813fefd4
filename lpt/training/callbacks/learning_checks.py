"""Whether a run learns: warnings where it does not, an end where its numbers are none."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lpt.errors import RunError
from lpt.training.distributed import gather
from lpt.training.module import LatePromptModule

logger = logging.getLogger(__name__)


class LearningChecks(Callback):
    """Warns when the prompt does not learn.

    Three signs: after the first evaluation a trainable tensor is still what it was at the start;
    the gradient's norm has been below AdamW's epsilon, where steps vanish, since the evaluation
    before; all labels or numbers of an evaluation are the same although the right ones are not.
    """

    def __init__(self) -> None:
        self.start: dict[str, Tensor] | None = None
        self.max_grad_norm: Tensor | None = None
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
            self.max_grad_norm = (
                norm if self.max_grad_norm is None else torch.maximum(norm, self.max_grad_norm)
            )

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
        max_grad_norm, self.max_grad_norm = self.max_grad_norm, None
        if self.warned_vanishing or max_grad_norm is None or not float(max_grad_norm) < module.eps:
            return
        self.warned_vanishing = True
        logger.warning(
            "The gradient vanishes: since the last evaluation its norm was at most %.1g, less than "
            "optim.eps (%.1g). Another prompt.layer, a larger model.dtype or another task.template "
            "may let it reach the prompt.",
            *(float(max_grad_norm), module.eps),
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


class _Number(NamedTuple):
    """A number of a training step that has to be finite.

    Attributes:
        name: Of the number.
        of_all: It over all ranks, the same in each.
        ours: What this rank has to do with it.
        rows: Indices of this rank's examples behind it, a tensor for each of its batches.
    """

    name: str
    of_all: Tensor
    ours: Tensor
    rows: list[Tensor]


class NonFiniteGuard(Callback):
    """Stops a run whose loss or gradient is no finite number, before anything is saved.

    They are looked at one batch late: by then a GPU has them, and nobody waits. In 16-mixed, a
    gradient may overflow: the step is left out, and the loss is scaled down.

    Raises:
        RunError: With the step, the learning rate and the rows of the batch, of all its parts where
            gradients are accumulated, and of the ranks whose numbers are not finite.
    """

    def __init__(self) -> None:
        self.numbers: list[_Number] = []
        self.step, self.rate = 0, 0.0  # those of `numbers`
        self._at_hand, self._rate = 0, 0.0  # those of the batch that is trained on
        self._rows: list[Tensor] = []

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the learning rate of this step: the schedule goes on before it is looked at."""
        self._rate = trainer.optimizers[0].param_groups[0]["lr"]
        if trainer.global_step + 1 != self._at_hand:
            self._at_hand, self._rows = trainer.global_step + 1, []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check the batch before, and keep this one's numbers."""
        self._check(trainer)
        assert isinstance(pl_module, LatePromptModule)
        self._rows.append(batch.row_ids)
        self.step, self.rate = self._at_hand, self._rate
        loss, norm = outputs["loss"].detach(), pl_module.grad_norm
        self.numbers = [_Number("loss", outputs["mean"], loss, [batch.row_ids])]
        if norm is not None and trainer.precision != "16-mixed":
            self.numbers.append(_Number("gradient's norm", norm, norm, self._rows))

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
        numbers, self.numbers = self.numbers, []
        for name, of_all, ours, rows in numbers:
            if bool(of_all.isfinite()):
                continue
            # All ranks are here: they have the same number before them.
            here = [] if bool(ours.isfinite()) else torch.cat(rows).tolist()
            told = ", ".join(str(row) for of_rank in gather(here) for row in of_rank)
            raise RunError(
                f"The {name} is {float(of_all)} at step {self.step} (learning rate {self.rate:.3g})"
                f", in the batch with rows {told}. Earlier checkpoints are kept. Lower optim.lr, "
                "or look at those rows."
            )


def _trainable(module: LightningModule) -> Iterable[tuple[str, torch.nn.Parameter]]:
    assert isinstance(module, LatePromptModule)
    return module.model.trainable().items()
