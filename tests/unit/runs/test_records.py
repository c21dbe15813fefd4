"""Records of jobs, sweeps and finished runs, and the table of a run that is printed."""

from __future__ import annotations

import io
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lpt.runs.job_record import JobRecord, JobState, NumberRange, SweepRecord
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


JOB = JobRecord(
    name="seed-1",
    settings={"seed": "1"},
    overrides=["seed=1", "task.template='a b'"],
    state=JobState.FAILED,
    reason='it\'s "so"',
    attempts=2,
    started=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    seconds=1.5,
    exit_status=-9,
)
SWEEP = SweepRecord(
    name="search",
    command="python sweep.py",
    fixed=["task=sst2"],
    space={
        "prompt": ["npg", "mppg"],
        "optim.lr": NumberRange(low=1e-4, high=1e-2, log=True),
        "prompt.length": NumberRange(low=2, high=10, step=4),
    },
    search=True,
)
HISTORY = [{"step": step, "accuracy": 0.5} for step in range(50_000)]  # more than a megabyte


@pytest.mark.parametrize(
    ("written", "file"),
    [(JOB, "job.json"), (SWEEP, "sweep.json"), (record(dev_history=HISTORY), "metrics.json")],
)
def test_a_record_is_read_as_it_was_written(
    written: JobRecord | SweepRecord | RunRecord, file: str, tmp_path: Path
) -> None:
    written.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [file]
    again = written.read(tmp_path)
    assert again == written
    assert again.model_dump_json() == written.model_dump_json()  # integers are still integers


def test_the_command_of_a_job_is_quoted() -> None:
    assert shlex.split(JOB.command) == ["python", "-m", "lpt.cli.train", *JOB.overrides]


def test_summary_names_every_score_as_loggers_do() -> None:
    summary = record().summary()
    assert summary["final/test/accuracy"] == 0.75
    assert summary["final/more/matthews_correlation"] == 0.125
    assert summary["zero_shot/more/matthews_correlation"] == -0.25
    assert summary["majority/dev/f1"] == 0.5
    assert not any("blind" in name for name in summary)


def printed(shown: RunRecord) -> str:
    output = io.StringIO()
    print_results(shown, Console(file=output, width=200))
    return output.getvalue()


def test_the_table_names_the_label_of_f1_and_what_is_labeled_in_part() -> None:
    content = record().model_dump()
    content["config"]["task"]["positive_label"] = "spam"
    content["split"]["labeled"] = {"test": 870}
    shown = printed(RunRecord.model_validate(content))
    assert "f1 is the F1 of the label 'spam'" in shown
    assert "test: official test set, scored on the 870 of 872 with a label" in shown
    assert "F1 of the label" not in printed(record())


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        *((text, text) for text in ("[/bold]", "a.tsv:100: x", "\\[")),
        ("\x1b[2J\x9b", "\\x1b[2J\\x9b"),  # would move the cursor
    ],
)
def test_the_table_shows_any_text_literally(text: str, shown: str) -> None:
    scores = {text: 0.5, "accuracy": 0.5}
    origin = {**runs.metrics()["split"], "origin": {"train": f"from {text}"}}
    output = printed(record(extra={text: scores}, split=origin, run_dir=f"runs/{text}"))
    for part in (f"{shown} {shown}", f"train: from {shown}", f"all files are in runs/{shown}\n"):
        assert part in output
