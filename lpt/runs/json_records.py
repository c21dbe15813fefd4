"""JSON files that come from elsewhere, held to the fields of a dataclass before they are used."""

from __future__ import annotations

import dataclasses
import json
import math
import stat
import sys
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lpt.config.constraints import check_limits
from lpt.errors import Problems

_T = TypeVar("_T")
DESCRIPTION, RECORD, ROWS = 1 << 20, 1 << 26, 1 << 30
"""Bytes that a file may have: one that describes another, the record of a run or sweep, which grows
with its steps, and a list of the rows of data sets."""
_MAX_DEPTH = 64
_SHOWN = 60


def read_json(file: Path, at_most: int = DESCRIPTION) -> Any:
    """The content of a JSON file, whose texts can be written again and whose numbers are floats'.

    Not a number and infinity, which Python's JSON has, are not refused here.

    Args:
        file: The file.
        at_most: Bytes it may have.

    Raises:
        OSError: It cannot be read.
        ValueError: It is too large, or not JSON.
    """
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("no file")  # a pipe would be waited for
    if status.st_size > at_most:
        raise ValueError(f"{status.st_size:,} bytes, more than {at_most:,}")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    _check_values(content)
    return content


def _check_values(content: Any) -> None:
    """Refuse what is JSON, but breaks what it is used for."""
    level = [content]
    for _ in range(_MAX_DEPTH):
        for value in level:
            if isinstance(value, str):
                value.encode()  # half a surrogate pair cannot be written to any file
            elif isinstance(value, int) and abs(value) > sys.float_info.max:
                raise ValueError("a number of more than 308 digits")
        level = [part for value in level for part in _parts(value)]
    if level:
        raise ValueError("nested too deeply")


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    return value if isinstance(value, list) else ()


def is_number(value: Any) -> bool:
    """Whether this is a number that can be computed with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def to_record(kind: type[_T], content: Any, where: str, problems: Problems) -> _T | None:
    """A dataclass from what JSON holds of it; None if a key, a type or a value is wrong.

    Args:
        kind: The dataclass. Its fields are strings, numbers, lists and maps of these, further
            dataclasses, or unions; limits in their metadata hold (`lpt.config.constraints`).
        content: What JSON holds.
        where: Named in front of each key in messages.
        problems: Every fault is noted there.
    """
    before = len(problems.found)
    record = _build(kind, content, where, problems)
    if len(problems.found) == before:
        check_limits(record, where, problems)
    return record if len(problems.found) == before else None


def _build(kind: type[_T], content: Any, where: str, problems: Problems) -> _T | None:
    hints = get_type_hints(kind)
    if not isinstance(content, dict):
        problems.add(where, _shown(content), f"an object with {', '.join(hints)}")
        return None
    for name in content.keys() - hints.keys():
        problems.add(f"{where}{_shown(name)}", "unknown", ", ".join(hints))
    values: dict[str, Any] = {}
    for name, hint in hints.items():
        key = f"{where}{name}"
        if name not in content:
            problems.add(key, "missing", _name(hint))
        elif dataclasses.is_dataclass(hint):
            values[name] = _build(hint, content[name], f"{key}.", problems)  # type: ignore[arg-type]
        elif _fits(content[name], hint):
            values[name] = content[name]
        else:
            problems.add(key, _shown(content[name]), _name(hint))
    return kind(**values) if len(values) == len(hints) else None


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if origin is list:
        return isinstance(value, list) and all(_fits(one, inner[0]) for one in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(one, inner[1]) for one in value.values())
    if hint is float:
        return is_number(value)
    return type(value) is hint  # a bool is no number here


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
