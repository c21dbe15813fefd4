"""A small task and tables of rows for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from lpt.data.tables import Table
from lpt.data.tasks import Task
from lpt.data.templates import Template
from lpt.errors import ConfigError


def task(template: str = "{text} <mask> .", **changes: Any) -> Task:
    arguments: dict[str, Any] = {
        "name": "toy",
        "template": Template.parse(template, "masked"),
        "labels": ("neg", "pos"),
        "words": ("bad", "good"),
        "metrics": ("accuracy",),
    }
    return Task(**arguments | changes)


def table(labels: Sequence[str | None], **columns: Sequence[str | None]) -> Table:
    """Rows on lines 2, 4, 6, ... of train.tsv."""
    texts = columns or {"text": [f"text {i}" for i in range(len(labels))]}
    return Table("train.tsv", {**texts, "label": labels}, range(2, 2 * len(labels) + 2, 2))


def refused(rows: Table, used: Task, *, need_labels: bool = True) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        used.examples(rows, need_labels=need_labels)
    return caught.value


def jsonl(name: str, *rows: dict[str, Any]) -> Table:
    """Rows on lines 1, 2, ... of a file as its reader gives them."""
    cells = {
        column: [v if isinstance(v := row.get(column), str) else json.dumps(v) for row in rows]
        for column in rows[0]
    }
    return Table(name, cells, range(1, len(rows) + 1))
