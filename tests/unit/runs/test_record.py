"""The record of a finished run."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lpt.errors import ConfigError
from lpt.runs.record import RunRecord
from lpt.runs.results_table import print_results
from tests.support import runs


def record(**changes: Any) -> RunRecord:
    """A record with three scored sets and one without labels."""
    test, more = {"accuracy": 0.75, "f1": 0.5}, {"matthews_correlation": 0.125}
    content = runs.metrics() | {
        "dev": test,
        "test": test,
        "extra": {"more": more, "blind": None},
        "majority": {"dev": test, "test": test, "more": more, "blind": None},
        "zero_shot": {"dev": test, "test": test, "more": {"matthews_correlation": -0.25}},
        **changes,
    }
    return RunRecord.model_validate(content)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = record()
    written.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]
    assert RunRecord.read(tmp_path) == written


def test_faults_of_a_file_come_together(tmp_path: Path) -> None:
    content = runs.metrics()
    content["cost"]["starts"] = 1.5
    content["selection"]["value"] = None
    content["config"]["seed"] = float("nan")
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError) as caught:
        RunRecord.read(tmp_path)
    file = tmp_path / "metrics.json"
    assert {problem.where for problem in caught.value.problems} == {
        f"{file}: {key}" for key in ("cost.starts", "selection.value", "config")
    }


def test_a_record_of_many_evaluations_is_read(tmp_path: Path) -> None:
    history = [{"step": step, "accuracy": 0.5} for step in range(50_000)]
    record(dev_history=history).write(tmp_path)
    assert (tmp_path / "metrics.json").stat().st_size > 1 << 20
    assert len(RunRecord.read(tmp_path).dev_history) == 50_000


def test_summary_names_every_score_as_loggers_do() -> None:
    summary = record().summary()
    assert summary["final/test/accuracy"] == 0.75
    assert summary["final/more/matthews_correlation"] == 0.125
    assert summary["zero_shot/more/matthews_correlation"] == -0.25
    assert summary["majority/dev/f1"] == 0.5
    assert not any("blind" in name for name in summary)


def printed(shown: RunRecord) -> str:
    console = Console(file=io.StringIO(), width=200)
    print_results(shown, console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_the_table_shows_every_scored_set() -> None:
    """A set has its own metrics; one without labels has no column."""
    shown = printed(record())
    assert shown.splitlines()[0].strip() == "sst2 · roberta-base · npg at layer 4"
    [head] = [line for line in shown.splitlines() if "more matthews_correlation" in line]
    assert "test f1" in head
    assert "blind" not in head
    lines = [line for line in shown.splitlines() if "│" in line]
    cells = {line.split("│")[1].strip(): line.split("│")[2:-1] for line in lines}
    assert [cell.strip() for cell in cells["zero-shot"]] == [
        "0.750", "0.500", "0.750", "0.500", "-0.250",
    ]  # fmt: skip
    assert [cell.strip() for cell in cells["late prompt"]][-1] == "0.125"
    assert "trained 296,960 of 23,042,236 parameters" in shown
    assert "test: official test set" in shown


@pytest.mark.parametrize("text", ["[/bold]", "a.tsv:100: x", "\\["])
def test_the_table_shows_any_text_literally(text: str) -> None:
    scores = {text: 0.5, "accuracy": 0.5}
    origin = {**runs.metrics()["split"], "origin": {"train": f"from {text}"}}
    shown = printed(record(extra={text: scores}, split=origin, run_dir=f"runs/{text}"))
    for expected in (f"{text} {text}", f"train: from {text}", f"all files are in runs/{text}\n"):
        assert expected in shown


def test_control_characters_are_escaped() -> None:
    """They would move the cursor."""
    assert "in runs/\\x1b[2J\\x9b" in printed(record(run_dir="runs/\x1b[2J\x9b"))
