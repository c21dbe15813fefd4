"""Files of predictions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from lpt.data.eval_output import EvalOutput, prediction_columns
from lpt.data.examples import Examples
from lpt.data.tasks import Task
from lpt.runs.record import write_predictions
from tests.support.task_tables import task

CLASSES = task()
NUMBERS = task(task_type="regression", labels=["0", "5"])
SIGNED = task(task_type="regression", labels=["-1", "1"])
NONE = math.nan


def written(
    folder: Path, predicted: list[Any], labels: list[Any], of: Task, **metadata: list[str]
) -> list[str]:
    index = [0, 4, 7][: len(labels)]
    examples = Examples({"text": ["x"] * len(labels)}, labels, index, metadata)
    count = len(of.config.labels)
    numbers = torch.tensor(predicted, dtype=torch.float64 if of.value_range else torch.long)
    output = EvalOutput(numbers, torch.tensor(labels), count, examples)
    write_predictions(folder, "test", prediction_columns(output, of))
    assert [path.name for path in folder.iterdir()] == ["predictions.tsv"]
    text = (folder / "predictions.tsv").read_text(encoding="utf-8")
    assert text.endswith("\n")
    return text[:-1].split("\n")


@pytest.mark.parametrize(
    ("of", "predicted", "labels", "expected"),
    [
        (CLASSES, [1, 0, 1], [1, -1, 0], ["0\tpos\tpos", "4\tneg\t", "7\tpos\tneg"]),
        (CLASSES, [1, 0, 1], [-1, -1, -1], ["0\tpos", "4\tneg", "7\tpos"]),
        (NUMBERS, [4.25, 0.12345], [5.0, 0.25], ["0\t4.25\t5.0", "4\t0.12345\t0.25"]),
        (NUMBERS, [4.25, 0.12345], [NONE, 3.0], ["0\t4.25\t", "4\t0.12345\t3.0"]),
        (NUMBERS, [4.25, 0.12345], [NONE, NONE], ["0\t4.25", "4\t0.12345"]),
        (SIGNED, [-1.0, 0.00012], [-1.0, NONE], ["0\t-1.0\t-1.0", "4\t0.00012\t"]),
    ],
)
def test_without_labels_there_is_no_column_of_them(
    tmp_path: Path, of: Task, predicted: list[Any], labels: list[Any], expected: list[str]
) -> None:
    unlabeled = set(labels) in ({-1}, {NONE})
    head = "index\tprediction" + ("" if unlabeled else "\tlabel")
    assert written(tmp_path, predicted, labels, of) == [head, *expected]


def test_candidates_come_with_their_group_and_answer(tmp_path: Path) -> None:
    """Free text fits into a cell; the gold answers of the whole group are left out."""
    metadata = {
        "gold": ["[]", "[]"],
        "answer": ["tab\there\nand  there", "né 😀"],
        "id": ["3/0", "3/1"],
        "group": ["3", "3"],
    }
    choice = task(task_type="multiple_choice", labels=["0", "1"])
    assert written(tmp_path, [1, 0], [0, 1], choice, **metadata) == [
        "index\tid\tgroup\tanswer\tprediction\tlabel",
        "0\t3/0\t3\ttab here and there\t1\t0",
        "4\t3/1\t3\tné 😀\t0\t1",
    ]
