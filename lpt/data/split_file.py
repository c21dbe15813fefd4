"""split.json: which rows a run trained on, was selected by and was tested on."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lpt.config.task_schema import UNKNOWN, is_labeled
from lpt.data.templates import Kind, Template
from lpt.errors import Problems
from lpt.files import GB, JsonModel, read_json_model

if TYPE_CHECKING:
    from lpt.data.examples import Examples
    from lpt.data.splits import Splits
    from lpt.data.tasks import Task

logger = logging.getLogger(__name__)
SPLIT_FILE = "split.json"
_MAX_BYTES = GB
_MAIN_SETS = ("train", "dev", "test")


class SetDescription(JsonModel):
    """One set: where it comes from, its row ids, and the SHA-256 of its rendered examples."""

    origin: str
    sha256: str
    rows: list[int]


class SplitDescription(JsonModel):
    """The content of split.json; `sha256` covers train, dev and test."""

    format: Literal[1] = 1
    task: str
    kind: Kind
    template: str
    sha256: str
    sets: dict[str, SetDescription]

    def to_json(self) -> str:
        """The text of the file."""
        return json.dumps(self.model_dump()) + "\n"


def examples_digest(examples: Examples, template: Template, labels: Sequence[str]) -> str:
    """SHA-256 of the rendered examples, in order, with their labels in place of the answer."""
    sha = hashlib.sha256()
    for row, values in enumerate(zip(*examples.columns.values(), strict=True)):
        label = examples.labels[row]
        if not is_labeled(label):
            answer = str(UNKNOWN)
        else:
            answer = labels[label] if isinstance(label, int) else str(label)
        text = template.render(dict(zip(examples.columns, values, strict=True)), answer)
        sha.update(f"{json.dumps(text)}\n".encode())
    return sha.hexdigest()


def describe_splits(splits: Splits, task: Task) -> SplitDescription:
    """The content of split.json."""
    sets = {
        name: SetDescription(
            origin=splits.origin[name],
            sha256=examples_digest(examples, task.template, task.config.labels),
            rows=examples.row_ids,
        )
        for name, examples in splits.sets.items()
    }
    main = [(name, sets[name].sha256, sets[name].rows) for name in _MAIN_SETS]
    return SplitDescription(
        task=task.config.name,
        kind=task.template.kind,
        template=task.template.text,
        sha256=hashlib.sha256(json.dumps(main).encode()).hexdigest(),
        sets=sets,
    )


def read_split_file(file: Path) -> SplitDescription:
    """Read a split.json, or that of a run's folder.

    Raises:
        ConfigError: It is not a split file.
    """
    return read_json_model(
        file / SPLIT_FILE if file.is_dir() else file, SplitDescription, max_bytes=_MAX_BYTES
    )


def verify_splits(splits: Splits, task: Task, file: Path) -> None:
    """Check that the sets are those of a split file; either may lack extra evaluation sets.

    The examples are rendered with the template of the file, so that it also fits other models.

    Raises:
        ConfigError: A set has other rows or other texts; every such set is named.
    """
    description = read_split_file(file)
    template = Template.parse(description.template, description.kind)
    problems = Problems()
    for name, examples in splits.sets.items():
        expected = description.sets.get(name)
        if expected is None:
            if name in _MAIN_SETS:
                problems.add("data.verify", f"{file} has no {name} set", "train, dev and test")
        elif expected.rows != examples.row_ids:
            problems.add(
                "data.verify",
                f"{name}: {_difference(expected.rows, examples.row_ids)}",
                f"the rows of {file} ({expected.origin!r})",
                "use data.protocol, k, dev_k, sampling, seed, test and limit_* of that run",
            )
        elif expected.sha256 != examples_digest(examples, template, task.config.labels):
            problems.add(
                "data.verify",
                f"{name}: the same rows, but different texts or labels",
                f"the examples of {file}",
                "use the version of the data that it was written for",
            )
    problems.raise_if_any()
    logger.info("The sets match %s.", file)


def _difference(expected: Sequence[int], actual: Sequence[int]) -> str:
    shared = len({*expected} & {*actual})
    if shared == len(expected) == len(actual):
        return "the expected rows in a different order"
    return f"{len(actual)} rows, {shared} of them among the {len(expected)} expected"
