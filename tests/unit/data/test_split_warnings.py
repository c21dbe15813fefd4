"""Sets whose scores are doubtful are warned of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.split_sets import NUMBER, TASK, contents, folder, set_cell, split
from tests.support.task_tables import changed

KSHOT: dict[str, Any] = {"protocol": "kshot", "k": 8, "dev_k": 9, "seed": 42}


def test_small_classes_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    split(folder(tmp_path), **KSHOT | {"sampling": "per_class", "dev_k": 20})
    assert "data.dev_k=20 (per_class) gave 32 dev examples instead of 40" in caplog.text


def labeled_rows(split: str, labels: str) -> list[tuple[str, ...]]:
    return [("a", "b", "label"), *((f"{split} {i}", "b", x) for i, x in enumerate(labels))]


ONE_CLASS = ["No training example has the label '1'", "No dev example has the label '1'"]


@pytest.mark.parametrize(
    ("train", "settings", "warnings"),
    [
        ("0" * 190 + "1" * 10, {"dev_k": 20}, ["No training example has the label '1'", "All 8"]),
        ("0" * 190 + "1" * 10, {"sampling": "stratified"}, []),
        ("0" * 20, {"k": 4}, [*ONE_CLASS, "All 4 training examples"]),
        ("0" * 20, {"k": 4, "sampling": "per_class"}, [*ONE_CLASS, "All 4 training"]),
        (
            "012" * 2 + "3",
            {"k": 5, "dev_k": 2},
            ["data.k=5 (total) gave 4", "data.dev_k=2 (total) gave 3", "No dev example"],
        ),
        ("01" * 8, {"k": 4, "dev_k": 90}, ["gave 12 dev examples instead of 90."]),
    ],
)
def test_doubtful_sets_are_warned_of(
    tmp_path: Path, train: str, settings: dict[str, Any], warnings: list[str]
) -> None:
    used = changed(TASK, labels=sorted({*train, "1"}), label_words=[])
    sets = {"train": labeled_rows("train", train), "dev": labeled_rows("dev", "01")}
    found = split(folder(tmp_path / "data", **sets), used, **KSHOT | settings).warnings
    assert len(found) == len(warnings)
    for part, warning in zip(warnings, found, strict=True):
        assert part in warning


def test_a_constant_regression_is_warned_of(tmp_path: Path) -> None:
    sets = {"train": labeled_rows("train", "444"), "dev": labeled_rows("dev", "25")}
    found = split(folder(tmp_path / "data", **sets), NUMBER, test="dev", dev_k=1).warnings
    assert found == ["All 2 training examples have the same label."]


def test_texts_shared_with_train_are_warned_of(tmp_path: Path) -> None:
    sets = contents()
    sets["dev"][1:4] = sets["train"][1:4]
    set_cell(sets, "dev", 2, 0, " train 1  ")  # templates insert it without its spaces
    found = split(folder(tmp_path / "data", **sets)).warnings
    assert found == ["3 of 12 dev texts are also in train."]
