"""Stops a run whose loss or gradient is not finite, before anything is saved."""

from __future__ import annotations

from typing import Any

import torch
from lightning import Callback, Trainer
from torch import Tensor

from lpt.errors import RunError
from lpt.training.distributed import gather


class NonFiniteGuard(Callback):
    """Checks loss and gradient norm of each step.

    They are read one batch late, when a GPU has computed them anyway, and before every checkpoint.
    With 16-mixed precision only the loss is checked: its loss scaling handles gradient overflows.

    Raises:
        RunError: With the step, the learning rate and the rows of the step (of all accumulated
            batches, of the ranks whose values are not finite).
    """

    def __init__(self) -> None:
        # Name, value over all ranks, this rank's contribution, and the row ids behind that.
        self.pending: list[tuple[str, Tensor, Tensor, list[Tensor]]] = []
        self.pending_step = ""  # as reported
        self.step, self.lr = 0, 0.0
        self.row_ids: list[Tensor] = []  # of each batch of the step

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Note the learning rate, which the scheduler changes before the values are read."""
        self.lr = trainer.optimizers[0].param_groups[0]["lr"]
        if trainer.global_step + 1 != self.step:
            self.step, self.row_ids = trainer.global_step + 1, []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check the previous batch and keep the values of this one."""
        self._check()
        self.row_ids.append(batch.row_ids)
        self.pending_step = f"step {self.step} (learning rate {self.lr:.3g})"
        norm: Tensor | None = pl_module.grad_norm
        self.pending = [("loss", outputs["mean"], outputs["loss"].detach(), [batch.row_ids])]
        if norm is not None and trainer.precision != "16-mixed":
            self.pending.append(("gradient norm", norm, norm, self.row_ids))

    def on_validation_start(self, *_: Any, **__: Any) -> None:
        """Check the last batch before an evaluation, which saves a checkpoint."""
        self._check()

    # Before a checkpoint that a signal asked for, and at the end.
    on_save_checkpoint = on_train_end = on_validation_start

    def _check(self) -> None:
        pending, self.pending = self.pending, []
        for name, global_value, local_value, row_ids in pending:
            if bool(global_value.isfinite()):
                continue
            # All ranks are here: the global value is the same on each.
            local = [] if bool(local_value.isfinite()) else torch.cat(row_ids).tolist()
            rows = ", ".join(str(row) for of_rank in gather(local) for row in of_rank)
            raise RunError(
                f"Non-finite {name} ({float(global_value)}) at {self.pending_step}, rows {rows}. "
                "Earlier checkpoints are kept. Lower optim.lr, or check those rows."
            )
