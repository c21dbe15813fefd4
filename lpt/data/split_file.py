"""The file that says which rows a run trained on, selected by and was tested on: split.json."""

from __future__ import annotations

import hashlib
import json
import logging
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lpt.data.splits import Splits
from lpt.data.tasks import Examples, Task
from lpt.data.templates import Template
from lpt.errors import Problems, config_error
from lpt.runs.json_records import ROWS, read_json

logger = logging.getLogger(__name__)
SPLIT = "split.json"
_FORMAT = 1
_ESSENTIAL = ("train", "dev", "test")
_SHOWN = 3


def digest(examples: Examples, template: Template, labels: Sequence[str]) -> str:
    """SHA-256 of the rendered examples, in order, with their labels where the answer stands."""
    sha = hashlib.sha256()
    for row, values in enumerate(zip(*examples.columns.values(), strict=True)):
        label = examples.labels[row]
        answer = labels[label] if isinstance(label, int) and label >= 0 else str(label)
        text = template.render(dict(zip(examples.columns, values, strict=True)), answer)
        sha.update(f"{json.dumps(text)}\n".encode())
    return sha.hexdigest()


def describe(splits: Splits, task: Task) -> dict[str, Any]:
    """What split.json holds: row ids of each set and the SHA-256 of its rendered examples."""
    sets = {
        name: {
            "origin": splits.origin[name],
            "sha256": digest(part, task.template, task.labels),
            "rows": part.row_ids,
        }
        for name, part in splits.items()
    }
    essence = [(name, sets[name]["sha256"], sets[name]["rows"]) for name in _ESSENTIAL]
    return {
        "format": _FORMAT,
        "task": task.name,
        "kind": task.template.kind,
        "template": task.template.text,
        "sha256": hashlib.sha256(json.dumps(essence).encode()).hexdigest(),
        "sets": sets,
    }


def read_description(file: Path) -> dict[str, Any]:
    """A split.json.

    Raises:
        ConfigError: It is none.
    """
    if file.is_dir():  # of a run
        file /= SPLIT
    try:
        content = read_json(file, ROWS)
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']}")
        if content["kind"] not in ("masked", "causal"):
            raise ValueError(f"kind {content['kind']!r}")
        Template.parse(content["template"], content["kind"])
        _ = content["task"]
        for part in content["sets"].values():
            _ = part["sha256"], [operator.index(row) for row in part["rows"]]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        given = f"{file} is no split file ({type(error).__name__}: {error})"
        hint = "runs leave one, and python -m lpt.data kshot writes them"
        raise config_error("data.verify", given, f"a {SPLIT}, format {_FORMAT}", hint) from error
    return dict(content)


def verify(splits: Splits, task: Task, file: Path) -> None:
    """Check that the sets are those that the file describes; further sets may be missing in either.

    The examples are rendered with the template of the file, so that runs of other models compare.

    Raises:
        ConfigError: A set has other rows or other texts; every such set is named.
    """
    expected = read_description(file)
    template = Template.parse(expected["template"], expected["kind"])
    problems = Problems()
    here = dict(splits.items())
    for name in dict.fromkeys((*_ESSENTIAL, *(n for n in expected["sets"] if n in here))):
        there = expected["sets"].get(name)
        if there is None:
            problems.add("data.verify", f"{file} has no {name} set", "train, dev and test")
        elif there["rows"] != here[name].row_ids:
            problems.add(
                "data.verify",
                f"{name}: {_difference(there['rows'], here[name].row_ids)}",
                f"the rows of {file} ({there.get('origin')!r})",
                "take data.protocol, k, dev_k, sampling, seed, test and limit_* of that run",
            )
        elif there["sha256"] != digest(here[name], template, task.labels):
            problems.add(
                "data.verify",
                f"{name}: the same rows, but other texts or labels",
                f"the examples of {file}",
                "take the version of the data that it was written for",
            )
    problems.raise_if_any()
    logger.info("The sets are those of %s.", file)


def _difference(there: Sequence[int], here: Sequence[int]) -> str:
    missing, more = sorted(set(there) - set(here)), sorted(set(here) - set(there))
    if not missing and not more:
        return "the rows in another order"
    parts = [f"{len(here)} rows instead of {len(there)}"] if len(here) != len(there) else []
    for what, rows in (("lacks", missing), ("has in their place", more)):
        if rows:
            dots = ", ..." if len(rows) > _SHOWN else ""
            parts.append(f"{what} {', '.join(map(str, rows[:_SHOWN]))}{dots}")
    return "; ".join(parts)
