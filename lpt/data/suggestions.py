"""What a file of the user's own suggests where keys of the task are missing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from lpt.config.command_line import quoted
from lpt.config.schema import Config
from lpt.data.sources import Source, build_source
from lpt.data.tables import Table
from lpt.data.templates import MASK, Kind
from lpt.errors import ConfigError, Problems

_MAX_LABELS = 20  # of a column that is taken for that of the labels
_LABELS, _WORDS, _TEMPLATE = "task.labels", "task.label_words", "task.template"


def suggest_from_data(
    config: Config, source: Source | None, kind: Kind | None, problems: Problems
) -> None:
    """Say in problems with missing labels, words and template what the training rows have.

    Only for data of the user's own, which are no published data set.

    Args:
        config: The configuration.
        source: Source of the rows; None: the one that the configuration names.
        kind: Kind of the backbone, if known.
        problems: Those found so far; if the rows cannot be read, why comes before them.
    """
    own = config.task.hub is None and config.task.folder is None
    if not own or not problems.mentions(_LABELS, _WORDS, _TEMPLATE):
        return
    try:
        table = (source or build_source(config)).read("train")
    except ConfigError as error:
        if not problems.mentions("data.path", "data.root"):
            problems.found[:0] = error.problems
        return
    task = config.task
    column = task.label_column if task.label_column in table.columns else _label_column(table)
    if column is not None and column != task.label_column:
        given = f"{task.label_column}, which {table.name} lacks"
        hint = f"task.label_column={quoted(column)}"
        problems.add("task.label_column", given, f"one of {', '.join(table.columns)}", hint)
    counts = _counts(table, column) if column is not None else Counter()
    found = ", ".join(f"{label} ({count})" for label, count in sorted(counts.items()))
    listed = ",".join(quoted(label) for label in sorted(counts))
    texts = [name for name in _by_length(table) if name != column]
    slot = MASK if kind == "masked" else "{word}"
    hints = {
        _LABELS: (f"labels in {column!r} (rows): {found}", f'"task.labels=[{listed}]"'),
        _WORDS: (f"a word for each of {found}", f'"task.label_words=[{listed}]", or other words'),
    }
    if not counts or len(counts) > _MAX_LABELS:
        hints = dict.fromkeys(hints, (f"the labels; {table.name} has {_listed(table)}", ""))
    if texts:
        template = f"""'{_TEMPLATE}="{{{texts[0]}}} It was {slot} ."'"""
        hints[_TEMPLATE] = (f"a template with columns of {', '.join(texts)}", template)
    empty = ("null", "[]")
    for number, problem in enumerate(problems.found):
        if problem.where in hints and problem.given.startswith(empty):
            expected, hint = hints[problem.where]
            problems.found[number] = replace(problem, expected=expected, hint=hint)


def _listed(table: Table) -> str:
    return f"the columns {', '.join(table.columns)}"


def _counts(table: Table, column: str) -> Counter[str]:
    """Rows of each label; numbers of the source's classes as their names."""
    names = table.class_names.get(column, ())
    values = (value.strip() for value in table.columns[column] if value)
    return Counter(
        names[int(value)] if value.isdigit() and int(value) < len(names) else value
        for value in values
    )


def _label_column(table: Table) -> str | None:
    """The column with the fewest values that recur; None if none does."""
    distinct = {name: len(_counts(table, name)) for name in table.columns}
    limit = min(_MAX_LABELS, len(table) // 2)
    fitting = {name: count for name, count in distinct.items() if 2 <= count <= limit}
    return min(fitting, key=fitting.__getitem__, default=None)


def _by_length(table: Table) -> list[str]:
    """The columns, those with the longest texts first."""
    lengths = {
        name: sum(len(cell or "") for cell in cells) for name, cells in table.columns.items()
    }
    return sorted(lengths, key=lengths.__getitem__, reverse=True)
