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
from lpt.runs.predictions import read_predictions, write_predictions
from tests.support.problems import problem_of
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
    write_predictions(folder, "test", prediction_columns(output, of, texts=True))
    assert [path.name for path in folder.iterdir()] == ["predictions.tsv"]
    text = (folder / "predictions.tsv").read_text(encoding="utf-8")
    assert text.endswith("\n")
    lines = text[:-1].split("\n")
    assert [list(row) for row in read_predictions(folder, "test")] == [
        lines[0].split("\t") for _ in labels
    ]
    return lines


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
    head = "index\tprediction" + ("" if unlabeled else "\tlabel") + "\ttext"
    lines = [f"{line}\tx" for line in expected]
    assert written(tmp_path, predicted, labels, of) == [head, *lines]


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
        "index\tid\tgroup\tanswer\tprediction\tlabel\ttext",
        "0\t3/0\t3\ttab here and there\t1\t0\tx",
        "4\t3/1\t3\tné 😀\t0\t1\tx",
    ]


def test_probabilities_are_the_softmax_of_the_scores(tmp_path: Path) -> None:
    """A column for each label, however it is written; none of numbers."""
    texts = {"text": ["a\tb", "c"], "label": ["x", "y"]}
    of = task(labels=["so\tso", "good"])
    scores = torch.tensor([[0.0, math.log(3)], [50.0, 0.0]])
    output = EvalOutput(
        torch.tensor([1, 0]), torch.tensor([1, 0]), 2, Examples(texts, [1, 0], [3, 8])
    )
    write_predictions(
        tmp_path, "dev", prediction_columns(output._replace(scores=scores), of, texts=True)
    )
    assert read_predictions(tmp_path, "dev") == [
        {"index": "3", "prediction": "good", "label": "good", "p(so so)": "0.250000"}
        | {"p(good)": "0.750000", "text": "a b"},
        {"index": "8", "prediction": "so so", "label": "so so", "p(so so)": "1.000000"}
        | {"p(good)": "0.000000", "text": "c"},
    ]
    assert "p(0)" not in prediction_columns(output._replace(scores=scores), NUMBERS)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    assert "cannot be read" in problem_of(lambda: read_predictions(tmp_path, "test")).given
    (tmp_path / "predictions.tsv").write_text("index\tprediction\n0\tpos\n1\n")
    problem = problem_of(lambda: read_predictions(tmp_path, "test"))
    assert (problem.where, problem.given) == (f"{tmp_path}/predictions.tsv:3", "1 cells")
