"""Rows from Python: a list of dicts, a pandas DataFrame or a `datasets.Dataset`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lpt.data.cells import cell_text
from lpt.data.sources import TableSource
from lpt.data.tables import Table, table_from_dataset
from lpt.errors import Problems, type_of

_EXPECTED = "rows: a list of dicts (value by column), a DataFrame or a datasets.Dataset"


def table_source(sets: Mapping[str, Any]) -> TableSource:
    """The rows of the sets `train`, `dev` and `test`; None where there is no such set.

    Raises:
        ConfigError: There is no train set, or something in a set is no row.
    """
    problems, tables = Problems(), {}
    for name, rows in sets.items():
        with problems.collect():
            if rows is not None:
                tables[name] = _table(name, rows)
    if "train" not in sets or sets["train"] is None:
        problems.add("train", "None", _EXPECTED)
    problems.raise_if_any()
    return TableSource(tables)


def _table(name: str, rows: Any) -> Table:
    problems = Problems()
    if hasattr(rows, "features") and hasattr(rows, "__len__"):  # a Dataset, which is no stream
        table = table_from_dataset(rows.with_format(None), name)
    else:
        if hasattr(rows, "notna"):  # of pandas, which has NaN for a missing value
            rows = rows.astype(object).where(rows.notna(), None).to_dict("records")
        if not isinstance(rows, Sequence) or isinstance(rows, str):
            problems.add(name, type_of(rows), _EXPECTED)
            rows = []
        with problems.rows(name) as bad_rows:
            for number, row in enumerate(rows, 1):
                if not isinstance(row, Mapping):
                    bad_rows.add(f"{name}:{number}", type_of(row), "a dict")
        problems.raise_if_any()
        columns = dict.fromkeys(str(column) for row in rows for column in row)
        cells = {column: [_text(row.get(column)) for row in rows] for column in columns}
        table = Table(name, cells, range(1, len(rows) + 1))
    if not len(table):
        problems.add(name, "no rows", "at least one row")
    problems.raise_if_any()
    return table


def _text(value: Any) -> str | None:
    return cell_text(value.item() if isinstance(value, np.generic) else value)
