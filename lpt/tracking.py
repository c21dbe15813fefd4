"""Where curves go: CSV, TensorBoard, Weights & Biases, any number at once."""

from __future__ import annotations

import netrc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from lpt.config import LoggerConfig
from lpt.errors import Problems


def build_loggers(config: LoggerConfig, run_dir: Path, resolved: dict[str, Any]) -> list[Logger]:
    """The loggers that are switched on.

    Args:
        config: Which ones.
        run_dir: Their files go here.
        resolved: The run's configuration as plain types, kept with the run.
    """
    loggers: list[Logger] = []
    if config.csv:
        loggers.append(CSVLogger(run_dir, name="csv", version=""))
    if config.tensorboard:
        loggers.append(TensorBoardLogger(run_dir, name="tensorboard", version=""))
    if config.wandb.enabled:
        wandb = config.wandb
        loggers.append(
            WandbLogger(
                name=run_dir.name,
                save_dir=run_dir,
                project=wandb.project,
                entity=wandb.entity,
                group=wandb.group,
                tags=list(wandb.tags),
                offline=wandb.mode == "offline",
                config=resolved,
            )
        )
    return loggers


def check_loggers(config: LoggerConfig, problems: Problems) -> None:
    """Note what would make a logger fail after the training has begun."""
    if config.wandb.enabled and config.wandb.mode == "online" and not _wandb_key():
        problems.add(
            "logger.wandb.mode",
            "online, but there is no W&B key",
            "a key (wandb login, or WANDB_API_KEY), or offline",
            "log in once, or set logger.wandb.mode=offline and `wandb sync` later",
        )


@contextmanager
def finished_loggers(config: LoggerConfig) -> Iterator[None]:
    """When the block ends, close what would otherwise leak into the next run of this process."""
    mode = os.environ.get("WANDB_MODE")
    try:
        yield
    finally:
        if config.wandb.enabled:
            import wandb

            wandb.finish()
            # WandbLogger's offline mode changes this for every later run of the process.
            os.environ.pop("WANDB_MODE", None)
            if mode is not None:
                os.environ["WANDB_MODE"] = mode


def _wandb_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("://")[-1].split("/")[0]
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
