"""The training loop: Lightning module, trainer, callbacks, metrics, checkpoints."""
