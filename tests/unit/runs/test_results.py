"""Files and scores that a run reports."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from lpt.data.tasks import Examples, Task
from lpt.data.templates import Template
from lpt.runs.record import (
    environment,
    predictions_file,
    print_table,
    write_atomically,
    write_metrics,
    write_predictions,
)
from lpt.training.metrics import EvalOutput


def task(**changes: Any) -> Task:
    template = Template.parse("{text} <mask>", "masked")
    given: dict[str, Any] = {"labels": ("neg", "pos"), "words": ("bad", "good"), "metrics": ()}
    return Task(name="toy", template=template, **given | changes)


def written(
    folder: Path, predicted: list[Any], labels: list[Any], of: Task, **notes: list[str]
) -> list[str]:
    index = [0, 4, 7][: len(labels)]
    part = Examples({"text": ["x"] * len(labels)}, labels, index, notes)
    answers = EvalOutput(torch.tensor(predicted), torch.tensor(labels), len(of.labels), part)
    write_predictions(folder / "p.tsv", answers, of)
    assert [p.name for p in folder.iterdir()] == ["p.tsv"]
    text = (folder / "p.tsv").read_text(encoding="utf-8")
    assert text.endswith("\n")
    return text[:-1].split("\n")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([1, 1, 0], ["index\tprediction\tlabel", "0\tpos\tpos", "4\tneg\tpos", "7\tpos\tneg"]),
        ([-1, -1, -1], ["index\tprediction", "0\tpos", "4\tneg", "7\tpos"]),
        ([1, -1, 0], ["index\tprediction\tlabel", "0\tpos\tpos", "4\tneg\t", "7\tpos\tneg"]),
    ],
)
def test_predictions_file(tmp_path: Path, labels: list[int], expected: list[str]) -> None:
    assert written(tmp_path, [1, 0, 1], labels, task()) == expected


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([5.0, 0.25], ["index\tprediction\tlabel", "0\t4.250\t5.000", "4\t0.123\t0.250"]),
        ([-1, 3.0], ["index\tprediction\tlabel", "0\t4.250\t", "4\t0.123\t3.000"]),
        ([-1, -1], ["index\tprediction", "0\t4.250", "4\t0.123"]),
    ],
)
def test_predicted_numbers(tmp_path: Path, labels: list[float], expected: list[str]) -> None:
    number = task(task_type="regression", labels=("0", "5"))
    assert written(tmp_path, [4.25, 0.12345], labels, number) == expected


def test_candidates_come_with_what_is_known_of_them(tmp_path: Path) -> None:
    """Free text fits into a cell; the right answers of the whole group are left out."""
    notes = {
        "gold": ["[]", "[]"],
        "answer": ["tab\there\nand  there", "né 😀"],
        "id": ["3/0", "3/1"],
        "group": ["3", "3"],
    }
    choice = task(task_type="multiple_choice", labels=("0", "1"))
    assert written(tmp_path, [1, 0], [0, 1], choice, **notes) == [
        "index\tid\tgroup\tanswer\tprediction\tlabel",
        "0\t3/0\t3\ttab here and there\t1\t0",
        "4\t3/1\t3\tné 😀\t0\t1",
    ]


def test_official_ids_are_kept(tmp_path: Path) -> None:
    assert written(tmp_path, [1], [-1], task(), id=["a7"]) == [
        "index\tid\tprediction",
        "0\ta7\tpos",
    ]


@pytest.mark.parametrize(
    ("name", "file"),
    [("test", "predictions.tsv"), ("dev_mismatched", "predictions-dev_mismatched.tsv")],
)
def test_file_of_a_set(name: str, file: str) -> None:
    assert predictions_file(name) == file


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


def scored(**changes: Any) -> dict[str, Any]:
    """What metrics.json holds of a run with three scored sets."""
    test, more = {"accuracy": 0.75, "f1": 0.5}, {"matthews_correlation": 0.125}
    sets: dict[str, Any] = {"dev": test, "test": test, "more": more, "blind": None}
    return {
        "task": "toy",
        "model": {"name": "tiny"},
        "prompt": {"kind": "npg", "layer": 3},
        "dev": sets["dev"],
        "test": sets["test"],
        "extra": {"more": more, "blind": None},
        "majority": sets,
        "zero_shot": {**sets, "more": {"matthews_correlation": -0.25}},
        "parameters": {"trainable": 5, "total": 50},
        "speed": {"train_seconds": 1.0, "examples_per_second": 2.0},
        "selection": {"metric": "accuracy", "step": 4},
        "protocol": {"origin": {"train": "drawn", "blind": "official blind set"}},
        "run_dir": "runs/x",
        **changes,
    }


def printed(metrics: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=200)
    print_table(metrics, console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


@pytest.mark.parametrize("text", ["[/bold]", "[red]x", "a.tsv:100: x", "[link=a]b", "x[", "\\["])
def test_the_table_shows_any_text_as_it_is(text: str) -> None:
    scores = {text: 0.5}
    sets = {"dev": scores, "test": scores, text: scores}
    metrics = scored(
        task=f"task {text}",
        model={"name": f"model {text}"},
        dev=scores,
        test=scores,
        extra={text: scores},
        majority=sets,
        zero_shot=sets,
        selection={"metric": text, "step": 4},
        protocol={"origin": {"train": f"from {text}"}},
        run_dir=f"runs/{text}",
    )
    shown = printed(metrics)
    for expected in (
        *(
            f"task {text} · model {text} · npg",
            f"dev {text}",
            f"{text} {text}",
            f"best dev {text} at",
        ),
        *(f"train: from {text}", f"everything is in runs/{text}\n"),
    ):
        assert expected in shown


def test_control_characters_are_shown_by_their_escapes() -> None:
    """They would move the cursor, and half a pair of surrogates cannot be written at all."""
    shown = printed(
        scored(task="a\x1b[2Jb\x07", run_dir="runs/\udcff\x9b", model={"name": "né 😀"})
    )
    assert "a\\x1b[2Jb\\x07 · né 😀" in shown
    assert "in runs/\\udcff\\x9b" in shown


def test_the_table_shows_every_scored_set() -> None:
    """A set has its own metrics; one without labels has no column."""
    shown = printed(scored())
    title, lines = shown.splitlines()[0], [line for line in shown.splitlines() if "│" in line]
    assert title.strip() == "toy · tiny · npg at layer 3"
    heads = [line for line in shown.splitlines() if "more matthews_correlation" in line]
    assert len(heads) == 1
    assert "test f1" in heads[0]
    assert "blind f1" not in heads[0]
    cells = {line.split("│")[1].strip(): line.split("│")[2:-1] for line in lines}
    assert [cell.strip() for cell in cells["zero-shot"]] == [
        "0.750", "0.500", "0.750", "0.500", "-0.250",
    ]  # fmt: skip
    assert [cell.strip() for cell in cells["late prompt"]][-1] == "0.125"
    assert "blind: official blind set" in shown
