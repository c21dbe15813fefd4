"""Which rows train, select and test, by protocol."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from lpt.data.fewshot import SAMPLERS, FewShotSplit, hold_out
from lpt.data.sources import Source
from lpt.data.tasks import Examples, Task
from lpt.errors import ConfigError, HubError, Problems, config_error

logger = logging.getLogger(__name__)
DEV_K = 1000
_HELD_OUT = 5  # of train, at most one part in so many is held out as dev
OFFICIAL = "official {} set"  # the origin of a set


@dataclass(frozen=True)
class Splits:
    """The sets of a run.

    Attributes:
        train: Training examples.
        dev: Examples that select the checkpoint.
        test: Examples scored once at the end; their labels may be unknown.
        origin: Where each set comes from, in words.
        extra: Further sets that are answered with the same checkpoint.
    """

    train: Examples
    dev: Examples
    test: Examples
    origin: dict[str, str]
    extra: Mapping[str, Examples] = field(default_factory=dict)

    def items(self) -> list[tuple[str, Examples]]:
        """(name, examples) of each set."""
        return [("train", self.train), ("dev", self.dev), ("test", self.test), *self.extra.items()]

    @property
    def answered(self) -> list[str]:
        """Names of the sets that are answered at the end, after dev."""
        return ["test", *self.extra]


def make_splits(
    source: Source,
    task: Task,
    *,
    protocol: str,
    k: int | None,
    dev_k: int | None,
    sampling: str,
    seed: int,
    test: str = "official",
    fixed_test: bool = False,
    limits: tuple[int | None, int | None, int | None] = (None, None, None),
    extra: Sequence[str] = (),
) -> Splits:
    """Read a task's rows and divide them.

    `full` takes the official sets; where there is no dev set, or where that is to be the test set
    (`test="dev"`), dev_k rows of train become the dev set. `kshot` draws train and dev from the
    official training set and tests on the official dev set, or on the test set where the task has
    no dev set. With `fixed_test`, the official test set is tested in either case. What forms a
    group stays together and counts as one. Of the further sets those are taken that the source
    has; they are limited as test is.

    Raises:
        ConfigError: A split is missing or malformed, or k does not fit the data; all at once.
    """
    has_dev = source.has("dev")
    official = protocol == "full" and has_dev and (test == "official" or fixed_test)
    test_set = "dev" if has_dev and not official and not fixed_test else "test"
    names = ["train", "dev", "test"] if official else ["train", test_set]
    problems = Problems()
    if official and not fixed_test and not source.has("test"):
        names.remove("test")
        problems.add(
            "data.test",
            "official, and there is no test file",
            "official, dev",
            "data.test=dev tests on the dev set and holds dev_k rows of train out to select; "
            "data=kshot tests on it, too",
        )
    read = _read(source, task, names, extra, problems)
    train = read["train"]
    if official:
        parts = (train, read["dev"], read["test"])
        origin = {name: OFFICIAL.format(name) for name in names}
    else:
        if protocol == "kshot":
            drawn, origin = _draw(task, train, k, dev_k, sampling, seed)
        else:
            dev_k = min(DEV_K, len(train.units()) // _HELD_OUT) if dev_k is None else dev_k
            drawn = hold_out(strata(task, train), dev_k, seed)
            origin = {
                "train": f"{OFFICIAL.format('train')} without what is held out",
                "dev": f"held out of train (dev_k={dev_k}, seed {seed})",
            }
        origin["test"] = OFFICIAL.format(test_set)
        units = train.units()
        rows = [[row for unit in part for row in units[unit]] for part in drawn]
        parts = (train.take(rows[0]), train.take(rows[1]), read[test_set])
    whole = dict(zip(("train", "dev", "test"), parts, strict=True))
    whole |= {name: read[name] for name in extra if name in read}
    origin |= {name: OFFICIAL.format(name) for name in whole if name not in origin}
    limit_of = dict(zip(whole, limits, strict=False))
    limited = {n: part.limited(limit_of.get(n, limits[2]), seed) for n, part in whole.items()}
    for name, part in limited.items():
        if len(part) < len(whole[name]):
            origin[name] += f", {len(part)} of {len(whole[name])} drawn with seed {seed}"
    first = [limited.pop(name) for name in ("train", "dev", "test")]
    return Splits(first[0], first[1], first[2], origin, limited)


def _read(
    source: Source, task: Task, names: Sequence[str], extra: Sequence[str], problems: Problems
) -> dict[str, Examples]:
    """The named sets, and those of the further ones that there are; raises with all problems."""
    read: dict[str, Examples] = {}
    for name in (*names, *extra):
        if name in extra and not source.has(name):
            continue
        try:
            read[name] = task.examples(source.read(name), need_labels=name in ("train", "dev"))
        except HubError as error:
            if name not in extra:
                problems.take(error)
            else:
                given = error.problems[0].given
                logger.warning("The further set %s is left out: %s", name, given)
        except ConfigError as error:
            problems.take(error)
    problems.raise_if_any()
    return read


def _draw(
    task: Task, train: Examples, k: int | None, dev_k: int | None, sampling: str, seed: int
) -> tuple[FewShotSplit, dict[str, str]]:
    """Units of a k-shot train and dev set, and where they come from."""
    assert k is not None
    if dev_k is None:
        dev_k = k if sampling == "per_class" else DEV_K
    classes = strata(task, train)
    drawn = SAMPLERS[sampling](classes, k, dev_k, seed)
    if not drawn.dev:
        raise config_error(
            "data.k",
            f"{k} ({sampling}) takes all {len(classes)} examples of train",
            "fewer: dev is drawn from the rest",
        )
    if sampling == "per_class":
        got = Counter(classes[unit] for unit in drawn.dev)
        short = [
            f"{got[c]} {task.labels[c] if isinstance(c, int) and task.task_type == 'label' else c}"
            for c in dict.fromkeys(classes)
            if got[c] < dev_k
        ]
        if short:
            text = "The dev set of %s has only %s instead of %d: train has no more."
            logger.warning(text, task.name, ", ".join(short), dev_k)
    return drawn, {
        "train": f"drawn from train ({sampling}, k={k}, seed {seed})",
        "dev": f"drawn from the rest of train ({sampling}, dev_k={dev_k}, seed {seed})",
    }


def strata(task: Task, examples: Examples) -> list[Hashable]:
    """The class of each unit that a draw keeps in proportion.

    The label; for a number, the half of its range (as LM-BFF draws STS-B); for choices of one
    size, the place of the right candidate. Other groups are all alike.
    """
    units, labels = examples.units(), examples.labels
    if task.value_range is not None:
        middle = sum(task.value_range) / 2
        return [labels[unit[0]] >= middle for unit in units]
    if task.task_type == "multiple_choice" and len({len(unit) for unit in units}) == 1:
        return [tuple(labels[row] for row in unit) for unit in units]
    if any(len(unit) > 1 for unit in units):
        return [0] * len(units)
    return [labels[unit[0]] for unit in units]
