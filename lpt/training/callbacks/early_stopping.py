"""Early stopping that survives a resume."""

from __future__ import annotations

from lightning import LightningModule, Trainer
from lightning.pytorch import callbacks


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's, but a run resumed after it had stopped early does not train any further."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop at once where the patience is used up."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True
