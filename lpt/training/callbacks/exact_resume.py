"""What Lightning leaves out of a bit-exact resume."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from lightning import Callback, Trainer
from lightning.pytorch import callbacks

from lpt.training.distributed import gather


class RngState(Callback):
    """Saves and restores the random number generators of every rank.

    At a fresh start ranks other than the first are seeded again, so that each draws its own dropout
    masks.

    Args:
        seed: Seed of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.restored: list[dict[str, Any]] | None = None

    def state_dict(self) -> dict[str, Any]:
        """States of all ranks; a collective operation."""
        numpy_state: Any = np.random.get_state()
        name, key, *rest = numpy_state  # the key is an array, which weights_only=True refuses
        state = {
            "python": random.getstate(),
            "numpy": (name, key.tolist(), *rest),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all(),
        }
        return {"ranks": gather(state)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.restored = state_dict["ranks"]

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Restore before the first batch: setting up the training draws random numbers, too."""
        if self.restored is not None:
            state, self.restored = self.restored[trainer.global_rank], None
            random.setstate(state["python"])
            np.random.set_state(state["numpy"])
            torch.set_rng_state(state["torch"])
            torch.cuda.set_rng_state_all(state["cuda"])
        elif trainer.global_step == batch_idx == 0 and trainer.global_rank > 0:
            torch.manual_seed(self.seed + trainer.global_rank)


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's, but a run resumed after it had stopped early does not train any further."""

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        if self.wait_count >= self.patience:
            trainer.should_stop = True
