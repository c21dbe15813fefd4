"""Evaluates the last step of a run, whatever the interval."""

from __future__ import annotations

from typing import Any

from lightning import Callback, Trainer


class LastEvaluation(Callback):
    """Has Lightning evaluate and stop after the last step.

    By itself it evaluates at multiples of the interval only, and what is trained after the last of
    them could not be selected.
    """

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step < trainer.estimated_stepping_batches:
            return
        trainer.should_stop = True  # there is an evaluation before it stops,
        if trainer.check_val_every_n_epoch is not None:
            trainer.check_val_every_n_epoch = 1  # if the epoch is one with an evaluation

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        """Train no further if the run is resumed after that evaluation."""
        if trainer.global_step >= trainer.estimated_stepping_batches:
            trainer.should_stop = True
