"""Few-shot samples are the rows that the published scripts draw, for all their seeds in one go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lpt.config.task_schema import DataConfig
from lpt.data.fewshot import PUBLISHED_SEEDS
from lpt.data.sources import FolderSource
from lpt.data.splits import make_splits
from tests.support.task_tables import changed, task

COLUMNS = ("a", "b", "label")
Lines = list[list[str]]
Drawn = dict[int, tuple[Lines, Lines]]


def per_class(classes: list[Lines], k: int, dev_k: int) -> tuple[Lines, Lines]:
    """LM-BFF: of each class k lines, and then dev_k lines."""
    return (
        [line for lines in classes for line in lines[:k]],
        [line for lines in classes for line in lines[k:][:dev_k]],
    )


def total(classes: list[Lines], k: int, dev_k: int) -> tuple[Lines, Lines]:
    """Late prompt tuning: rounded shares, and the rest from the last class."""

    def shares(sizes: list[int], count: int) -> list[int]:
        rounded = [round(count * size / sum(sizes)) for size in sizes[:-1]]
        return [*rounded, count - sum(rounded)]

    train = shares([len(lines) for lines in classes], k)
    left = [lines[n:] for lines, n in zip(classes, train, strict=True)]
    dev = shares([len(lines) for lines in left], dev_k)
    return (
        [line for lines, n in zip(classes, train, strict=True) for line in lines[:n]],
        [line for lines, n in zip(left, dev, strict=True) for line in lines[:n]],
    )


def run_script(file: Lines, header: bool, rule: Callable[..., tuple[Lines, Lines]]) -> Drawn:
    """What a script draws: it slices a header off, or else shuffles the list that it has read."""
    drawn = {}
    for seed in PUBLISHED_SEEDS:
        lines = file[1:] if header else file
        np.random.seed(seed)
        np.random.shuffle(lines)  # type: ignore[arg-type]
        classes: dict[str, Lines] = {}
        for line in lines:
            classes.setdefault(line[-1], []).append(line)
        drawn[seed] = rule([*classes.values()], 12, 9)
    return drawn


def file_of(header: bool, broken: dict[int, list[str]]) -> Lines:
    """A file of 90 lines, two thirds of them of label 0, into which broken lines are put."""
    lines = [[f"text {i}", f"other {i}", str(int(i % 3 == 0))] for i in range(90)]
    for place, line in broken.items():
        lines.insert(place, line)
    return [[*COLUMNS], *lines] if header else lines


BROKEN = {4: ["a question that"], 5: ["ends here", "1"], 40: ["two", "cells"], 92: ["cells"]}


@pytest.mark.parametrize("rule", [total, per_class])
@pytest.mark.parametrize(
    ("header", "broken"), [(True, {}), (False, {}), (True, BROKEN), (True, {7: ["x", "0"]})]
)
def test_published_rows(
    tmp_path: Path,
    rule: Callable[..., tuple[Lines, Lines]],
    header: bool,
    broken: dict[int, list[str]],
) -> None:
    np_state = np.random.get_state()
    file = file_of(header, broken)
    for name, lines in (("train", file), ("dev", file_of(header, {}))):
        (tmp_path / f"{name}.tsv").write_text("".join("\t".join(line) + "\n" for line in lines))
    source = FolderSource(tmp_path, {}, None if header else COLUMNS, skip_short_rows=bool(broken))
    used = changed(
        task("{a} <mask> {b}", labels=["0", "1"]),
        cumulative_sampling=[] if header else [rule.__name__],
    )
    for seed, drawn in run_script(file, header, rule).items():
        data = DataConfig(protocol="kshot", sampling=rule.__name__, k=12, dev_k=9, seed=seed)
        sets = make_splits(source, used, data).sets
        for name, lines in zip(("train", "dev"), drawn, strict=True):
            assert sets[name].columns["a"] == [line[0] for line in lines if len(line) == 3]
            assert sets[name].labels == [int(line[2]) for line in lines if len(line) == 3]
    np.random.set_state(np_state)


def test_exact_samples_leave_broken_lines_out_before(tmp_path: Path) -> None:
    for name, broken in (("whole", {}), ("broken", BROKEN)):
        (tmp_path / name).mkdir()
        for split in ("train", "dev"):
            lines = file_of(True, broken)
            text = "".join("\t".join(line) + "\n" for line in lines)
            (tmp_path / name / f"{split}.tsv").write_text(text)
    used = task("{a} <mask> {b}", labels=["0", "1"])
    data = DataConfig(protocol="kshot", sampling="stratified", k=12, dev_k=9)
    whole, skipped = (
        make_splits(FolderSource(tmp_path / name, {}, skip_short_rows=True), used, data)
        for name in ("whole", "broken")
    )
    assert whole.sets == skipped.sets | {"test": whole.sets["test"]}
