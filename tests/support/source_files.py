"""Files and data sets as sources find them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from lpt.data.build import build_task, read_splits
from lpt.data.splits import Splits
from lpt.data.tables import Table
from tests.unit.config.test_config import configured

Row = dict[str, Any]
HUB_SPLITS = {"train": "train", "dev": "validation_matched", "mm": "validation_mm", "ax": "ax/test"}


def columns_of(table: Table) -> dict[str, list[str | None]]:
    return {name: list(values) for name, values in table.columns.items()}


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def write_parquet(path: Path, **columns: list[Any]) -> None:
    pq.write_table(pa.table(columns), path)


def data(*texts: str) -> Dataset:
    names = ["neg", "pos"]
    features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
    return Dataset.from_dict({"text": list(texts), "label": [0] * len(texts)}, features=features)


def stub_hub(monkeypatch: pytest.MonkeyPatch, load: Callable[..., Any]) -> None:
    monkeypatch.setattr("lpt.data.sources.hub_reachable", lambda: False)
    monkeypatch.setattr("lpt.data.sources.hub_state", lambda: "switched off")
    monkeypatch.setattr("datasets.load_dataset", load)


def splits_of(task: str, *overrides: str) -> Splits:
    config = configured(f"task={task}", *overrides)
    return read_splits(config, build_task(config, "masked"))
