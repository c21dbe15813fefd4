"""Data of a run within a test, and reading what it wrote."""

from __future__ import annotations

from pathlib import Path

from lpt.config.schema import Config
from lpt.data.datamodule import TaskDataModule
from lpt.models.generators import GENERATORS
from lpt.models.inputs import Batch
from lpt.training.plan import Plan, prepare

KINDS = (*GENERATORS, "static")


def build_data(config: Config, plan: Plan) -> TaskDataModule:
    """The datamodule of a run."""
    return TaskDataModule(plan.config, plan.splits, plan.encoder, plan.word_ids)


def train_batches(config: Config) -> list[Batch]:
    """The batches that a run with this configuration trains on."""
    return list(build_data(config, prepare(config)).train_dataloader())


def table(path: Path) -> list[dict[str, str]]:
    """Rows of a file of predictions."""
    head, *lines = (line.split("\t") for line in path.read_bytes().decode().splitlines())
    return [dict(zip(head, line, strict=True)) for line in lines]
