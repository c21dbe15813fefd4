"""Sweeps as they are typed, with runs that train: failures, kills, Ctrl-C, shared caches."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lpt.sweep.job import DONE, FAILED, INTERRUPTED, RUNNING, WAITING, Job
from tests.support.outcomes import assert_same, outcome
from tests.support.processes import alive, until
from tests.unit.config.test_config import ROOT

SECONDS = 180
CTRL_C = 130


class Sweeps:
    """Starts sweep.py for a short run on the toy data.

    Args:
        fixed: Arguments of all sweeps.
        home: Where their folders are.
    """

    def __init__(self, fixed: list[str], home: Path) -> None:
        self.fixed, self.home = fixed, home
        self.started: list[subprocess.Popen[str]] = []

    def start(self, folder: str, *arguments: str) -> subprocess.Popen[str]:
        """Start one in the background."""
        given = [*self.fixed, f"sweep.dir={self.home / folder}", *arguments]
        cwd = self.home / "cwd"
        cwd.mkdir(exist_ok=True)
        self.started.append(
            subprocess.Popen(
                [sys.executable, str(ROOT / "sweep.py"), "sweep=grid", *given],
                cwd=cwd,
                env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return self.started[-1]

    def end(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        """Exit status and output."""
        said, _ = process.communicate(timeout=SECONDS)
        assert list((self.home / "cwd").iterdir()) == []  # nothing is left where it was started
        return process.returncode, said

    def run(self, folder: str, *arguments: str) -> tuple[int, str]:
        """Run one to its end."""
        return self.end(self.start(folder, *arguments))

    def jobs(self, folder: str) -> dict[str, Job]:
        """Name -> the job."""
        found = [Job.read(file.parent) for file in self.home.glob(f"{folder}/jobs/*/job.json")]
        return {job.name: job for job in found if job is not None}


@pytest.fixture
def sweeps(checkpoints: dict[str, Path], toy_data: Path, tmp_path: Path) -> Iterator[Sweeps]:
    fixed = [
        *("model=local", f"model.path={checkpoints['masked']}", "data.max_length=64"),
        *("task=reviews", f"data.path={toy_data}", "task.labels=['0','1']"),
        *('task.template="{text} It was <mask> ."', "data.batch_size=16"),
        *("trainer.max_steps=4", "trainer.eval_every_steps=2", "strategy.accelerator=cpu"),
        f"cache.dir={tmp_path / 'hidden'}",
    ]
    sweeps = Sweeps(fixed, tmp_path)
    yield sweeps
    for process in sweeps.started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_a_sweep_some_of_whose_jobs_fail(sweeps: Sweeps, tmp_path: Path) -> None:
    space = ("prompt.layer=2,4", "optim.lr=1e-3,1e38", "sweep.jobs=2")
    status, said = sweeps.run("sweep", *space)
    assert status == 1, said
    folder = tmp_path / "sweep"
    assert "2 finished, 2 failed; the record is in" in said
    assert (folder / "report" / "index.html").is_file()
    jobs = sweeps.jobs("sweep")
    first, bad, other, also_bad = (
        f"prompt.layer-{layer}_optim.lr-{rate}" for layer in (2, 4) for rate in ("0.001", "1e+38")
    )
    states = {first: (DONE, 0), bad: (FAILED, 1), other: (DONE, 0), also_bad: (FAILED, 1)}
    assert {name: (job.state, job.exit_status) for name, job in jobs.items()} == states
    reason = jobs[bad].reason
    assert reason is not None
    assert reason.startswith("RuntimeError: ")
    assert "overflow" in reason
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert {row["job"]: row["reason"] for row in rows} == {
        **{first: None, bad: reason, other: None, also_bad: reason}
    }
    # The first one has made the hidden states of all, once for each set and layer.
    filling = [n for n, job in jobs.items() if any("cache.layers" in a for a in job.arguments)]
    assert filling == [first]
    for name in (first, other):
        cache = (jobs[name].metrics or {})["cache"]
        assert (cache["sets"], cache["why_not"]) == (["dev", "test", "train"], None)
    assert "Predicting" in (jobs[first].folder / "output.txt").read_text()
    assert "Predicting" not in (jobs[other].folder / "output.txt").read_text()

    status, said = sweeps.run("sweep", *space)
    assert status == 1, said
    assert "2 of 4 jobs have ended before: 2 finished." in said
    attempts = {name: job.attempts for name, job in sweeps.jobs("sweep").items()}
    assert attempts == {first: 1, bad: 2, other: 1, also_bad: 2}


LONG = ("seed=1,2", "trainer.max_steps=400", "trainer.eval_every_steps=20", "prompt.dropout=0.2")


def steps(folder: Path) -> int:
    """How far a run says that it is."""
    file = folder / "progress.json"
    history = json.loads(file.read_text())["dev_history"] if file.exists() else []
    return history[-1]["step"] if history else 0


def children(pid: int) -> set[int]:
    """Processes below one, however far."""
    below = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == pid:
            child = int(stat.parent.name)
            below |= {child} | children(child)
    return below


def stopped(
    sweeps: Sweeps, home: Path, number: signal.Signals, begun: Callable[[], Any]
) -> tuple[int, str]:
    """Start a sweep and send it a signal when it has begun; all of its processes end."""
    process = sweeps.start(home.name, *LONG)
    until(lambda: begun() or process.poll() is not None, SECONDS)
    below = children(process.pid)
    assert len(below) >= 2  # what forks the jobs off, and a job
    os.kill(process.pid, number)
    status, said = sweeps.end(process)
    until(lambda: not any(map(alive, below)))
    return status, said


@pytest.mark.slow
def test_a_killed_sweep_ends_as_if_nothing_had_happened(sweeps: Sweeps, tmp_path: Path) -> None:
    home = tmp_path / "killed"
    jobs = home / "jobs"
    status, _ = stopped(sweeps, home, signal.SIGKILL, lambda: 0 < steps(jobs / "seed-1") < 200)
    assert status == -signal.SIGKILL
    assert sweeps.jobs("killed")["seed-1"].state == RUNNING  # nobody was left to say otherwise
    assert sweeps.jobs("killed")["seed-1"].metrics is None

    status, said = sweeps.run("killed", *LONG)
    assert status == 0, said
    found = {name: (job.state, job.attempts) for name, job in sweeps.jobs("killed").items()}
    assert found == {"seed-1": (DONE, 2), "seed-2": (DONE, 1)}
    assert "Going on at step" in (jobs / "seed-1" / "output.txt").read_text()

    status, said = sweeps.run("whole", *LONG)
    assert status == 0, said
    for name in ("seed-1", "seed-2"):
        assert outcome(jobs / name)["metrics"]["dev_history"]
        assert_same(jobs / name, tmp_path / "whole" / "jobs" / name)


@pytest.mark.parametrize(
    ("number", "expected"),
    [(signal.SIGINT, CTRL_C), pytest.param(signal.SIGTERM, 75, marks=pytest.mark.slow)],
)
def test_a_sweep_that_is_asked_to_stop(
    sweeps: Sweeps, tmp_path: Path, number: signal.Signals, expected: int
) -> None:
    home = tmp_path / "stopped"
    status, said = stopped(sweeps, home, number, lambda: steps(home / "jobs" / "seed-1") > 0)
    assert status == expected, said
    assert "Stopped; the same command goes on from here." in said
    assert "Traceback" not in said
    found = {n: (j.state, j.exit_status) for n, j in sweeps.jobs("stopped").items()}
    assert found == {"seed-1": (INTERRUPTED, 75), "seed-2": (WAITING, None)}
    assert not (home / "report").exists()


def test_bad_input_of_every_job_ends_with_status_2(sweeps: Sweeps, tmp_path: Path) -> None:
    status, said = sweeps.run("bad", "prompt.layer=2,9,8", "seed=1,2")
    assert status == 2
    assert said.startswith("2 problems found; nothing was started.\n1. prompt.layer: 9")
    assert "2. prompt.layer: 8" in said
    assert not (tmp_path / "bad").exists()
