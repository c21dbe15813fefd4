"""The sets of a run: which rows train, select and test under each protocol."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lpt.config.schema import Config
from lpt.config.task_schema import DataConfig
from lpt.data.examples import Examples, build_examples
from lpt.data.fewshot import PUBLISHED, SAMPLERS, NoLabel, hold_out
from lpt.data.sources import Source, TableSource, build_source
from lpt.data.split_file import verify_splits
from lpt.data.tasks import Task, extra_eval_sets
from lpt.errors import ConfigError, HubError, Problems, config_error

logger = logging.getLogger(__name__)
OFFICIAL = "official {} set"  # the origin of a set
SAMPLED = " sampled with seed "  # in that of a set which data.limit_* made smaller
_DEFAULT_DEV_K = 1000
_MAX_HELD_OUT_SHARE = 5  # by default, at most one fifth of train is held out as dev
_MAX_TEST, _TEST_SEED = 1000, 0  # of a test set that is held out of train


@dataclass(frozen=True)
class Splits:
    """The sets of a run.

    Attributes:
        sets: `train`; `dev`, which selects the checkpoint; `test` and any extra evaluation sets,
            which are scored once at the end and may be unlabeled.
        origin: Where each set comes from, in words.
        dev_k: Size of the dev set that was sampled from train, counted as `data.dev_k`; None: dev
            is official.
        warnings: What makes scores on the sets doubtful, in words.
    """

    sets: Mapping[str, Examples]
    origin: dict[str, str]
    dev_k: int | None = None
    warnings: Sequence[str] = ()

    @property
    def test_sets(self) -> list[str]:
        """Names of the sets that are predicted at the end, after dev."""
        return [name for name in self.sets if name not in ("train", "dev")]


def read_splits(config: Config, task: Task, source: Source | None = None) -> Splits:
    """The sets of the source or the configured one, verified against `data.verify` if that is set.

    Raises:
        ConfigError: Something about the data is wrong.
    """
    source = source or build_source(config)
    splits = make_splits(source, task, config.data, list(extra_eval_sets(config)))
    if config.data.verify is not None:
        verify_splits(splits, task, Path(config.data.verify))
    return splits


def make_splits(source: Source, task: Task, data: DataConfig, extra: Sequence[str] = ()) -> Splits:
    """Read a task's rows and split them by `data.protocol`.

    `full` uses the official sets; without a dev set, or with `data.test=dev`, rows of train are
    held out as dev. `kshot` samples train and dev from the official training set. Both test on the
    official dev set then, or on the test set of a task without a dev set; with `fixed_test`, every
    protocol tests on the official test set. Of a single table, a part is held out as test first.
    Groups stay together and count as one. Of the `extra` evaluation sets, those that the source
    lacks are left out.

    Raises:
        ConfigError: A set is missing or malformed, or k does not fit the data; all at once.
    """
    has_dev, fixed_test = source.has("dev"), task.config.fixed_test
    official = data.protocol == "full" and has_dev and (data.test == "official" or fixed_test)
    test_set = "dev" if has_dev and not official and not fixed_test else "test"
    alone = isinstance(source, TableSource) and [*source.tables] == ["train"]
    names = ["train", "dev", "test"] if official else ["train"] if alone else ["train", test_set]
    problems = Problems()
    if official and not fixed_test and not source.has("test"):
        names.remove("test")
        problems.add(
            "data.test",
            "official, and there is no test file",
            "official, dev",
            "data.test=dev tests on the dev set and holds out dev_k rows of train for selection; "
            "data=kshot also tests on the dev set",
        )
    read = _read_sets(source, task, names, extra, problems)
    origin = {name: OFFICIAL.format(name) for name in read} | {"test": OFFICIAL.format(test_set)}
    if alone:
        read["train"], read["test"] = _hold_out_test(task, read["train"], origin)
    train, dev, dev_k = read["train"], read.get("dev"), None
    warnings: list[str] = []
    if not official:
        dev_k = _dev_k(data, len(train.groups()))
        train, dev = _sample(task, train, data, dev_k, origin, warnings)
    assert dev is not None
    sets = {"train": train, "dev": dev, "test": read[test_set]}
    sets |= {name: read[name] for name in extra if name in read}
    limits = {"train": data.limit_train, "dev": data.limit_dev}
    for name, examples in sets.items():
        sets[name] = examples.subsample(limits.get(name, data.limit_test), data.seed)
        if (count := len(sets[name])) < len(examples):
            origin[name] += f", {count} of {len(examples)}{SAMPLED}{data.seed}"
    warnings += doubts(task, sets)
    for warning in warnings:
        logger.warning(warning)
    return Splits(sets, origin, dev_k, warnings)


def _hold_out_test(
    task: Task, train: Examples, origin: dict[str, str]
) -> tuple[Examples, Examples]:
    """Train without a stratified part of it, and that part, the same for every `data.seed`."""
    groups = train.groups()
    count = min(_MAX_TEST, len(groups) // _MAX_HELD_OUT_SHARE)
    if not count:
        given = f"no test set, and too few rows of train ({len(groups)}) to hold one out"
        raise config_error("data.path", given, "more rows, or a folder with a test file")
    kept, held_out = (sorted(part) for part in hold_out(strata(task, train), count, _TEST_SEED))
    origin["test"] = f"held out of train ({count} of {len(groups)}, the same for every data.seed)"
    return train.select(_rows(groups, kept)), train.select(_rows(groups, held_out))


def _rows(groups: Sequence[Sequence[int]], numbers: Sequence[int]) -> list[int]:
    return [row for number in numbers for row in groups[number]]


def _dev_k(data: DataConfig, train_groups: int) -> int:
    """`data.dev_k` with its default filled in."""
    if data.dev_k is not None:
        return data.dev_k
    if data.protocol == "kshot":
        return data.k if data.sampling == "per_class" and data.k is not None else _DEFAULT_DEV_K
    return min(_DEFAULT_DEV_K, train_groups // _MAX_HELD_OUT_SHARE)


def _sample(
    task: Task,
    train: Examples,
    data: DataConfig,
    dev_k: int,
    origin: dict[str, str],
    warnings: list[str],
) -> tuple[Examples, Examples]:
    """Few-shot training and dev sets, or train without a stratified part of it, and that part."""
    classes, groups, seed = strata(task, train), train.groups(), f"seed {data.seed}"
    if data.protocol == "kshot":
        assert data.k is not None
        published = data.seed_order == "published"
        cumulative = published and data.sampling in task.config.cumulative_sampling
        if data.sampling in PUBLISHED:
            _insert_short_rows(task, train, classes, groups)
        sampler = SAMPLERS[data.sampling]
        sample = sampler(classes, data.k, dev_k, data.seed, cumulative=cumulative)
        if not sample.dev:
            raise config_error(
                "data.k",
                f"{data.k} ({data.sampling}) uses all {len(classes)} examples of train",
                "fewer: dev is sampled from the rest",
            )
        labels = {label for label in classes if not isinstance(label, NoLabel)}
        each = len(labels) if data.sampling == "per_class" else 1
        drawn = {}
        for name, key, wanted in (("train", "k", data.k), ("dev", "dev_k", dev_k)):
            count = sum(bool(groups[number]) for number in getattr(sample, name))
            drawn[name] = f"{data.sampling}, {key}={wanted}, {seed}"
            if count != wanted * each:
                drawn[name] += f": {count} of {wanted * each}"
                text = f"{key}={wanted} ({data.sampling}) gave {count} {name} examples"
                warnings.append(f"data.{text} instead of {wanted * each}.")
        origin["train"] = f"sampled from train ({drawn['train']})"
        origin["dev"] = f"sampled from the rest of train ({drawn['dev']})"
    elif not dev_k:
        given = f"no dev set, and too few rows of train ({len(classes)}) to hold one out"
        raise config_error("data.dev_k", given, "a dev file, or data.dev_k=N", "data.dev_k=1")
    else:
        sample = hold_out(classes, dev_k, data.seed)
        origin["train"] += " without held-out rows"
        origin["dev"] = f"held out of train (dev_k={dev_k}, {seed})"
    return train.select(_rows(groups, sample.train)), train.select(_rows(groups, sample.dev))


def _insert_short_rows(
    task: Task, train: Examples, classes: list[Hashable], groups: list[list[int]]
) -> None:
    """Insert the skipped rows of the file at their places, as groups without an example.

    Their class is their last cell, as in the published scripts.
    """
    indices = {label: index for index, label in enumerate(task.config.labels)}
    for place, cell in train.short_rows.items():
        classes.insert(place, indices.get(cell, NoLabel(cell)))
        groups.insert(place, [])


def doubts(task: Task, sets: Mapping[str, Examples]) -> list[str]:
    """What makes scores on these sets doubtful: labels without examples, shared texts."""
    train, found = sets["train"], []
    for name, kind in {"train": "training", "dev": "dev"}.items():
        seen = set(sets[name].labels)
        absent = [repr(label) for i, label in enumerate(task.config.labels) if i not in seen]
        if absent and task.config.task_type == "classification":
            found.append(f"No {kind} example has the label {' or '.join(absent)}.")
    if len(set(train.labels)) == 1:
        found.append(f"All {len(train)} training examples have the same label.")
    for name, examples in sets.items():
        if name != "train":
            texts = list(_stripped_texts(examples))
            shared = set(texts).intersection(_stripped_texts(train))
            if count := sum(text in shared for text in texts):
                found.append(f"{count} of {len(texts)} {name} texts are also in train.")
    return found


def _stripped_texts(examples: Examples) -> Iterator[tuple[str, ...]]:
    """The texts of each example as templates insert them."""
    columns = (map(str.strip, column) for column in examples.columns.values())
    return zip(*columns, strict=True)


def strata(task: Task, examples: Examples) -> list[Hashable]:
    """The class of each group, by which sampling is stratified.

    It is the label; for regression, the half of the range (as LM-BFF samples STS-B); for multiple
    choice between equally many candidates, the position of the right one. Other groups are all of
    one class.
    """
    groups, labels = examples.groups(), examples.labels
    if task.value_range is not None:
        middle = sum(task.value_range) / 2
        return [labels[group[0]] >= middle for group in groups]
    if task.config.task_type == "multiple_choice" and len({len(group) for group in groups}) == 1:
        return [tuple(labels[i] for i in group) for group in groups]
    if any(len(group) > 1 for group in groups):
        return [0] * len(groups)
    return [labels[group[0]] for group in groups]


def _read_sets(
    source: Source, task: Task, names: Sequence[str], extra: Sequence[str], problems: Problems
) -> dict[str, Examples]:
    """The named sets and the available extra sets; raises all problems together."""
    sets: dict[str, Examples] = {}
    for name in (*names, *(name for name in extra if source.has(name))):
        try:
            need_labels = name in ("train", "dev")
            sets[name] = build_examples(task, source.read(name), need_labels=need_labels)
        except HubError as error:
            if name not in extra:
                problems.extend(error)
            else:
                reason = error.problems[0].given
                logger.warning("Skipping the extra evaluation set %s: %s", name, reason)
        except ConfigError as error:
            problems.extend(error)
    problems.raise_if_any()
    return sets
