"""Sweeps as typed on the command line, with runs that train: failures, kills, Ctrl-C, resuming."""

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

from lpt.runs.job_record import JOB, JobRecord, JobState
from tests.conftest import toy_overrides
from tests.support.outcomes import assert_same
from tests.support.processes import alive, until

SECONDS = 180
LONG = ("seed=1,2", "trainer.max_steps=200", "trainer.eval_every_steps=10", "prompt.dropout=0.2")


class Sweeps:
    """Starts sweeps on the toy data.

    Args:
        overrides: Overrides of all sweeps.
        home: Where their folders are.
    """

    def __init__(self, overrides: list[str], home: Path) -> None:
        self.overrides, self.home = overrides, home
        self.started: list[subprocess.Popen[str]] = []
        self.cwd = home / "cwd"
        self.cwd.mkdir()

    def start(self, folder: str, *arguments: str) -> subprocess.Popen[str]:
        """Start one in the background."""
        flags = [text for text in arguments if text.startswith("-")]  # before all overrides
        overrides = [text for text in arguments if text not in flags]
        command = [sys.executable, "-m", "lpt.cli.sweep", *flags, "sweep=grid", *self.overrides]
        process = subprocess.Popen(
            [*command, f"sweep.dir={self.home / folder}", *overrides],
            cwd=self.cwd,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.started.append(process)
        return process

    def end(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        """Exit status and output."""
        output, _ = process.communicate(timeout=SECONDS)
        assert list(self.cwd.iterdir()) == []  # nothing is left where it was started
        return process.returncode, output

    def run(self, folder: str, *arguments: str) -> tuple[int, str]:
        """Run one to its end."""
        return self.end(self.start(folder, *arguments))

    def jobs(self, folder: str) -> dict[str, JobRecord]:
        """Name -> the job."""
        folders = (file.parent for file in self.home.glob(f"{folder}/jobs/*/{JOB}"))
        return {job.name: job for job in map(JobRecord.read, folders)}


@pytest.fixture
def sweeps(checkpoints: dict[str, Path], toy_data: Path, tmp_path: Path) -> Iterator[Sweeps]:
    overrides = [*toy_overrides(checkpoints, toy_data, "masked"), f"cache.dir={tmp_path / 'cache'}"]
    sweeps = Sweeps([text for text in overrides if "prompt.layer" not in text], tmp_path)
    yield sweeps
    for process in sweeps.started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_a_sweep_with_failing_jobs_and_its_own_config_files(sweeps: Sweeps, tmp_path: Path) -> None:
    group = tmp_path / "own" / "optim"
    group.mkdir(parents=True)
    for name, rate in (("good", "1e-3"), ("bad", "1e38")):
        (group / f"{name}.yaml").write_text(f"defaults: [adamw]\nlr: {rate}\n")
    space = ("prompt.layer=2,4", "optim=good,bad", "sweep.jobs=2")
    status, output = sweeps.run("sweep", f"--config-dir={tmp_path / 'own'}", *space)
    assert status == 1, output
    assert "2 finished, 2 failed; results:" in output
    folder = tmp_path / "sweep"
    assert (folder / "report" / "index.html").is_file()
    jobs = sweeps.jobs("sweep")
    first, bad, other, also_bad = (
        f"prompt.layer-{layer}_optim-{name}" for layer in (2, 4) for name in ("good", "bad")
    )
    finished, failed = (JobState.FINISHED, 0), (JobState.FAILED, 1)
    assert {name: (job.state, job.exit_status) for name, job in jobs.items()} == {
        **{first: finished, bad: failed, other: finished, also_bad: failed}
    }
    reason = jobs[bad].reason
    assert reason is not None
    assert "overflow" in reason
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert [row["reason"] for row in rows] == [None, reason, None, reason]
    # The first one has computed the hidden states of all.
    filling = [n for n, job in jobs.items() if any("cache.layers" in a for a in job.overrides)]
    assert filling == [first]
    assert "Predicting" in (folder / "jobs" / first / "output.txt").read_text()
    assert "Predicting" not in (folder / "jobs" / other / "output.txt").read_text()


def steps(folder: Path) -> int:
    """Optimizer steps of a run at its last evaluation."""
    file = folder / "progress.json"
    history = json.loads(file.read_text())["dev_history"] if file.exists() else []
    return history[-1]["step"] if history else 0


def children(pid: int) -> set[int]:
    """All processes below one."""
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


def signalled(
    sweeps: Sweeps, folder: Path, number: signal.Signals, ready: Callable[[], Any]
) -> tuple[int, str]:
    """Start a sweep and send it a signal when it is ready; all of its processes end."""
    process = sweeps.start(folder.name, *LONG)
    until(lambda: ready() or process.poll() is not None, SECONDS)
    below = children(process.pid)
    assert len(below) >= 2  # the fork server and a job
    os.kill(process.pid, number)
    status, output = sweeps.end(process)
    until(lambda: not any(map(alive, below)))
    return status, output


@pytest.mark.slow
def test_a_killed_sweep_is_resumed_with_the_same_results(sweeps: Sweeps, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    first = folder / "jobs" / "seed-1"
    status, _ = signalled(sweeps, folder, signal.SIGKILL, lambda: steps(first) > 0)
    assert status == -signal.SIGKILL
    assert sweeps.jobs("killed")["seed-1"].state == JobState.RUNNING  # nobody could change it
    assert not (first / "metrics.json").exists()

    status, output = sweeps.run("killed", *LONG)
    assert status == 0, output
    states = {name: (job.state, job.attempts) for name, job in sweeps.jobs("killed").items()}
    assert states == {"seed-1": (JobState.FINISHED, 2), "seed-2": (JobState.FINISHED, 1)}
    assert "Resuming from" in (first / "output.txt").read_text()

    status, output = sweeps.run("undisturbed", *LONG)
    assert status == 0, output
    for name in ("seed-1", "seed-2"):
        assert_same(folder / "jobs" / name, tmp_path / "undisturbed" / "jobs" / name)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_stopped_sweep_has_its_jobs_save_their_state(
    sweeps: Sweeps, tmp_path: Path, number: signal.Signals, expected: int
) -> None:
    folder = tmp_path / "stopped"
    status, output = signalled(sweeps, folder, number, lambda: steps(folder / "jobs/seed-1") > 0)
    assert status == expected, output
    assert "Stopped. Rerun the same command to resume." in output
    assert "Traceback" not in output
    found = {n: (j.state, j.exit_status) for n, j in sweeps.jobs("stopped").items()}
    assert found == {"seed-1": (JobState.INTERRUPTED, 75), "seed-2": (JobState.WAITING, None)}
    assert not (folder / "report").exists()


def test_faults_of_all_jobs_are_reported_with_status_2(sweeps: Sweeps, tmp_path: Path) -> None:
    status, output = sweeps.run("bad", "prompt.layer=2,9,8", "seed=1,2")
    assert status == 2
    assert "1. prompt.layer: 9" in output
    assert "2. prompt.layer: 8" in output
    assert not (tmp_path / "bad").exists()
