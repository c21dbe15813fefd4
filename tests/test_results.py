"""Files and scores that a run reports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lpt.data.tasks import Examples
from lpt.metrics import Predictions
from lpt.results import (
    environment,
    majority_scores,
    prediction_scores,
    write_atomically,
    write_metrics,
    write_predictions,
)

NAMES = ("neg", "pos")


def predictions(labels: list[int]) -> Predictions:
    scores = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    return Predictions(torch.tensor([0, 4, 7]), torch.tensor(labels), scores)


def examples(labels: list[int]) -> Examples:
    return Examples({"text": ["x"] * len(labels)}, labels, list(range(len(labels))))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([1, 1, 0], "index\tprediction\tlabel\n0\tpos\tpos\n4\tneg\tpos\n7\tpos\tneg\n"),
        ([-1, -1, -1], "index\tprediction\n0\tpos\n4\tneg\n7\tpos\n"),
        ([1, -1, 0], "index\tprediction\tlabel\n0\tpos\tpos\n4\tneg\t\n7\tpos\tneg\n"),
    ],
)
def test_predictions_file(tmp_path: Path, labels: list[int], expected: str) -> None:
    write_predictions(tmp_path / "p.tsv", predictions(labels), NAMES)
    assert (tmp_path / "p.tsv").read_text() == expected
    assert [p.name for p in tmp_path.iterdir()] == ["p.tsv"]


def test_majority_is_that_of_train() -> None:
    train, part = examples([1, 1, 0]), examples([0, 0, 0, 1])
    assert majority_scores(train, part, ("accuracy",), 2) == {"accuracy": 0.25}
    assert majority_scores(train, examples([0, -1]), ("accuracy",), 2) is None


def test_scores_of_predictions() -> None:
    scores = prediction_scores(predictions([1, 1, 0]), ("accuracy",), 2)
    assert scores == {"accuracy": pytest.approx(1 / 3)}
    assert prediction_scores(predictions([1, 1, -1]), ("accuracy",), 2) is None


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "metrics.json"
    write_metrics(file, {"a": 1})

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(file, "half")
    assert json.loads(file.read_text()) == {"a": 1}


def test_environment_names_versions() -> None:
    known = environment()
    assert {"python", "lpt", "torch", "transformers"} <= set(known["versions"])
    assert known["device"]
