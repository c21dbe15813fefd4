"""A task: how rows become labelled examples, what is rendered, how it is answered and scored."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lpt.data.candidates import ANSWER, GOLD, GROUP, ID, expand
from lpt.data.tables import Table
from lpt.data.templates import Template
from lpt.errors import Problems, config_error, did_you_mean

logger = logging.getLogger(__name__)
UNKNOWN = -1
_MISSING = (None, "", "-1")  # -1 is the hub's
_DECIMALS = 4  # of a number: the hub keeps single precision


@dataclass(frozen=True)
class Examples:
    """Examples of one split, column by column.

    Attributes:
        columns: Text of each column that the template uses.
        labels: Label index of each example, or its number; UNKNOWN (-1) where the source has none.
        index: Number of each example in its source, from 0: its row or, where rows become several
            candidates, its candidate.
        notes: What else is known of each, where the source has it: `id`, the official one; of
            candidates `group`, `answer` (what it stands for) and `gold` (right answers as JSON).
    """

    columns: Mapping[str, list[str]]
    labels: list[int] | list[float]
    row_ids: list[int]
    notes: Mapping[str, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def labelled(self) -> bool:
        """Whether every example has a label."""
        return UNKNOWN not in self.labels

    def units(self) -> list[list[int]]:
        """What is drawn as a whole: the positions of each group, or each example alone."""
        if GROUP not in self.notes:
            return [[at] for at in range(len(self))]
        groups: dict[str, list[int]] = {}
        for at, group in enumerate(self.notes[GROUP]):
            groups.setdefault(group, []).append(at)
        return list(groups.values())

    def take(self, rows: Sequence[int]) -> Examples:
        """The examples at the given positions in the given order."""
        return Examples(
            {name: [values[i] for i in rows] for name, values in self.columns.items()},
            [self.labels[i] for i in rows],
            [self.row_ids[i] for i in rows],
            {name: [values[i] for i in rows] for name, values in self.notes.items()},
        )

    def limited(self, limit: int | None, seed: int) -> Examples:
        """So many units, drawn with that seed and in their order; None: all."""
        units = self.units()
        if limit is None or limit >= len(units):
            return self
        drawn = sorted(np.random.default_rng(seed).permutation(len(units))[:limit].tolist())
        return self.take([row for number in drawn for row in units[number]])


@dataclass(frozen=True)
class Task:
    """A task, ready for one kind of model.

    Attributes:
        name: Name of the task.
        template: Parsed template.
        labels: Labels as they stand in the data; the two ends of the range of a number.
        label_words: Label word of each label.
        metrics: Metrics to report, the selecting one first.
        task_type: `classification`: the best label of each example; `multiple_choice`: the
            candidate of each group that
            is most likely right; `regression`: a number between the two labels.
        label_column: Column that holds the label.
        aliases: Other names under which a column may stand.
        label_aliases: Other ways in which the data write a label.
        skip_labels: Rows with such a label are left out.
        id_columns: Columns that may hold the official id of a row; the first that is there.
        row_expansion: How rows become candidates; see `lpt.data.candidates`.
        set_metrics: Metrics of the sets that have their own.
        extra_columns: Columns that are kept besides those of the template.
    """

    name: str
    template: Template
    labels: tuple[str, ...]
    label_words: tuple[str, ...]
    metrics: tuple[str, ...]
    task_type: str = "classification"
    label_column: str = "label"
    aliases: Mapping[str, Sequence[str]] = field(default_factory=dict)
    label_aliases: Mapping[str, str] = field(default_factory=dict)
    skip_labels: tuple[str, ...] = ()
    id_columns: tuple[str, ...] = ()
    row_expansion: str | None = None
    set_metrics: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    extra_columns: tuple[str, ...] = ()

    @property
    def metric(self) -> str:
        """The metric that selects."""
        return self.metrics[0]

    @property
    def value_range(self) -> tuple[float, float] | None:
        """The range of a number; None for other tasks."""
        return (
            (float(self.labels[0]), float(self.labels[1]))
            if self.task_type == "regression"
            else None
        )

    def shown(self, answer: float) -> str:
        """An answer as the data write it."""
        return shown(answer, self.labels, self.value_range)

    def metrics_of(self, name: str) -> tuple[str, ...]:
        """Metrics of a set."""
        return self.set_metrics.get(name, self.metrics)

    def examples(self, table: Table, *, need_labels: bool) -> Examples:
        """The rows of a table as examples.

        Raises:
            ConfigError: A column is missing, a row has no value for a text column, a label is not
                the task's, an id occurs twice, or a group has no right answer, each with file and
                line; or no row is left.
        """
        if self.row_expansion is not None:
            table = expand(table, self.row_expansion)
        problems = Problems()
        wanted = dict.fromkeys((*self.template.columns, *self.extra_columns))
        names = {column: self._column(table, column, problems) for column in wanted}
        label_name = self._find(table, self.label_column)
        if label_name is None and need_labels:
            self._column(table, self.label_column, problems)
        problems.raise_if_any()
        columns = {c: _texts(table, name or "", problems) for c, name in names.items()}
        labels, kept = self._labels(table, label_name, need_labels, problems)
        notes = self._notes(table, problems)
        problems.raise_if_any()
        examples = Examples(columns, labels, list(range(len(table))), notes)
        self._check_groups(table, examples, problems)
        if not kept:
            left_out = ", ".join(map(repr, self.skip_labels))
            problems.add(table.name, f"only rows with labels left out ({left_out})", "others, too")
        problems.raise_if_any()
        return examples if len(kept) == len(table) else examples.take(kept)

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

    def _labels(
        self, table: Table, name: str | None, need: bool, problems: Problems
    ) -> tuple[list[int] | list[float], list[int]]:
        """Label of each row, and the rows that are not left out for theirs."""
        if name is None:
            return [UNKNOWN] * len(table), list(range(len(table)))
        labels: list[float] = []
        kept: list[int] = []
        bad: list[int] = []
        known: dict[str | None, float | None] = {}
        names = table.class_names.get(name)
        for row, text in enumerate(table.columns[name]):
            value = text.strip() if text is not None else None
            if value not in self.skip_labels:
                kept.append(row)
            if value not in known:
                known[value] = self._label(value, names)
            label = known[value]
            if label is None or (label == UNKNOWN and need and value not in self.skip_labels):
                bad.append(row)
            labels.append(UNKNOWN if label is None else label)
        expected = ", ".join(self.labels)
        hint = "correct the row, or list the label in task.labels (with a word in task.label_words)"
        if self.value_range:
            expected, hint = f"a number from {' to '.join(self.labels)}", "correct the row"
        with problems.rows(table.name, "rows with such labels") as of_rows:
            for row in bad:
                value = table.columns[name][row]
                given = f"label {value!r}" if value not in _MISSING else "no label"
                of_rows.add(table.place(row), given, expected, hint)
        return labels if self.value_range else [int(label) for label in labels], kept

    def _label(self, value: str | None, names: Sequence[str] | None) -> float | None:
        """Index or number that a label stands for; UNKNOWN where there is none; None: not known."""
        if value in self.skip_labels or (value in _MISSING and value not in self.labels):
            return UNKNOWN
        assert value is not None
        if self.value_range is not None:
            try:
                number = round(float(value), _DECIMALS)
            except ValueError:
                return None
            inside = self.value_range[0] <= number <= self.value_range[1]
            return number if inside or number == UNKNOWN else None
        options = [value]
        if names is not None and value in map(str, range(len(names))):
            options.insert(0, names[int(value)])  # numbers may mean something else on the hub
        for option in options:
            label = self.label_aliases.get(option, option)
            if label in self.labels:
                return self.labels.index(label)
        return None

    def _notes(self, table: Table, problems: Problems) -> dict[str, list[str]]:
        found = {ID: next((c for c in self.id_columns if c in table.columns), None)}
        if self.row_expansion is not None:
            found |= {name: name for name in (ID, GROUP, ANSWER, GOLD)}
        notes: dict[str, list[str]] = {}
        for note, column in found.items():
            if column is not None and column in table.columns:
                notes[note] = [value or "" for value in table.columns[column]]
        hint = "correct the file"
        if self.row_expansion is None:
            hint += ", or let no column count as id: task.id_columns=[]"
        seen: dict[str, int] = {}
        with problems.rows(table.name, "ids that are there already") as twice:
            for row, value in enumerate(notes.get(ID, ())):
                if value and seen.setdefault(value, row) != row:
                    given = f"id {value!r}, as in {table.place(seen[value])}"
                    twice.add(table.place(row), given, f"differing ids in {found[ID]!r}", hint)
        return notes

    def _check_groups(self, table: Table, examples: Examples, problems: Problems) -> None:
        """Candidates compete: where labels are known, one of each group must be right."""
        if self.task_type != "multiple_choice":
            return
        with problems.rows(table.name, "groups without a right answer") as bad:
            for rows in examples.units():
                labels = [examples.labels[row] for row in rows]
                if UNKNOWN not in labels and 1 not in labels:
                    answers = ", ".join(examples.notes[ANSWER][row] for row in rows)
                    expected = "at least one right answer in each group"
                    given = f"no right answer among {answers}"
                    bad.add(table.place(rows[0]), given, expected, "correct the row")


def shown(answer: float, labels: Sequence[str], scale: Sequence[float] | None) -> str:
    """An answer as the data write it: the label with that index, or the number."""
    return f"{answer:.3f}" if scale is not None else labels[int(answer)]


def _texts(table: Table, name: str, problems: Problems) -> list[str]:
    values = table.columns[name]
    with problems.rows(table.name, f"rows without {name!r}") as missing:
        for row, value in enumerate(values):
            if value is None:
                missing.add(table.place(row), f"no value for {name!r}", "text")
    empty = sum(value is not None and not value.strip() for value in values)
    if empty:
        logger.warning("%s: %d rows with an empty %s.", table.name, empty, name)
    return [value or "" for value in values]


def choose_template(
    name: str, kind: str, templates: Mapping[str, str], template: str | None
) -> Template:
    """The template of a task for a `masked` or `causal` model.

    Raises:
        ConfigError: The task has no template for that kind of model, or a malformed one.
    """
    text = template if template is not None else templates.get(kind)
    if text is None:
        raise config_error(
            "task.template",
            f"null, and task {name} has no template for a {kind} model",
            f"templates for: {', '.join(templates) or 'none'}",
            "give one: 'task.template=\"...\"', or take another kind of model",
        )
    return Template.parse(text, "masked" if kind == "masked" else "causal")
