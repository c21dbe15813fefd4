"""A small task and tables of rows for it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from lpt.config.task_schema import TaskConfig
from lpt.data.examples import Examples, build_examples
from lpt.data.tables import Table
from lpt.data.tasks import Task, build_task
from lpt.data.templates import Template
from lpt.errors import Problem
from tests.support.configs import configured
from tests.support.problems import problems_of


def task(template: str = "{text} <mask> .", **changes: Any) -> Task:
    arguments: dict[str, Any] = {
        "name": "toy",
        "labels": ["neg", "pos"],
        "label_words": ["bad", "good"],
        "id_columns": [],
    }
    return Task(TaskConfig(**arguments | changes), Template.parse(template, "masked"))


def changed(used: Task, **changes: Any) -> Task:
    """A task with other settings."""
    return dataclasses.replace(used, config=dataclasses.replace(used.config, **changes))


def examples_of(rows: Table, used: Task | None = None, *, need_labels: bool = True) -> Examples:
    """The examples of a table, of the small task by default."""
    return build_examples(used or task(), rows, need_labels=need_labels)


def official(name: str, *overrides: str) -> Task:
    """A task of conf/task for a masked model."""
    return build_task(configured(f"task={name}", *overrides), "masked")


def table(labels: Sequence[str | None], **columns: Sequence[str | None]) -> Table:
    """Rows on lines 2, 4, 6, ... of train.tsv."""
    texts = columns or {"text": [f"text {i}" for i in range(len(labels))]}
    return Table("train.tsv", {**texts, "label": labels}, range(2, 2 * len(labels) + 2, 2))


def jsonl(*rows: dict[str, Any]) -> Table:
    """Rows on lines 1, 2, ... of train.jsonl, as its reader gives them."""
    names = dict.fromkeys(name for row in rows for name in row)
    cells = {
        name: [v if isinstance(v := row.get(name), str | None) else json.dumps(v) for row in rows]
        for name in names
    }
    return Table("train.jsonl", cells, range(1, len(rows) + 1))


def refused(rows: Table, used: Task, *, need_labels: bool = True) -> list[Problem]:
    return problems_of(lambda: build_examples(used, rows, need_labels=need_labels))
