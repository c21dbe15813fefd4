"""Labels and label words as text.

YAML reads `No` and `on` as booleans, and so does Hydra `true`; `1.0` is a number to both. In the
schema these lists hold values of any type, so that what is no text is refused, not converted.
Whole numbers are taken as text.
"""

from __future__ import annotations

from typing import Any

from lpt.config.task_schema import TaskConfig
from lpt.errors import Problems

_QUOTE = (
    """quote it: ["no", "1.0"] in a YAML file, "task.labels=['no','1.0']" on the command line; """
    "YAML reads yes, no, on, off, true and false as booleans"
)
_LISTS = ("labels", "label_words", "skip_labels")
_BOOLEANS = {True: ("true", "yes", "on"), False: ("false", "no", "off")}


def read_label_texts(task: TaskConfig, problems: Problems) -> None:
    """Turn the whole numbers among labels, label words and aliases into text, in place.

    Booleans, decimal numbers and null are problems; but the ends of a regression may be decimal
    numbers, and the spellings in `label_aliases`, which cannot be quoted on the command line, may
    be both. There a boolean stands for all that YAML reads so: `True`, `true`, `yes`, `ON`.
    """
    for name in _LISTS:
        decimal = name == "labels" and task.task_type == "regression"
        values = getattr(task, name)
        setattr(task, name, [_text(value, f"task.{name}", problems, decimal) for value in values])
    if task.positive_label is not None:
        task.positive_label = _text(task.positive_label, "task.positive_label", problems)
    aliases: dict[str, str] = {}
    # A boolean's spellings first: those that are listed themselves have priority.
    for key, value in sorted(task.label_aliases.items(), key=lambda x: not isinstance(x[0], bool)):
        label = _text(value, f"task.label_aliases.{key}", problems)
        aliases |= dict.fromkeys(spellings(key), label)
    task.label_aliases = aliases


def spellings(key: Any) -> list[str]:
    """What a key of `label_aliases` stands for, as the data write it."""
    if not isinstance(key, bool):
        return [str(key)]
    return [case for word in _BOOLEANS[key] for case in (word, word.capitalize(), word.upper())]


def _text(value: Any, key: str, problems: Problems, decimal: bool = False) -> str:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not (isinstance(value, str) or whole or (decimal and isinstance(value, float))):
        given = "null" if value is None else f"{value}, a {type(value).__name__}"
        problems.add(key, given, "text", _QUOTE)
    return str(value)
