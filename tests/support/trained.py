"""Training within a test, and what is looked at afterwards."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch
from lightning import Callback

from lpt.config.schema import Config
from lpt.methods.late_prompt import Batch
from lpt.models.generators import GENERATORS
from lpt.training.build import build_data, build_model, build_module
from lpt.training.module import LatePromptModule
from lpt.training.plan import prepare
from lpt.training.trainer import build_trainer

KINDS = (*GENERATORS, "static")


class Spy(Callback):
    """Notes the modes in which training steps run, and the losses."""

    def __init__(self) -> None:
        self.modes: set[tuple[bool, ...]] = set()
        self.losses: list[float] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        split = pl_module.model.split
        parts = (pl_module.model.generator, split.below, split.above, split.head)
        self.modes.add(tuple(part.training for part in parts))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.losses.append(float(outputs["loss"]))


def fit(config: Config, folder: Path) -> tuple[LatePromptModule, Spy]:
    """Train through the project's own builders and trainer, sanity check included."""
    torch.manual_seed(config.seed)
    plan = prepare(config)
    model, _ = build_model(config, plan)
    module = build_module(config, plan, model)
    trainer, spy = build_trainer(config, folder, plan.backbone, model), Spy()
    trainer.callbacks.append(spy)  # type: ignore[attr-defined]
    trainer.fit(module, datamodule=build_data(config, plan))
    return module, spy


def train_batches(config: Config) -> list[Batch]:
    """The batches that a run with this configuration trains on."""
    return list(build_data(config, prepare(config)).train_dataloader())


def logged(tmp_path: Path, name: str) -> list[dict[str, str]]:
    """The rows of the run's CSV log that tell this value."""
    with (tmp_path / "run" / "csv" / "metrics.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row[name]]


def table(path: Path) -> list[dict[str, str]]:
    head, *lines = (line.split("\t") for line in path.read_text().splitlines())
    return [dict(zip(head, line, strict=True)) for line in lines]
