"""Fields of the schema whose values are limited: to choices, or to a range."""

from __future__ import annotations

import dataclasses
import operator
from typing import Any

from lpt.errors import Problems, did_you_mean

_COMPARISONS = {
    "ge": (">=", operator.ge),
    "gt": (">", operator.gt),
    "le": ("<=", operator.le),
    "lt": ("<", operator.lt),
}


def limited(default: Any, **limits: Any) -> Any:
    """A field whose value, unless null, is one of `choices` or within `ge`, `gt`, `le`, `lt`."""
    return dataclasses.field(default=default, metadata=limits)


def check_limits(node: Any, prefix: str, problems: Problems) -> None:
    """Check the fields of a configuration, at any depth, against their limits."""
    for field in dataclasses.fields(node):
        key, value = f"{prefix}{field.name}", getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            check_limits(value, f"{key}.", problems)
        elif value is not None and "choices" in field.metadata:
            choices = field.metadata["choices"]
            if value not in choices:
                problems.add(key, repr(value), ", ".join(choices), did_you_mean(value, choices))
        elif value is not None:
            limits = [(*_COMPARISONS[name], limit) for name, limit in field.metadata.items()]
            if not all(holds(value, limit) for _, holds, limit in limits):
                expected = " and ".join(f"{sign} {limit}" for sign, _, limit in limits)
                problems.add(key, repr(value), expected)
