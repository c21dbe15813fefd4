"""Progress of a run: a bar in a terminal, otherwise a line for each evaluation."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping

from lightning.pytorch.callbacks import TQDMProgressBar

logger = logging.getLogger(__name__)
_REFRESH_BATCHES = 10


class ProgressBar(TQDMProgressBar):
    """Lightning's, which also says what is tested; for terminals, as it moves the cursor."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=_REFRESH_BATCHES)

    @property
    def test_description(self) -> str:
        """Name of the set and, if it is scored before the training, that."""
        tuned = getattr(self.trainer.lightning_module, "tuned", True)
        name = getattr(getattr(self.trainer, "datamodule", None), "test_set", "test")
        return f"Testing on {name}" if tuned else f"Zero-shot on {name}"


def in_terminal() -> bool:
    """Whether stdout, to which a progress bar is written, is a terminal."""
    return sys.stdout.isatty()


def log_evaluation(stage: str, set_name: str, scores: Mapping[str, float] | None) -> None:
    """Log the scores of an evaluation: to log.txt, and to the console if it shows no bar."""
    level = logging.DEBUG if in_terminal() else logging.INFO
    text = ", ".join(f"{name} {value:.4f}" for name, value in (scores or {}).items())
    logger.log(level, "%s: %s %s", stage, set_name, text)
