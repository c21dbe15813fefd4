"""Texts of rows from Python."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lpt.errors import Problems, config_error, type_of

_SURROGATE = re.compile(r"[\ud800-\udfff]")  # half a character, which no tokenizer takes


def text_columns(rows: Any, names: Sequence[str]) -> dict[str, list[str]]:
    """The texts of rows by column; of a list, a pandas DataFrame or a `datasets.Dataset`.

    Args:
        rows: Those of a list are dicts, text by column, or, for a single column, the texts.
        names: The columns; others are ignored.

    Raises:
        ConfigError: Something is no row, or has no text in one of these columns.
    """
    expected = f"a list of rows, each with text in {', '.join(names)}"
    hint = f"the template reads {', '.join(names)}: rename the column"
    present = getattr(rows, "column_names", getattr(rows, "columns", None))
    if present is not None:  # a Dataset or a DataFrame
        if missing := [name for name in names if name not in present]:
            raise config_error("rows", _lacking(missing, present), expected, hint)
        cells = zip(*(list(rows[name][:]) for name in names), strict=True)
        rows = [dict(zip(names, row, strict=True)) for row in cells]
    elif hasattr(rows, "tolist"):  # a Series or an array
        rows = rows.tolist()
    if not isinstance(rows, Sequence) or isinstance(rows, str | bytes):
        raise config_error("rows", type_of(rows), f"{expected}; a DataFrame or a datasets.Dataset")
    if len(names) == 1:
        rows = [{names[0]: row} if isinstance(row, str) else row for row in rows]
    problems = Problems()
    with problems.rows("rows") as bad_rows:
        for number, row in enumerate(rows):
            if not isinstance(row, Mapping):
                bad_rows.add(f"rows[{number}]", type_of(row), expected)
                continue
            for name in names:
                _check_cell(row, name, bad_rows, f"rows[{number}].{name}", expected, hint)
    problems.raise_if_any()
    return {name: [row[name] for row in rows] for name in names}


def _check_cell(
    row: Mapping[str, Any], name: str, problems: Problems, where: str, expected: str, hint: str
) -> None:
    if name not in row:
        problems.add(where, _lacking([name], row), expected, hint)
    elif not isinstance(row[name], str) or _SURROGATE.search(row[name]):
        problems.add(where, f"{row[name]!r}, which is no text", expected)


def _lacking(missing: Iterable[str], present: Iterable[Any]) -> str:
    return f"no column {', '.join(missing)} (it has: {', '.join(map(str, present)) or 'none'})"
