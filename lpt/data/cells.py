"""Cells of tables: text, from values of any type."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

from lpt.errors import type_of


class NoText(str):
    """The JSON text of a value that is no text: a list, an object, bytes, a date, NaN."""

    __slots__ = ("type_name",)
    type_name: str

    def __new__(cls, value: Any) -> NoText:
        """The JSON text of a value, with the name of its type."""
        cell = super().__new__(cls, json.dumps(value, default=str))
        cell.type_name = str(cell) if isinstance(value, float) else type_of(value)
        return cell


def cell_text(value: Any) -> str | None:
    """A value as text; None for none."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return json.dumps(value)
    return str(value) if isinstance(value, Decimal) else NoText(value)


def parse_record(line: str) -> dict[str, str | None]:
    """The cells of a JSON object by column; a `ValueError` says what else the line is."""
    try:
        record = json.loads(line, object_pairs_hook=_distinct)
    except json.JSONDecodeError as error:
        raise ValueError(f"invalid JSON ({error.msg} at column {error.colno})") from error
    if not isinstance(record, dict):
        raise ValueError(f"a JSON {type(record).__name__}")
    if "\\ud" in line.lower():  # an escaped lone surrogate is valid JSON, but no text
        json.dumps(record, ensure_ascii=False).encode()
    return {name: cell_text(value) for name, value in record.items()}


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(record := dict(pairs)) < len(pairs):
        raise ValueError("a name that occurs twice in an object")
    return record
