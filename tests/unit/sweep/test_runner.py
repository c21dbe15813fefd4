"""A sweep from its command to its results, with fake jobs."""

from __future__ import annotations

import csv
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from lpt.errors import PREEMPTED, ConfigError
from lpt.runs.job_record import JOB, SWEEP, SweepRecord
from tests.support.problems import problem_of, problems_of
from tests.support.sweeps import FakeSweep

GRID = ("prompt.layer=2,4", "seed=1,2")
NAMES = [f"prompt.layer-{layer}_seed-{seed}" for layer in (2, 4) for seed in (1, 2)]


def failing(*seeds: int) -> Callable[[dict[str, Any]], int | float]:
    return lambda overrides: 1 if overrides["seed"] in seeds else 0.75


def test_every_point_is_a_job(sweep: FakeSweep) -> None:
    assert sweep(*GRID) == 0
    [batch] = sweep.batches
    folders = [sweep.folder / "jobs" / name for name in NAMES]
    assert [Path(overrides["run_dir"]) for overrides in batch] == folders
    settings = [(overrides["prompt.layer"], overrides["seed"]) for overrides in batch]
    assert settings == [(2, 1), (2, 2), (4, 1), (4, 2)]
    assert [overrides.get("cache.layers") for overrides in batch] == [[2, 4], None, None, None]
    assert {overrides["resume"] for overrides in batch} == {"auto"}
    assert sweep.states == dict.fromkeys(NAMES, ("finished", 1))
    job = sweep.jobs[NAMES[2]]
    assert job.settings == {"prompt.layer": "4", "seed": "1"}
    assert (job.devices, job.gpu) == (1, False)
    record = SweepRecord.read(sweep.folder)
    assert record.space == {"prompt.layer": ["2", "4"], "seed": ["1", "2"]}
    assert "task=reviews" in record.fixed


def test_couples_on_the_command_line(sweep: FakeSweep) -> None:
    couples = "sweep.settings=[{prompt:static,prompt.layer:1},{prompt:mppg}]"
    assert sweep("seed=1,2", fixed=[couples]) == 0
    [batch] = sweep.batches
    ran = [(given["prompt"], given.get("prompt.layer"), given["seed"]) for given in batch]
    assert ran == [("static", 1, 1), ("static", 1, 2), ("mppg", None, 1), ("mppg", None, 2)]
    given = [{"prompt": "static", "prompt.layer": "1"}, {"prompt": "mppg"}]
    record = SweepRecord.read(sweep.folder)
    assert record.space == {"seed": ["1", "2"], "settings": given}
    assert record.varied == {"seed", "prompt", "prompt.layer"}
    other = problem_of(lambda: sweep("seed=1,2", fixed=[couples.replace("1}", "2}")]))
    assert other.where == "sweep.dir"


def test_finished_jobs_are_skipped_and_failed_ones_retried(
    sweep: FakeSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep.ending = failing(2)
    assert sweep(*GRID) == 1
    ended = dict(zip(NAMES, [("finished", 1), ("failed", 1)] * 2, strict=True))
    assert sweep.states == ended
    assert {sweep.jobs[name].reason for name in NAMES[1::2]} == {"RuntimeError: out of luck"}
    lines = capsys.readouterr().out.splitlines()
    for line in (f"{NAMES[0]} finished: dev 0.750 in ", f"{NAMES[1]} failed: RuntimeError: out of"):
        assert len([shown for shown in lines if shown.startswith(line)]) == 1
    assert any(line.endswith(f"[4 of 4 ended, best dev 0.750 ({NAMES[0]})]") for line in lines)
    assert sweep(*GRID, fixed=["sweep.retry=false"]) == 1
    assert sweep.batches == []
    assert sweep.states == ended
    sweep.ending = failing()
    assert sweep(*GRID) == 0
    assert [overrides.get("cache.layers") for overrides in sweep.batches[0]] == [[2, 4], None]
    assert sweep.states == dict(zip(NAMES, [("finished", 1), ("finished", 2)] * 2, strict=True))
    assert {job.reason for job in sweep.jobs.values()} == {None}


def test_results_have_a_row_for_each_job(sweep: FakeSweep) -> None:
    sweep.ending = failing(1)  # so that the first row is a short one
    sweep(*GRID)
    rows = sweep.rows
    for row, name, failed in zip(rows, NAMES, [True, False] * 2, strict=True):
        assert (row["job"], row["run_dir"]) == (name, str(sweep.folder / "jobs" / name))
        assert row["command"].startswith("python -m lpt.cli.train model=local ")
        assert row["state"] == ("failed" if failed else "finished")
        assert row["reason"] == ("RuntimeError: out of luck" if failed else None)
        assert row.get("final/dev/accuracy") == (None if failed else 0.75)
    with (sweep.folder / "results.csv").open(newline="") as file:
        reader = csv.DictReader(file, restval="missing")
        table = list(reader)
    assert reader.fieldnames == list(rows[1])
    assert list(rows[1])[:5] == ["job", "prompt.layer", "seed", "state", "reason"]
    for line, row in zip(table, rows, strict=True):
        assert line == {key: str(row.get(key) or "") for key in rows[1]}


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGUSR1, PREEMPTED)])
def test_a_stopped_sweep_is_resumed(
    sweep: FakeSweep, number: signal.Signals, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1)]

    def ending(overrides: dict[str, Any]) -> int | float:
        if Path(overrides["run_dir"]).name != NAMES[1]:
            return 0.75
        os.kill(os.getpid(), number)
        return PREEMPTED

    sweep.ending = ending
    assert sweep(*GRID) == status
    assert "Rerun the same command to resume." in capsys.readouterr().out
    states = ["finished", "interrupted", "waiting", "waiting"]
    assert [row["state"] for row in sweep.rows] == states
    assert [sweep.states[name] for name in NAMES] == list(zip(states, [1, 1, 0, 0], strict=True))
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1)] == handlers
    sweep.ending = failing()
    assert sweep(*GRID) == 0
    assert [Path(o["run_dir"]).name for o in sweep.batches[0]] == NAMES[1:]
    assert [sweep.states[name] for name in NAMES] == [("finished", n) for n in (1, 2, 1, 1)]


def test_jobs_that_a_launcher_loses_are_resumed(
    sweep: FakeSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep.lost = {2}
    assert sweep("seed=1,2,3") == 1
    assert "The launcher failed: RuntimeError('a worker is gone')" in capsys.readouterr().out
    assert [row["state"] for row in sweep.rows] == ["finished", "interrupted", "finished"]
    sweep.lost = set()
    assert sweep("seed=1,2,3") == 0
    assert [overrides["seed"] for overrides in sweep.batches[0]] == [2]


def test_damaged_files_of_jobs_are_refused_by_name(sweep: FakeSweep) -> None:
    sweep(*GRID)
    jobs = sweep.folder / "jobs"
    damaged = [jobs / NAMES[1] / JOB, jobs / NAMES[2] / "metrics.json"]
    for path in damaged:
        path.write_text("{")
    problems = problems_of(lambda: sweep(*GRID))
    assert [problem.where for problem in problems] == list(map(str, damaged))
    assert sweep.batches == []


@pytest.mark.parametrize(
    ("arguments", "fixed", "keys"),
    [
        ("", "", "sweep"),
        ("prompt.layer=3,7,9", "", "prompt.layer prompt.layer"),
        ("data.max_length=64,4096", "", "data.max_length"),
        ("optim.lr=1e-3,-1 prompt.length=0,5", "", "optim.lr prompt.length"),
        ("seed=1,2", "run_dir=there resume=there", "resume run_dir"),
    ],
)
def test_faults_are_reported_before_anything_is_written(
    sweep: FakeSweep, arguments: str, fixed: str, keys: str
) -> None:
    problems = problems_of(lambda: sweep(*arguments.split(), fixed=fixed.split()))
    assert sorted(problem.where for problem in problems) == keys.split()
    assert sweep.batches == []
    assert not sweep.folder.exists()


def test_a_search_needs_optuna(sweep: FakeSweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install '\.\[search\]'"):
        sweep("optim.lr=interval(0,1)", fixed=["sweep.trials=3"])


def refusal(sweep: FakeSweep, *arguments: str, fixed: tuple[str, ...] = ()) -> str:
    """Why the folder of a sweep, which stays as it is, is refused."""
    before = {path: path.stat().st_mtime_ns for path in sweep.folder.rglob("[!.]*")}
    problem = problem_of(lambda: sweep(*arguments, fixed=fixed))
    assert {path: path.stat().st_mtime_ns for path in sweep.folder.rglob("[!.]*")} == before
    assert sweep.batches == []
    return problem.given


def test_a_folder_is_for_one_space_and_one_sweep_at_a_time(sweep: FakeSweep) -> None:
    sweep(*GRID)
    (sweep.folder / "notes.txt").write_text("mine")
    for other in (("seed=1,2",), (*GRID, "optim.lr=0.5"), ("prompt.layer=2,4", "seed=1,3")):
        assert "the results of another space" in refusal(sweep, *other)
    assert "another space" in refusal(sweep, *GRID[:1], fixed=("sweep.trials=2",))
    with FileLock(sweep.folder / ".lock"):
        for fixed in ((), ("overwrite=true",)):
            assert "another sweep is running in" in refusal(sweep, *GRID, fixed=fixed)
    assert sweep("seed=1,3", fixed=["overwrite=true"]) == 0
    assert sweep.states == {"seed-1": ("finished", 1), "seed-3": ("finished", 1)}
    assert (sweep.folder / "notes.txt").read_text() == "mine"
    (sweep.folder / SWEEP).write_text("{")
    assert "JSON" in refusal(sweep, "seed=1,3")


@pytest.mark.parametrize("fixed", [(), ("overwrite=true",)])
def test_a_folder_of_something_else_is_left_alone(sweep: FakeSweep, fixed: tuple[str, ...]) -> None:
    sweep.folder.mkdir()
    (sweep.folder / "thesis.tex").touch()
    assert "thesis.tex" in refusal(sweep, *GRID, fixed=fixed)
    (sweep.folder / "thesis.tex").unlink()
    sweep.folder.rmdir()
    sweep.folder.touch()
    assert "is a file" in refusal(sweep, *GRID, fixed=fixed)


def test_the_default_folder_depends_on_the_space_alone(
    sweep: FakeSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sweep(*GRID, fixed=["sweep.dir=null"]) == 0
    assert len(sweep.batches) == 1
    assert sweep(*GRID, fixed=["sweep.dir=null", "sweep.jobs=2"]) == 0
    assert sweep.batches == []
    sweep(*GRID, "optim.lr=0.5", fixed=["sweep.dir=null"])
    folders = [path.name for path in (tmp_path / "runs").iterdir()]
    assert len(folders) == 2
    assert all(name.startswith("sweep-grid-reviews-masked-") for name in folders)


def test_a_dry_run_lists_the_jobs(sweep: FakeSweep, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("seed=11,12", "optim.lr=0.5,0.25", fixed=["dry_run=true"]) == 0
    printed = capsys.readouterr().out.lstrip()
    assert printed.startswith("4 jobs:\n  seed-11_optim.lr-0.5\n")
    assert f"nothing started. Folder of the sweep: {sweep.folder}" in printed
    assert not sweep.folder.exists()
