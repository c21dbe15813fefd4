"""Fields of the schema whose values are limited: to choices, or to a range."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from lpt.errors import Problems, did_you_mean


def limits(
    *,
    choices: Sequence[str] | None = None,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
) -> dict[str, Any]:
    """Metadata of a field whose value must be one of `choices` or lie in a range."""
    given = {"choices": choices, "ge": ge, "gt": gt, "le": le, "lt": lt}
    return {name: limit for name, limit in given.items() if limit is not None}


def limited(default: Any, **given: Any) -> Any:
    """A field with a default whose value is limited (unless it is null); see `limits`."""
    return dataclasses.field(default=default, metadata=limits(**given))


def check_limits(node: Any, prefix: str, problems: Problems) -> None:
    """Check each field against the range or choices in its metadata; null passes."""
    for field in dataclasses.fields(node):
        key, value = f"{prefix}{field.name}", getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            check_limits(value, f"{key}.", problems)
        elif value is not None and field.metadata:
            _check_value(key, value, dict(field.metadata), problems)


def _check_value(key: str, value: Any, limits: dict[str, Any], problems: Problems) -> None:
    choices = limits.pop("choices", None)
    if choices is not None and value not in choices:
        problems.add(key, repr(value), ", ".join(choices), did_you_mean(str(value), choices))
    signs = {"ge": (">=", value.__ge__), "gt": (">", value.__gt__)}
    signs |= {"le": ("<=", value.__le__), "lt": ("<", value.__lt__)}
    if not all(signs[name][1](limit) for name, limit in limits.items()):
        expected = " and ".join(f"{signs[name][0]} {limit}" for name, limit in limits.items())
        problems.add(key, repr(value), expected)
