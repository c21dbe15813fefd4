"""Ends a run with a checkpoint when a signal asks for it."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from lightning import Callback, Trainer

from lpt.errors import CTRL_C, PREEMPTED
from lpt.runs.run_dir import CHECKPOINTS, LAST

logger = logging.getLogger(__name__)
# Windows has no SIGUSR1.
_NAMES = ("SIGTERM", "SIGUSR1", "SIGINT")
_SIGNALS = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]


class Preemption(Callback):
    """Answers SIGTERM and SIGUSR1 with a checkpoint and exit status 75, Ctrl-C with 130.

    While the training runs, the state is saved as last checkpoint after the optimizer step at hand
    (one signalled rank is enough), and the same command with `resume` continues. Before and after
    the training there is nothing to save, and the process exits at once; so it does at a second
    Ctrl-C. Where something else handles Ctrl-C, or it is ignored, that stays so: a job of a sweep
    is stopped by the sweep, a rank by its launcher.

    Args:
        run_dir: Folder of the run.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.received: int | None = None
        self.training = False
        self.watched: list[signal.Signals] = []

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Handle the signals within the block, if this is the main thread."""
        before = {}
        if threading.current_thread() is threading.main_thread():
            before = {number: signal.getsignal(number) for number in _SIGNALS}
            if before[signal.SIGINT] is not signal.default_int_handler:
                del before[signal.SIGINT]
        self.watched = list(before)
        self.on_validation_start()
        try:
            yield
        finally:
            self.watched = []
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_validation_start(self, *_: Any, **__: Any) -> None:
        """Replace the handlers that Lightning installs at the start of each fit, validate or test.

        Those broadcast to the other ranks in the middle of whatever they do.
        """
        for number in self.watched:
            signal.signal(number, self._handle)

    on_test_start = on_predict_start = on_validation_start

    def on_train_start(self, *_: Any) -> None:
        self.on_validation_start()
        self.training = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and exit between optimizer steps if any rank was signalled.

        Not where an evaluation is due, which a resumed run would skip: then after the next step.
        """
        batches = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        interval = trainer.val_check_batch
        due = trainer.is_last_batch or (interval is not None and batches % interval == 0)
        if due or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        received = self.received is not None
        if trainer.world_size > 1:
            received = trainer.strategy.reduce_boolean_decision(received, all=False)
        if received:
            trainer.save_checkpoint(self.run_dir / CHECKPOINTS / LAST)
            logger.info("Saved a checkpoint at step %d.", trainer.global_step)
            self._exit()

    def on_train_end(self, *_: Any) -> None:
        self.training = False
        if self.received is not None:
            self._exit()

    def _handle(self, number: int, _: FrameType | None) -> None:
        if number == self.received == signal.SIGINT:
            os._exit(CTRL_C)
        self.received = number
        if not self.training:
            self._exit()
        if number == signal.SIGINT:
            logger.warning("Saving after this step. Press Ctrl-C again to stop without saving.")

    def _exit(self) -> NoReturn:
        by_user = self.received == signal.SIGINT
        name = signal.Signals(self.received).name if self.received is not None else "a signal"
        hint = f"resume={self.run_dir}"
        text = "Stopped by %s. Rerun the same command with %s to continue."
        logger.warning(text, "Ctrl-C" if by_user else name, hint)
        raise SystemExit(CTRL_C if by_user else PREEMPTED)
