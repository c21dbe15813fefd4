"""A sweep from its command to its record, with jobs that are made up."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from lpt.errors import PREEMPTED, ConfigError
from lpt.sweep.job import DONE, FAILED, INTERRUPTED, PRUNED, RUNNING, Job
from tests.support.sweeps import MadeUp, write_metrics

GRID = ("prompt.layer=2,4", "seed=1,2")
NAMES = [f"prompt.layer-{layer}_seed-{seed}" for layer in (2, 4) for seed in (1, 2)]


@pytest.fixture
def sweep(checkpoints: dict[str, Path], toy_data: Path, tmp_path: Path) -> MadeUp:
    fixed = (
        *("model=local", f"model.path={checkpoints['masked']}", "data.max_length=64"),
        *("task=reviews", f"data.path={toy_data}", "task.labels=['0','1']"),
        *("task.template='{text} It was <mask> .'", "strategy.accelerator=cpu"),
    )
    return MadeUp(fixed, tmp_path / "sweep")


def failing(*seeds: int, status: int = 1) -> Callable[[dict[str, Any]], int | float]:
    return lambda given: status if given["seed"] in seeds else 0.75


def test_jobs_that_a_launcher_loses_are_recorded(sweep: MadeUp, tmp_path: Path) -> None:
    sweep.lost = {2}
    assert sweep("seed=1,2,3") == 1
    assert {name: job.state for name, job in sweep.jobs.items()} == {
        **{"seed-1": DONE, "seed-2": FAILED, "seed-3": DONE}
    }
    reason = "lost by the launcher: RuntimeError('a worker is gone')"
    assert [row["reason"] for row in rows(tmp_path / "sweep")] == [None, reason, None]
    sweep.lost = set()
    assert sweep("seed=1,2,3") == 0


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_every_point_is_a_job(sweep: MadeUp, tmp_path: Path) -> None:
    assert sweep(*GRID) == 0
    [batch] = sweep.batches
    folders = [tmp_path / "sweep" / "jobs" / name for name in NAMES]
    assert [Path(given["run_dir"]) for given in batch] == folders
    assert [(given["prompt.layer"], given["seed"]) for given in batch] == [
        *((2, 1), (2, 2), (4, 1), (4, 2))
    ]
    assert [given.get("cache.layers") for given in batch] == [[2, 4], None, None, None]
    assert {given["resume"] for given in batch} == {"auto"}
    assert not any(key.startswith("sweep") for given in batch for key in given)
    assert sweep.states == dict.fromkeys(NAMES, (DONE, 1))
    job = sweep.jobs[NAMES[2]]
    assert job.settings == {"prompt.layer": "4", "seed": "1"}
    assert (job.devices, job.gpu) == (1, False)
    known = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert known["space"] == {"prompt.layer": ["2", "4"], "seed": ["1", "2"]}
    assert "task=reviews" in known["fixed"]


def test_what_has_ended_is_not_run_again_and_what_has_failed_is(sweep: MadeUp) -> None:
    sweep.ending = failing(2)
    assert sweep(*GRID) == 1
    ended = dict(zip(NAMES, [(DONE, 1), (FAILED, 1)] * 2, strict=True))
    assert sweep.states == ended
    assert {sweep.jobs[name].reason for name in NAMES[1::2]} == {"RuntimeError: made up"}
    assert sweep(*GRID, base=["sweep.retry=false"]) == 1
    assert sweep.batches == []
    assert sweep.states == ended
    sweep.ending = failing()
    assert sweep(*GRID) == 0
    assert [given["cache.layers"] for given in sweep.batches[0][:1]] == [[2, 4]]
    assert len(sweep.batches[0]) == 2
    assert sweep.states == dict(zip(NAMES, [(DONE, 1), (DONE, 2)] * 2, strict=True))
    assert {job.reason for job in sweep.jobs.values()} == {None}
    assert sweep(*GRID) == 0
    assert sweep.batches == []


def test_the_record_has_a_row_for_each_job(sweep: MadeUp, tmp_path: Path) -> None:
    sweep.ending = failing(1)  # so that the first row is a short one
    sweep(*GRID)
    found = rows(tmp_path / "sweep")
    assert [row["job"] for row in found] == NAMES
    assert [row["state"] for row in found] == [FAILED, DONE] * 2
    assert [row["reason"] for row in found] == ["RuntimeError: made up", None] * 2
    assert [row.get("final/dev/accuracy") for row in found] == [None, 0.75] * 2
    for row in found:
        assert row["command"].startswith("python train.py model=local ")
        assert row["run_dir"] == str(tmp_path / "sweep" / "jobs" / row["job"])
        assert row["attempts"] == 1
    with (tmp_path / "sweep" / "results.csv").open(newline="") as file:
        reader = csv.DictReader(file)
        table = list(reader)
    assert reader.fieldnames == list(found[1])
    assert list(found[1])[:5] == ["job", "prompt.layer", "seed", "state", "reason"]
    for line, row in zip(table, found, strict=True):
        told = {key: "" if value is None else str(value) for key, value in row.items()}
        assert line == dict.fromkeys(reader.fieldnames or (), "") | told


@pytest.mark.parametrize(
    ("stop", "status"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGINT), 130),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), PREEMPTED),
        (lambda: os.kill(os.getpid(), signal.SIGUSR1), PREEMPTED),
    ],
)
def test_a_sweep_that_is_stopped_goes_on(
    sweep: MadeUp, stop: Callable[[], None], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1)]

    def second(given: dict[str, Any]) -> float:
        if (given["prompt.layer"], given["seed"]) == (2, 2):
            stop()
        return 0.75

    sweep.ending = second
    assert sweep(*GRID) == status
    assert sweep.states == dict(
        zip(NAMES, [(DONE, 1), (INTERRUPTED, 1)], strict=False)
    ) | dict.fromkeys(NAMES[2:], ("waiting", 0))
    assert "the same command goes on" in capsys.readouterr().out
    assert [row["state"] for row in rows(sweep.folder)] == [DONE, INTERRUPTED, *["waiting"] * 2]
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1)] == before
    sweep.ending = failing()
    assert sweep(*GRID) == 0
    assert [Path(given["run_dir"]).name for given in sweep.batches[0]] == NAMES[1:]
    assert sweep.states == dict(zip(NAMES, [(DONE, n) for n in (1, 2, 1, 1)], strict=True))


def test_jobs_of_a_sweep_that_was_killed(sweep: MadeUp) -> None:
    sweep(*GRID)
    finished, running, *_ = (sweep.jobs[name] for name in NAMES)
    (running.folder / "metrics.json").unlink()
    for job in (finished, running):
        job.state = RUNNING
        job.write()
    assert sweep(*GRID) == 0
    assert [Path(given["run_dir"]).name for given in sweep.batches[0]] == [NAMES[1]]
    assert {state for state, _ in sweep.states.values()} == {DONE}


@pytest.mark.parametrize(
    ("arguments", "base", "wheres"),
    [
        ((), (), ["sweep"]),
        (("seed=1,1", "optim.lr=interval(1,2)"), (), ["seed", "optim.lr"]),
        (("prompt.layer=3,7,9",), (), ["prompt.layer"] * 2),
        (("optim.lr=1e-3,-1", "prompt.length=5,0"), (), ["optim.lr", "prompt.length"]),
        (("data.max_length=64,4096",), (), ["data.max_length"]),
        (GRID, ("run_dir=there", "resume=there"), ["run_dir", "resume"]),
        (("seed=1,2", "optim.lr=1e-3,1e-2"), ("sweep.trials=3",), ["seed"]),
        (("optim.lr=tag(log,interval(0,1))",), ("sweep.trials=3",), ["optim.lr"]),
    ],
)
def test_bad_input_is_told_before_anything_is_written(
    sweep: MadeUp, tmp_path: Path, arguments: Any, base: Any, wheres: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        sweep(*arguments, base=base)
    assert sorted(problem.where for problem in caught.value.problems) == sorted(wheres)
    assert sweep.batches == []
    assert not (tmp_path / "sweep").exists()


def refused(sweep: MadeUp, *arguments: str, base: tuple[str, ...] = ()) -> str:
    """What is said to be wrong with the sweep's folder, which stays as it is."""
    before = {path: path.stat().st_mtime_ns for path in sweep.folder.rglob("*")}
    with pytest.raises(ConfigError) as caught:
        sweep(*arguments, base=base)
    assert {path: path.stat().st_mtime_ns for path in sweep.folder.rglob("*")} == before
    assert sweep.batches == []
    [problem] = caught.value.problems
    return problem.given


def test_a_folder_is_for_one_space(sweep: MadeUp, tmp_path: Path) -> None:
    sweep(*GRID)
    (sweep.folder / "notes.txt").write_text("mine")
    for other in (("seed=1,2",), (*GRID, "optim.lr=0.5"), ("prompt.layer=2,4", "seed=1,3")):
        assert "holds the results of another space" in refused(sweep, *other)
    assert "another space" in refused(sweep, *GRID[:1], base=("sweep.trials=2",))
    assert sweep("seed=1,3", base=["overwrite=true"]) == 0
    assert sweep.states == {"seed-1": (DONE, 1), "seed-3": (DONE, 1)}
    assert (sweep.folder / "notes.txt").read_text() == "mine"
    (sweep.folder / "sweep.json").write_text("{")
    with pytest.raises(ConfigError, match=r"sweep\.json: cannot be read .*"):
        sweep("seed=1,3")


def test_a_folder_of_something_else_is_left_alone(sweep: MadeUp) -> None:
    sweep.folder.mkdir()
    (sweep.folder / "thesis.tex").touch()
    assert "thesis.tex" in refused(sweep, *GRID)
    assert "thesis.tex" in refused(sweep, *GRID, base=("overwrite=true",))
    (sweep.folder / "thesis.tex").unlink()
    sweep.folder.rmdir()
    sweep.folder.touch()
    assert "is a file" in refused(sweep, *GRID)


@pytest.mark.parametrize("base", [(), ("overwrite=true",)])
def test_two_sweeps_in_one_folder(sweep: MadeUp, base: tuple[str, ...]) -> None:
    assert sweep(*GRID) == 0
    sweep.batches.clear()
    with FileLock(sweep.folder / ".lock"):
        given = refused(sweep, *GRID, base=base)
    assert given == f"another sweep is running in {sweep.folder}"
    assert sweep(*GRID) == 0


def test_the_folder_is_the_same_for_the_same_command(
    sweep: MadeUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    home = ["sweep.dir=null"]
    for turn in range(2):
        assert sweep(*GRID, base=home) == 0
        assert len(sweep.batches) == 1 - turn
    sweep(*GRID, base=[*home, "sweep.jobs=2"])
    assert sweep.batches == []
    sweep(*GRID, "optim.lr=0.5", base=home)
    assert len(sweep.batches) == 1
    folders = [path.name for path in (tmp_path / "runs").iterdir()]
    assert len(folders) == 2
    assert all(name.startswith("sweep-grid-reviews-masked-") for name in folders)


def test_a_dry_run_shows_the_jobs(sweep: MadeUp, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("seed=11,12", "optim.lr=0.5,0.25", base=["dry_run=true"]) == 0
    said = capsys.readouterr().out
    assert "4 jobs checked, nothing started" in said
    assert all(text in said for text in ("seed", "optim.lr", "11", "12", "0.5", "0.25"))
    assert not sweep.folder.exists()


def test_a_pruned_job_of_a_grid_has_ended(sweep: MadeUp) -> None:
    sweep(*GRID)
    job = sweep.jobs[NAMES[0]]
    (job.folder / "metrics.json").unlink()
    job.state = PRUNED
    job.write()
    assert sweep(*GRID) == 0
    assert sweep.batches == []
    write_metrics(job.folder, 0.5)
    assert isinstance(Job.read(job.folder), Job)
