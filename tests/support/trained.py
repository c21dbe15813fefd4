"""Training within a test, and reading what it wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning import Callback

from lpt.config.schema import Config
from lpt.data.datamodule import TaskDataModule, build_datamodule
from lpt.models.generators import GENERATORS
from lpt.models.inputs import Batch
from lpt.training.module import LatePromptModule, build_model, build_module
from lpt.training.plan import Plan, prepare
from lpt.training.trainer import build_trainer
from tests.support.csv_curves import read_curves

KINDS = (*GENERATORS, "static")


class Spy(Callback):
    """Records the modes in which training steps run, and the losses."""

    def __init__(self) -> None:
        self.modes: set[tuple[bool, ...]] = set()
        self.losses: list[float] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        split = pl_module.model.split
        parts = (pl_module.model.generator, split.lower, split.upper, split.head)
        self.modes.add(tuple(part.training for part in parts))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.losses.append(float(outputs["loss"]))


def fit(config: Config, folder: Path) -> tuple[LatePromptModule, Spy]:
    """Train through the project's own builders and trainer, sanity check included."""
    torch.manual_seed(config.seed)
    plan = prepare(config)
    model, _ = build_model(plan)
    module = build_module(plan, model)
    trainer, spy = build_trainer(config, folder, plan.backbone, model), Spy()
    trainer.callbacks.append(spy)  # type: ignore[attr-defined]
    trainer.fit(module, datamodule=build_data(config, plan))
    return module, spy


def build_data(config: Config, plan: Plan) -> TaskDataModule:
    """The datamodule of a run."""
    return build_datamodule(plan.config, plan.splits, plan.encoder, plan.word_ids)


def train_batches(config: Config) -> list[Batch]:
    """The batches that a run with this configuration trains on."""
    return list(build_data(config, prepare(config)).train_dataloader())


def logged(tmp_path: Path, name: str) -> list[dict[str, str]]:
    """The rows of the run's CSV log that have this value."""
    return [row for row in read_curves(tmp_path / "run") if row[name]]


def table(path: Path) -> list[dict[str, str]]:
    """Rows of a file of predictions."""
    head, *lines = (line.split("\t") for line in path.read_text().splitlines())
    return [dict(zip(head, line, strict=True)) for line in lines]
