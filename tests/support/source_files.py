"""Files and data sets as sources find them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from lpt.data.splits import Splits, read_splits
from lpt.data.tables import Table
from lpt.data.tasks import build_task
from tests.support.configs import configured

Row = dict[str, Any]
HUB_SPLITS = {"train": "train", "dev": "validation_matched", "mm": "validation_mm", "ax": "ax/test"}


def columns_of(table: Table) -> dict[str, list[str | None]]:
    return {name: list(values) for name, values in table.columns.items()}


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def write_texts(path: Path, *texts: str) -> None:
    """A file of the type that its suffix says, with a column `text`: by default, its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    column = list(texts) or [path.name]
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"text": column}), path)
    elif path.suffix == ".jsonl":
        write(path, "".join(json.dumps({"text": text}) + "\n" for text in column))
    else:
        write(path, "".join(f"{text}\n" for text in ("text", *column)))


def dataset(*texts: str) -> Dataset:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    return Dataset.from_dict({"text": list(texts), "label": [0] * len(texts)}, features=features)


def stub_hub(monkeypatch: pytest.MonkeyPatch, load: Callable[..., Any]) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.load_dataset", load)


def splits_of(task: str, *overrides: str) -> Splits:
    config = configured(f"task={task}", *overrides)
    return read_splits(config, build_task(config, "masked"))
