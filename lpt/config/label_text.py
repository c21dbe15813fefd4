"""Labels and label words as text.

YAML reads `No` and `on` as booleans, and so does Hydra `true`; `1.0` is a number to both. In the
schema these lists hold values of any type, so that what is no text is refused, not converted.
"""

from __future__ import annotations

from typing import Any

from lpt.config.task_schema import TaskConfig
from lpt.errors import Problems

_QUOTE = (
    """quote it: ["no", "1.0"] in a YAML file, "KEY=['false','1.0']" on the command line; """
    "YAML reads yes, no, on, off, true and false as booleans"
)


def read_label_texts(task: TaskConfig, problems: Problems) -> None:
    """Turn the whole numbers among labels, label words and aliases into text, in place.

    Booleans, decimal numbers and null are problems; but the ends of a regression may be decimal
    numbers, and the spellings in `label_aliases`, which cannot be quoted on the command line, may
    be both. There a boolean stands for every case: `True`, `true`, `TRUE`.
    """
    for name in ("labels", "label_words", "skip_labels"):
        decimal = name == "labels" and task.task_type == "regression"
        values = getattr(task, name)
        setattr(task, name, [_text(value, f"task.{name}", problems, decimal) for value in values])
    aliases: dict[str, str] = {}
    for key, value in task.label_aliases.items():
        label = _text(value, f"task.label_aliases.{key}", problems)
        aliases |= dict.fromkeys(spellings(key), label)
    task.label_aliases = aliases


def spellings(key: Any) -> list[str]:
    """What a key of `label_aliases` stands for, as the data write it."""
    text = str(key)
    return [text, text.lower(), text.upper()] if isinstance(key, bool) else [text]


def _text(value: Any, key: str, problems: Problems, decimal: bool = False) -> str:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not (isinstance(value, str) or whole or (decimal and isinstance(value, float))):
        given = f"{'null' if value is None else value}, a {type(value).__name__}"
        problems.add(key, given, "text", _QUOTE.replace("KEY", key))
    return str(value)
