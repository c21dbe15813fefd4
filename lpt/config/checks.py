"""A collector of problems that knows the configuration, and the limits of its schema."""

from __future__ import annotations

import dataclasses
import operator
from typing import Any

from omegaconf import MISSING

from lpt.config.resolve import flatten
from lpt.config.schema import Config
from lpt.errors import Problems, did_you_mean

_COMPARISONS = {
    "ge": (">=", operator.ge),
    "gt": (">", operator.gt),
    "le": ("<=", operator.le),
    "lt": ("<", operator.lt),
}


class Checks(Problems):
    """Problems of a configuration, whose values are looked up."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.values = flatten(dataclasses.asdict(config))

    def text(self, key: str) -> str:
        """The value of a key, as on the command line."""
        value = self.values[key]
        return "null" if value is None else str(value)

    def require(self, fulfilled: bool, key: str, expected: str, hint: str = "") -> None:
        """Add a problem with the value of `key` unless a condition is fulfilled."""
        if not fulfilled:
            self.add(key, self.text(key), expected, hint)


def check_limits(node: Any, prefix: str, problems: Problems) -> None:
    """Check the fields of a configuration, at any depth, against their limits in the schema."""
    for field in dataclasses.fields(node):
        key, value = f"{prefix}{field.name}", getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            check_limits(value, f"{key}.", problems)
        elif value in (None, MISSING):
            pass
        elif "choices" in field.metadata:
            choices = field.metadata["choices"]
            if value not in choices:
                problems.add(key, repr(value), ", ".join(choices), did_you_mean(value, choices))
        else:
            limits = [(*_COMPARISONS[name], limit) for name, limit in field.metadata.items()]
            if not all(holds(value, limit) for _, holds, limit in limits):
                expected = " and ".join(f"{sign} {limit}" for sign, _, limit in limits)
                problems.add(key, repr(value), expected)
