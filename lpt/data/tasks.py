"""A task: how rows become labelled examples, what is rendered, how it is scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lpt.data.sources import Table
from lpt.data.templates import Template
from lpt.errors import Problems, did_you_mean, fail

UNKNOWN = -1
_SHOWN_ROWS = 5


@dataclass(frozen=True)
class Examples:
    """Rows of one split, column by column.

    Attributes:
        columns: Text of each column that the template uses.
        labels: Label index of each row; UNKNOWN (-1) where the source has none.
        index: Row number in the source, from 0.
    """

    columns: Mapping[str, list[str]]
    labels: list[int]
    index: list[int]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def labelled(self) -> bool:
        """Whether every row has a label."""
        return UNKNOWN not in self.labels

    def take(self, rows: Sequence[int]) -> Examples:
        """The given rows in the given order."""
        return Examples(
            {name: [values[i] for i in rows] for name, values in self.columns.items()},
            [self.labels[i] for i in rows],
            [self.index[i] for i in rows],
        )

    def limited(self, limit: int | None, seed: int) -> Examples:
        """So many rows, drawn with that seed and in their order; None: all."""
        if limit is None or limit >= len(self):
            return self
        drawn = np.random.default_rng(seed).permutation(len(self))[:limit]
        return self.take(sorted(drawn.tolist()))


@dataclass(frozen=True)
class Task:
    """A classification task, ready for one kind of model.

    Attributes:
        name: Name of the task.
        template: Parsed template.
        labels: Labels as they stand in the data.
        words: Label word of each label.
        label_column: Column that holds the label.
        aliases: Other names under which a column may stand.
        metric: Metric that selects.
        metrics: All metrics to report, the selecting one first.
    """

    name: str
    template: Template
    labels: tuple[str, ...]
    words: tuple[str, ...]
    label_column: str
    aliases: Mapping[str, Sequence[str]]
    metric: str
    metrics: tuple[str, ...]

    def examples(self, table: Table, *, need_labels: bool) -> Examples:
        """The rows of a table as examples.

        Raises:
            ConfigError: A column is missing, a row has no value for a text column, or a label is
                not the task's; each with file and line.
        """
        problems = Problems()
        names = {c: self._column(table, c, problems) for c in self.template.columns}
        label_name = self._find(table, self.label_column)
        if label_name is None and need_labels:
            self._column(table, self.label_column, problems)
        problems.raise_if_any()
        columns = {c: _texts(table, name or "", problems) for c, name in names.items()}
        count = len(table.lines)
        labels = [UNKNOWN] * count
        if label_name is not None:
            labels = self._labels(table, label_name, need_labels, problems)
        problems.raise_if_any()
        return Examples(columns, labels, list(range(count)))

    def _find(self, table: Table, column: str) -> str | None:
        options = [column, *self.aliases.get(column, ())]
        return next((name for name in options if name in table.columns), None)

    def _column(self, table: Table, column: str, problems: Problems) -> str | None:
        name = self._find(table, column)
        if name is None:
            options = [column, *self.aliases.get(column, ())]
            hint = did_you_mean(column, table.columns)
            key = "task.label_column" if column == self.label_column else "task.template"
            problems.add(
                table.name,
                f"no column {' or '.join(options)} (it has: {', '.join(table.columns)})",
                f"the columns of {key}",
                f"name the column in {key}{f'; {hint}' if hint else ''}",
            )
        return name

    def _labels(self, table: Table, name: str, need: bool, problems: Problems) -> list[int]:
        known = {label: i for i, label in enumerate(self.labels)}
        labels: list[int] = []
        bad: list[int] = []
        for row, value in enumerate(table.columns[name]):
            label = known.get((value or "").strip(), UNKNOWN)
            if label == UNKNOWN and (need or value):
                bad.append(row)
            labels.append(label)
        for row in bad[:_SHOWN_ROWS]:
            value = table.columns[name][row]
            problems.add(
                table.place(row),
                f"label {value!r}" if value else "no label",
                ", ".join(self.labels),
                "correct the row, or list the label in task.labels (with a word in task.words)",
            )
        if len(bad) > _SHOWN_ROWS:
            problems.add(table.name, f"{len(bad) - _SHOWN_ROWS} more rows with such labels")
        return labels


def _texts(table: Table, name: str, problems: Problems) -> list[str]:
    values = table.columns[name]
    missing = [i for i, value in enumerate(values) if value is None]
    for row in missing[:_SHOWN_ROWS]:
        problems.add(table.place(row), f"no value for {name!r}", "text")
    if len(missing) > _SHOWN_ROWS:
        problems.add(table.name, f"{len(missing) - _SHOWN_ROWS} more rows without {name!r}")
    return [value or "" for value in values]


def make_task(
    *,
    name: str,
    kind: str,
    templates: Mapping[str, str],
    template: str | None,
    labels: Sequence[str],
    words: Sequence[str],
    label_column: str,
    aliases: Mapping[str, Sequence[str]],
    metric: str,
    metrics: Sequence[str],
) -> Task:
    """Assemble a task for a `masked` or `causal` model.

    Raises:
        ConfigError: The task has no template for that kind of model, or a malformed one.
    """
    text = template if template is not None else templates.get(kind)
    if text is None:
        raise fail(
            "task.template",
            f"null, and task {name} has no template for a {kind} model",
            f"templates for: {', '.join(templates) or 'none'}",
            "give one: 'task.template=\"...\"', or take another kind of model",
        )
    return Task(
        name,
        Template.parse(text, "masked" if kind == "masked" else "causal"),
        tuple(labels),
        tuple(words),
        label_column,
        aliases,
        metric,
        tuple(dict.fromkeys([metric, *metrics])),
    )
