"""Sets whose scores are doubtful are warned of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.split_sets import TASK, contents, folder, split
from tests.support.task_tables import changed

KSHOT: dict[str, Any] = {"protocol": "kshot", "k": 8, "dev_k": 9, "seed": 42}


def test_small_classes_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    split(folder(tmp_path), **KSHOT | {"sampling": "per_class", "dev_k": 20})
    assert "data.dev_k=20 (per_class) gave 32 dev examples instead of 40" in caplog.text


def labeled_rows(split: str, labels: str) -> list[tuple[str, ...]]:
    return [("a", "b", "label"), *((f"{split} {i}", "b", x) for i, x in enumerate(labels))]


@pytest.mark.parametrize(
    ("train", "settings", "warnings"),
    [
        ("0" * 190 + "1" * 10, {}, ["has the label '1'", "All 8 training examples"]),
        ("0" * 190 + "1" * 10, {"sampling": "stratified"}, []),
        ("0" * 20, {"k": 4}, ["has the label '1'", "All 4 training examples"]),
        ("0" * 20, {"k": 4, "sampling": "per_class"}, ["has the label '1'", "All 4 training"]),
        (
            "012" * 2 + "3",
            {"k": 5, "dev_k": 2},
            ["data.k=5 (total) gave 4", "data.dev_k=2 (total) gave 3"],
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


def test_texts_shared_with_train_are_warned_of(tmp_path: Path) -> None:
    sets = contents()
    sets["dev"][1:4] = sets["train"][1:4]
    found = split(folder(tmp_path / "data", **sets)).warnings
    assert found == ["3 of 12 dev texts are training texts, too."]
