"""Which rows train, select and test, by protocol."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from lpt.data.fewshot import DRAWS, Draw, hold_out
from lpt.data.sources import Source
from lpt.data.tasks import Examples, Task
from lpt.errors import Problems, fail

DEV_K = 1000


@dataclass(frozen=True)
class Splits:
    """The three sets of a run.

    Attributes:
        train: Training examples.
        dev: Examples that select the checkpoint.
        test: Examples scored once at the end; their labels may be unknown.
        origin: Where each set comes from, in words.
    """

    train: Examples
    dev: Examples
    test: Examples
    origin: dict[str, str]

    def items(self) -> list[tuple[str, Examples]]:
        """(name, examples) of each set."""
        return [("train", self.train), ("dev", self.dev), ("test", self.test)]

    def checksum(self) -> str:
        """SHA-256 over row ids, text and labels of all sets: the same for the same data only."""
        digest = hashlib.sha256()
        for name, part in self.items():
            digest.update(json.dumps([name, part.index, part.labels]).encode())
            digest.update(json.dumps(sorted(part.columns.items())).encode())
        return digest.hexdigest()


def make_splits(
    source: Source,
    task: Task,
    *,
    protocol: str,
    k: int | None,
    dev_k: int | None,
    draw: str,
    seed: int,
    limits: tuple[int | None, int | None, int | None] = (None, None, None),
) -> Splits:
    """Read a task's rows and divide them.

    `full` takes the official sets; where there is no dev set, dev_k rows of train become one.
    `kshot` draws train and dev from the official training set and tests on the official dev set,
    or on the test set where the task has no dev set.

    Raises:
        ConfigError: A split is missing or malformed, or k does not fit the data; all at once.
    """
    has_dev = source.has("dev")
    names: tuple[str, ...] = ("train", "dev" if has_dev else "test")
    if protocol == "full" and has_dev:
        names = ("train", "dev", "test")
    problems = Problems()
    read: dict[str, Examples] = {}
    for name in names:
        with problems.collect():
            read[name] = task.examples(source.read(name), need_labels=name != "test")
    problems.raise_if_any()

    train, origin = read["train"], {name: f"official {name} set" for name in names}
    if protocol == "kshot":
        assert k is not None
        if dev_k is None:
            dev_k = k if draw == "per_class" else DEV_K
        drawn = DRAWS[draw](train.labels, k, dev_k, seed)
        if not drawn.dev:
            raise fail(
                "data.k",
                f"{k} ({draw}) takes all {len(train)} rows of train",
                "fewer: dev is drawn from the rest",
            )
        test_name = names[1]
        origin = {
            "train": f"drawn from train ({draw}, k={k}, seed {seed})",
            "dev": f"drawn from the rest of train ({draw}, dev_k={dev_k}, seed {seed})",
            "test": f"official {test_name} set",
        }
        parts = (*_drawn(train, drawn), read[test_name])
    elif has_dev:
        parts = (train, read["dev"], read["test"])
    else:
        dev_k = DEV_K if dev_k is None else dev_k
        drawn = hold_out(train.labels, dev_k, seed)
        origin["dev"] = f"held out of train (dev_k={dev_k}, seed {seed}): no official dev set"
        parts = (*_drawn(train, drawn), read["test"])
    limited = [part.limited(limit, seed) for part, limit in zip(parts, limits, strict=True)]
    return Splits(limited[0], limited[1], limited[2], origin)


def _drawn(train: Examples, drawn: Draw) -> tuple[Examples, Examples]:
    return train.take(drawn.train), train.take(drawn.dev)
