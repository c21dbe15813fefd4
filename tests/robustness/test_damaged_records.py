"""Damaged files of runs and sweeps: named, passed over or refused, and never a traceback."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lpt.cli.leaderboards import make_submission
from lpt.config.schema import Config
from lpt.errors import ConfigError, Problems
from lpt.report import write_report
from lpt.report.folders import find
from lpt.report.runs import read
from lpt.report.study import arrange
from lpt.runs.json_records import RECORD
from lpt.sweep.board import Board, Seen, look
from lpt.sweep.job import DONE, INTERRUPTED, JOB, Job, run_job
from lpt.sweep.pool import run_pool
from lpt.sweep.record import row
from lpt.training.resume import finished_metrics
from tests import runs
from tests.conftest import toy_overrides
from tests.support.sweeps import MadeUp

METRICS, PROGRESS, SWEEP = "metrics.json", "progress.json", "sweep.json"


def put(file: Path, content: str | bytes) -> None:
    file.write_bytes(content.encode() if isinstance(content, str) else content)


def huge(file: Path) -> None:
    """More than is read, without a byte of it on the disk."""
    file.unlink()
    with file.open("wb") as empty:
        empty.truncate(2 << 30)


def pipe(file: Path) -> None:
    """Whoever opens it waits for a writer."""
    file.unlink()
    os.mkfifo(file)


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def each(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Damage that changes every member of the object at the top."""

    def damage(file: Path) -> None:
        known = json.loads(file.read_text())
        put(file, json.dumps({key: change(value) for key, value in known.items()}))

    return damage


DAMAGES: dict[str, Callable[[Path], None]] = {
    "empty": lambda file: put(file, ""),
    "list": lambda file: put(file, "[]"),
    "object": lambda file: put(file, "{}"),
    "null": lambda file: put(file, "null"),
    "number": lambda file: put(file, "3"),
    "truncated": lambda file: put(file, file.read_bytes()[:-20]),
    "not UTF-8": lambda file: put(file, file.read_bytes().replace(b'"', b'"\xff', 1)),
    "zeros": lambda file: put(file, b"\0" * 512),
    "nested": lambda file: put(file, "[" * 100_000),
    "nested and closed": lambda file: put(file, "[" * 500 + "]" * 500),
    "members nested": each(lambda _: json.loads("[" * 100 + "]" * 100)),
    "members not a number": each(lambda _: float("nan")),
    "members infinite": each(lambda _: float("inf")),
    "members of 400 digits": each(lambda _: 10**400),
    "members of half a character": each(lambda _: "\ud800"),
    "members lists": each(lambda _: []),
    "members objects": each(lambda _: {"a": [{}]}),
    "members null": each(lambda _: None),
    "members true": each(lambda _: True),
    "huge": huge,
    "pipe": pipe,
    "folder": folder,
}
damaged = pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A finished job of a sweep."""
    swept = runs.write_sweep(tmp_path / "swept", seed=["13"])
    home = swept / "jobs" / "a"
    job = Job("a", {"seed": "13"}, ["seed=13"], state=DONE, folder=home)
    job.write()
    (home / METRICS).write_text(json.dumps(runs.metrics()))
    history = [{"step": 5, "accuracy": 0.5}]
    known = {"metric": "accuracy", "steps": 10, "dev_history": history}
    (home / PROGRESS).write_text(json.dumps(known))
    return job


def board_of(job: Job) -> str:
    console = Console(record=True, width=200, force_terminal=False)
    board = Board("layers", console, 1)
    board.folders = [job.folder]
    with board.shown():
        pass
    seen = look(job.folder)
    console.print(board.render([seen] if seen is not None else []))
    return console.export_text()


def refused_report(folder: Path) -> list[str]:
    """Names of the files that keep a report from being made."""
    problems = Problems()
    material = read(find([folder], problems), problems)
    if not problems.found:
        arrange(material)
        return []
    with pytest.raises(ConfigError):
        write_report([folder], folder / "report")
    assert not (folder / "report").exists()
    assert all(problem.hint for problem in problems.found)
    return [Path(problem.where).name for problem in problems.found]


def test_what_is_whole_is_read(job: Job) -> None:
    assert look(job.folder) == Seen(job, 5, 10, (0.5,))
    assert row(job)["final/test/accuracy"] == 0.75
    assert finished_metrics(Config(run_dir=str(job.folder), resume="auto")) == runs.metrics()
    assert refused_report(job.folder.parents[1]) == []


@damaged
def test_a_damaged_metrics_json(job: Job, damage: Callable[[Path], None]) -> None:
    file, problems = job.folder / METRICS, Problems()
    damage(file)
    assert job.metrics is None
    assert job.result(problems) is None
    [problem] = problems.found
    assert problem.where == str(file)
    assert "remove the file" in problem.hint
    assert "final/test/accuracy" not in row(job)
    with pytest.raises(ConfigError, match=r"metrics\.json is damaged .*\n.*\n.*remove that file"):
        finished_metrics(Config(run_dir=str(job.folder), resume="auto"))
    with pytest.raises(ConfigError, match="no metrics"):
        make_submission([job.folder], job.folder / "out")
    assert board_of(job)
    if not file.is_file():
        return  # no report takes these for files of a run
    assert refused_report(job.folder.parents[1]) == [METRICS]
    job.settle()
    assert (job.state, job.reason) == (INTERRUPTED, "metrics.json is gone or damaged")


@damaged
def test_a_damaged_job_json(job: Job, damage: Callable[[Path], None]) -> None:
    file, problems = job.folder / JOB, Problems()
    damage(file)
    assert Job.read(job.folder, problems) is None
    [problem] = problems.found
    assert problem.where == str(file)
    assert problem.hint
    assert look(job.folder) is None
    assert board_of(job)
    with pytest.raises(ConfigError, match=r"job\.json"):
        run_job(job.folder)
    run_pool([job.folder], 1)
    refused_report(job.folder.parents[1])


@damaged
def test_a_damaged_progress_json_is_passed_over(job: Job, damage: Callable[[Path], None]) -> None:
    damage(job.folder / PROGRESS)
    assert look(job.folder) == Seen(job)
    assert "1 done" in board_of(job)
    assert refused_report(job.folder.parents[1]) == []


@damaged
def test_a_damaged_sweep_json_of_a_report(job: Job, damage: Callable[[Path], None]) -> None:
    damage(job.folder.parents[1] / SWEEP)
    assert refused_report(job.folder.parents[1]) in ([], [SWEEP])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("state", state) for state in ("ended", "", 3, ["finished"])),
        *(("settings", settings) for settings in ([], {"seed": 13}, {"seed": None}, "seed")),
        *(("arguments", arguments) for arguments in ({}, "seed=1", [1], [["seed=1"]])),
        *(("devices", devices) for devices in (0, -1, 1.5, True, "1")),
        *(("seconds", seconds) for seconds in (-1.0, float("nan"), float("inf"), "1")),
        *(("attempts", -1), ("attempts", None), ("name", "b"), ("name", "../a"), ("gpu", 1)),
        ("more", 1),
    ],
)
def test_a_wrong_value_of_a_job_is_named(job: Job, key: str, value: object) -> None:
    file, problems = job.folder / JOB, Problems()
    put(file, json.dumps(json.loads(file.read_text()) | {key: value}))
    assert Job.read(job.folder, problems) is None
    assert key in problems.found[0].given


def test_dates_that_there_are_not(job: Job) -> None:
    known = json.loads((job.folder / JOB).read_text())
    for started, seconds in (("2026-01-01T00:00:00+0000", 1e300), ("0001-01-01T00:00:00", 1.0)):
        put(job.folder / JOB, json.dumps(known | {"started": started, "seconds": seconds}))
        assert refused_report(job.folder.parents[1]) == []


def test_a_record_that_grew_with_its_steps_is_read(job: Job) -> None:
    history = [{"step": step, "accuracy": 0.5} for step in range(50_000)]
    put(job.folder / METRICS, json.dumps(runs.metrics(dev_history=history), indent=2))
    assert 1 << 20 < (job.folder / METRICS).stat().st_size < RECORD
    assert job.metrics is not None


GRID = ("seed=1,2",)


@pytest.fixture
def sweep(checkpoints: dict[str, Path], toy_data: Path, tmp_path: Path) -> MadeUp:
    return MadeUp(toy_overrides(checkpoints, toy_data, "masked"), tmp_path / "swept")


@pytest.mark.parametrize("damage", ["list", "members null", "nested"])
def test_a_sweep_names_what_is_damaged_and_goes_on(
    sweep: MadeUp, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(*GRID) == 0
    first, second = (sweep.folder / "jobs" / name for name in ("seed-1", "seed-2"))
    DAMAGES[damage](first / JOB)
    assert sweep(*GRID) == 0
    said = capsys.readouterr().out
    assert f"{first / JOB} is damaged, so seed-1 has not ended" in said
    assert said.count(str(first / JOB)) == 1
    # Its run had finished: the record is made anew, and nothing is run twice.
    assert sweep.states == {"seed-1": (DONE, 0), "seed-2": (DONE, 1)}

    DAMAGES[damage](second / METRICS)
    sweep.ending = lambda _: 2  # as a run that finds the file
    assert sweep(*GRID) == 1
    assert f"{second / METRICS} is damaged, so seed-2 has not ended" in capsys.readouterr().out
    assert sweep.jobs["seed-2"].attempts == 2
    lines = (sweep.folder / "results.jsonl").read_text().splitlines()
    assert ["final/test/accuracy" in json.loads(line) for line in lines] == [True, False]

    (second / METRICS).unlink()
    sweep.ending = lambda _: 0.5
    assert sweep(*GRID) == 0


def test_a_record_damaged_while_the_sweep_runs_is_no_success(sweep: MadeUp) -> None:
    def ending(given: dict[str, Any]) -> float:
        if given["seed"] == 2:
            put(sweep.folder / "jobs" / "seed-1" / JOB, "[]")
        return 0.5

    sweep.ending = ending
    assert sweep(*GRID) == 1
    assert sweep(*GRID) == 0


@pytest.mark.parametrize("damage", ["list", "members null", "nested", "huge", "pipe"])
def test_the_folder_of_a_damaged_sweep_is_refused(sweep: MadeUp, damage: str) -> None:
    assert sweep(*GRID) == 0
    DAMAGES[damage](sweep.folder / SWEEP)
    with pytest.raises(ConfigError):
        sweep(*GRID)
    assert sweep.states == {"seed-1": (DONE, 1), "seed-2": (DONE, 1)}


@pytest.mark.parametrize("content", ["[]\n", '{"op_code": 4}\n', "\udcff", '{"op_code": "x"}\n'])
def test_a_damaged_study_is_refused(sweep: MadeUp, content: str) -> None:
    space, base = "optim.lr=interval(0.1,0.5)", ["sweep.trials=2"]
    assert sweep(space, base=base) == 0
    (sweep.folder / "study.jsonl").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=r"study\.jsonl: cannot be read"):
        sweep(space, base=base)
