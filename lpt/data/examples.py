"""Labeled examples, built from the rows of a table."""

from __future__ import annotations

import logging
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lpt.config.command_line import label_aliases_setting
from lpt.config.label_text import spellings
from lpt.config.task_schema import UNKNOWN as UNKNOWN  # re-exported
from lpt.config.task_schema import TaskConfig, is_labeled
from lpt.data.candidates import ANSWER, GOLD, GROUP, ID, expand_rows
from lpt.data.cells import NoText
from lpt.data.tables import Table
from lpt.data.tasks import Task
from lpt.errors import Problems, did_you_mean

logger = logging.getLogger(__name__)
_NO_LABEL = (None, "", "-1")  # -1 is the hub's, unless it is one of the task's labels
_MISREAD = re.compile(r"[\x80-\x84\x86-\x9f]")  # cp1252 has quotes there; U+0085 breaks lines
_CP1252 = (
    "if the file was converted, convert the original from its own encoding; "
    "instead of latin1: iconv -f cp1252 -t utf-8"
)
_BOOLEANS = {text: str(int(value)) for value in (False, True) for text in spellings(value)}


@dataclass(frozen=True)
class Examples:
    """Examples of one split, column by column.

    Attributes:
        columns: Text of each column that the template uses.
        labels: Label index of each example, or its number. Without a label: UNKNOWN (-1), or NaN.
        row_ids: Index of each example in its source, from 0: of its row or, where rows are expanded
            to candidates, of its candidate.
        metadata: `id`, the official one, and of candidates `group`, `answer` (what the candidate
            stands for) and `gold` (the right answers as JSON), where the source has them.
        short_rows: Last cell of each row that the source skipped, by its place among all rows; of
            a selection, none.
    """

    columns: Mapping[str, list[str]]
    labels: list[int] | list[float]
    row_ids: list[int]
    metadata: Mapping[str, list[str]] = field(default_factory=dict)
    short_rows: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def labeled_positions(self) -> list[int]:
        """Positions of the labeled examples; of groups, only those that are labeled throughout."""
        labeled = [is_labeled(label) for label in self.labels]
        if all(labeled) or GROUP not in self.metadata:
            return [position for position, known in enumerate(labeled) if known]
        groups = (group for group in self.groups() if all(labeled[i] for i in group))
        return sorted(position for group in groups for position in group)

    def groups(self) -> list[list[int]]:
        """Positions of the examples of each group; without groups, each example alone.

        Groups are sampled as a whole and count as one.
        """
        if GROUP not in self.metadata:
            return [[position] for position in range(len(self))]
        groups: dict[str, list[int]] = {}
        for position, group in enumerate(self.metadata[GROUP]):
            groups.setdefault(group, []).append(position)
        return list(groups.values())

    def select(self, positions: Sequence[int]) -> Examples:
        """The examples at the given positions, in the given order."""
        return Examples(
            {name: [values[i] for i in positions] for name, values in self.columns.items()},
            [self.labels[i] for i in positions],
            [self.row_ids[i] for i in positions],
            {name: [values[i] for i in positions] for name, values in self.metadata.items()},
        )

    def subsample(self, limit: int | None, seed: int) -> Examples:
        """At most `limit` random groups in their original order; None: all."""
        groups = self.groups()
        if limit is None or limit >= len(groups):
            return self
        sampled = sorted(np.random.default_rng(seed).permutation(len(groups))[:limit].tolist())
        return self.select([position for number in sampled for position in groups[number]])


def build_examples(task: Task, table: Table, *, need_labels: bool) -> Examples:
    """The rows of a table as examples of a task; `need_labels` refuses rows without a label.

    Raises:
        ConfigError: A column is missing, a row has no value in a text column, a label is not one of
            the task's, an id occurs twice, or a group has no right answer, each with file and
            line; or no row is left.
    """
    config = task.config
    if config.row_expansion is not None:
        table = expand_rows(table, config.row_expansion)
    problems = Problems()
    texts = dict.fromkeys((*task.template.columns, *task.extra_columns))
    found = {name: _find_column(config, table, name) for name in (*texts, config.label_column)}
    for name, column in found.items():
        if column is None and (need_labels or name in texts):
            _add_missing_column(config, table, name, problems)
    problems.raise_if_any()
    own = config.hub is None and config.folder is None  # not a published data set as it is
    columns = {name: _texts(table, str(found[name]), own, problems) for name in texts}
    labels, kept = _labels(task, table, found[config.label_column], need_labels, problems)
    metadata = _metadata(config, table, problems)
    problems.raise_if_any()
    row_ids = list(range(len(table)))
    examples = Examples(columns, labels, row_ids, metadata, table.short_rows)
    if config.task_type == "multiple_choice":
        _check_groups(table, examples, problems)
    if not kept:
        skipped = ", ".join(map(repr, config.skip_labels))
        problems.add(table.name, f"only rows with skipped labels ({skipped})", "other rows as well")
    problems.raise_if_any()
    examples = examples if len(kept) == len(table) else examples.select(kept)
    if 0 < (labeled := len(examples.labeled_positions())) < (count := len(examples)):
        message = "%s: %d of %d examples have no label: the scores are those of the other %d."
        logger.warning(message, table.name, count - labeled, count, labeled)
    return examples


def _find_column(config: TaskConfig, table: Table, name: str) -> str | None:
    """The column of that name, or else under one of its aliases."""
    options = [name, *config.aliases.get(name, ())]
    return next((option for option in options if option in table.columns), None)


def _add_missing_column(config: TaskConfig, table: Table, name: str, problems: Problems) -> None:
    near = did_you_mean(name, table.columns)
    key = "task.label_column" if name == config.label_column else "task.template"
    problems.add(
        table.name,
        f"no column {' or '.join([name, *config.aliases.get(name, ())])} "
        f"(it has: {', '.join(table.columns)})",
        f"the columns of {key}",
        f"name the column in {key}{f'; {near}' if near else ''}",
    )


def _texts(table: Table, column: str, own: bool, problems: Problems) -> list[str]:
    values = table.columns[column]
    with problems.rows(table.name, f"rows without {column!r}") as bad_rows:
        for row, value in enumerate(values):
            if value is None:
                bad_rows.add(table.location(row), f"no value for {column!r}", "text")
            elif isinstance(value, NoText):
                given = f"{column!r} is {value.type_name}: {value[:60]}"
                bad_rows.add(table.location(row), given, "text")
            elif own and (found := _MISREAD.search(value)):
                given = f"the control character {found[0]!r} in {column!r}"
                bad_rows.add(table.location(row), given, "text", _CP1252)
    empty = sum(value is not None and not value.strip() for value in values)
    if empty:
        logger.warning("%s: %d rows with an empty %s.", table.name, empty, column)
    return [value or "" for value in values]


def _labels(
    task: Task, table: Table, column: str | None, need_labels: bool, problems: Problems
) -> tuple[list[int] | list[float], list[int]]:
    """Label of each row, and the rows whose label is not among `skip_labels`."""
    unknown = UNKNOWN if task.value_range is None else math.nan
    if column is None:
        return [unknown] * len(table), list(range(len(table)))
    config = task.config
    values = [None if text is None else text.strip() for text in table.columns[column]]
    class_names = table.class_names.get(column, ())
    parsed = {value: _parse_label(task, value, class_names) for value in set(values)}
    kept = [row for row, value in enumerate(values) if value not in config.skip_labels]
    expected = ", ".join(config.labels)
    hint = _label_hint(config.labels, [v for v in parsed if v and parsed[v] is None])
    if task.value_range:
        expected, hint = f"a number from {' to '.join(config.labels)}", "correct the row"
    with problems.rows(table.name, "rows with such labels") as bad_rows:
        for row in kept:
            value, label = values[row], parsed[values[row]]
            if label is None or (need_labels and not is_labeled(label)):
                given = "no label" if value in _NO_LABEL else f"label {_shown(str(value))}"
                bad_rows.add(table.location(row), given, expected, hint)
    labels = [unknown if (label := parsed[value]) is None else label for value in values]
    return labels if task.value_range else [int(label) for label in labels], kept


def _label_hint(labels: Sequence[str], unknown: Sequence[str]) -> str:
    """Aliases for the unknown labels that are other spellings of the task's, or else a correction.

    Such a value differs only in case, in `.0`, in the spelling of a boolean or in Unicode form.
    """
    known: dict[str, list[str]] = {}
    for label in labels:
        known.setdefault(_spelling_key(label), []).append(label)
    aliases = {}
    for value in sorted(unknown):
        if len(same := known.get(_spelling_key(value), [])) == 1:
            aliases[value] = same[0]
    if aliases:
        setting = label_aliases_setting(aliases)
        return f"correct the row; if it is another spelling of one of task.labels: {setting}"
    return "correct the row, or list the label in task.labels (with a word in task.label_words)"


def _spelling_key(label: str) -> str:
    """What all spellings of a label have in common; of booleans and numbers, the number."""
    text = unicodedata.normalize("NFKC", label).casefold()
    text = _BOOLEANS.get(text, text)
    try:
        return str(float(text))
    except ValueError:
        return text


def _shown(label: str) -> str:
    """A label for a message; decomposed characters, which look like composed ones, as escapes."""
    return repr(label) if unicodedata.is_normalized("NFC", label) else ascii(label)


def _parse_label(task: Task, value: str | None, class_names: Sequence[str]) -> float | None:
    """Label index; UNKNOWN for a missing or skipped label, None for an invalid one.

    Of a regression, the number; NaN for a missing one.
    """
    config = task.config
    if task.value_range is not None:
        missing = not value or value in config.skip_labels
        return math.nan if missing else _parse_number(str(value), *task.value_range)
    if value is None or value in config.skip_labels:
        return UNKNOWN
    if value in _NO_LABEL and value not in (*config.labels, *config.label_aliases):
        return UNKNOWN
    names = [value]
    if value in map(str, range(len(class_names))):
        names.insert(0, class_names[int(value)])  # the hub's numbers may not be the task's
    labels = (config.label_aliases.get(name, name) for name in names)
    return next((config.labels.index(label) for label in labels if label in config.labels), None)


def _parse_number(text: str, low: float, high: float) -> float | None:
    """A number of the range; NaN for a -1 outside of it, None for anything else.

    A number that the hub stored in single precision is the decimal that it stands for: 3.8 for
    3.799999952316284.
    """
    try:
        number = float(text.replace("_", "?"))  # 1_000 is a number to Python only
    except ValueError:
        return None
    with np.errstate(over="ignore"):
        single = np.float32(number)
    if float(single) == number and not number.is_integer():
        number = float(str(single))
    if low <= number <= high:
        return number
    return math.nan if number == UNKNOWN else None


def _metadata(config: TaskConfig, table: Table, problems: Problems) -> dict[str, list[str]]:
    hint = "correct the file"
    if config.row_expansion is None:
        ids = [name for name in config.id_columns if name in table.columns]
        sources = {ID: ids[0]} if ids else {}
        hint += ", or use no column as id: task.id_columns=[]"
    else:
        sources = {name: name for name in (ID, GROUP, ANSWER, GOLD) if name in table.columns}
    metadata = {
        name: [value or "" for value in table.columns[column]] for name, column in sources.items()
    }
    first_rows: dict[str, int] = {}
    with problems.rows(table.name, "duplicate ids") as bad_rows:
        for row, value in enumerate(metadata.get(ID, ())):
            if value and (first := first_rows.setdefault(value, row)) != row:
                given = f"id {value!r}, as in {table.location(first)}"
                bad_rows.add(table.location(row), given, f"unique ids in {sources[ID]!r}", hint)
    return metadata


def _check_groups(table: Table, examples: Examples, problems: Problems) -> None:
    """Where the labels of a group are known, one of its candidates must be right."""
    with problems.rows(table.name, "groups without a right answer") as bad_rows:
        for positions in examples.groups():
            labels = [examples.labels[i] for i in positions]
            if UNKNOWN not in labels and 1 not in labels:
                answers = ", ".join(examples.metadata[ANSWER][i] for i in positions)
                bad_rows.add(
                    table.location(positions[0]),
                    f"no right answer among {answers}",
                    "at least one right answer in each group",
                    "correct the row",
                )
