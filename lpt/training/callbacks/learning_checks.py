"""Warnings when the prompt does not learn."""

from __future__ import annotations

import logging
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lpt.training.module import LatePromptModule

logger = logging.getLogger(__name__)


class LearningChecks(Callback):
    """Warns of three signs that the prompt does not learn.

    Trainable tensors that did not move by the first evaluation; a gradient norm below AdamW's
    epsilon, where updates vanish, since the evaluation before; the same prediction for every dev
    example although their labels differ.
    """

    def __init__(self) -> None:
        self.initial: dict[str, Tensor] | None = None
        self.max_grad_norm: Tensor | None = None
        self.warned_vanishing = False
        self.warned_collapse = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the trainable tensors of a run that starts from scratch."""
        if trainer.global_step:
            return
        assert isinstance(pl_module, LatePromptModule)
        trainable = pl_module.model.trainable()
        self.initial = {name: tensor.detach().clone() for name, tensor in trainable.items()}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Track the largest gradient norm, on the device."""
        assert isinstance(pl_module, LatePromptModule)
        norm = pl_module.grad_norm
        if norm is not None and self.max_grad_norm is not None:
            norm = torch.maximum(norm, self.max_grad_norm)
        self.max_grad_norm = norm

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check for the three signs."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        assert isinstance(pl_module, LatePromptModule)
        self._check_movement(pl_module)
        self._check_gradient(pl_module)
        self._check_collapse(pl_module)

    def _check_movement(self, module: LatePromptModule) -> None:
        initial, self.initial = self.initial, None
        if initial is None:
            return
        trainable = module.model.trainable()
        unmoved = [n for n, tensor in trainable.items() if torch.equal(tensor, initial[n])]
        if unmoved:
            logger.warning(
                "%s did not move by the first evaluation: the learning rate may be too small "
                "(optim.lr), or the gradient does not reach the prompt.",
                ", ".join(unmoved),
            )

    def _check_gradient(self, module: LatePromptModule) -> None:
        norm, self.max_grad_norm = self.max_grad_norm, None
        if self.warned_vanishing or norm is None or not float(norm) < module.optim.eps:
            return
        self.warned_vanishing = True
        logger.warning(
            "The gradient vanishes: since the last evaluation its norm was at most %.1g, less than "
            "optim.eps (%.1g). Another prompt.layer, a larger model.dtype or another task.template "
            "may let it reach the prompt.",
            float(norm),
            module.optim.eps,
        )

    def _check_collapse(self, module: LatePromptModule) -> None:
        output = module.eval_output
        if output is None or self.warned_collapse:
            return
        predicted = output.predicted.unique()
        if len(predicted) == 1 and len(output.labels.unique()) > 1:
            self.warned_collapse = True
            logger.warning(
                "All dev predictions are %s: the prompt has not learned to tell the examples "
                "apart (yet). If this persists, try another optim.lr or more steps.",
                module.evaluator.task.format_label(predicted.item()),
            )
