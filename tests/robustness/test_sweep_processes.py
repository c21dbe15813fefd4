"""Sweeps as typed on the command line, with runs that train: failures, kills, Ctrl-C, resuming."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lpt.errors import CTRL_C, FAILURE, PREEMPTED, USAGE_ERROR
from lpt.runs.job_record import JOB, JobRecord, JobState
from tests.conftest import toy_overrides
from tests.support.outcomes import assert_same
from tests.support.processes import SWEEP, descendants, finished, started

LONG = ("seed=1,2", "trainer.max_steps=200", "trainer.eval_every_steps=10", "prompt.dropout=0.2")
Arguments = Callable[..., list[str]]


@pytest.fixture
def arguments(checkpoints: dict[str, Path], toy_data: Path, tmp_path: Path) -> Arguments:
    """A sweep on the toy data, in a folder of that name."""

    def make(name: str, *more: str) -> list[str]:
        given = (f"cache.dir={tmp_path / 'cache'}", f"sweep.dir={tmp_path / name}", *more)
        return ["sweep=grid", *toy_overrides(checkpoints, toy_data, "masked", *given)]

    return make


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Path]:
    """What a sweep prints: all that it leaves where it was started."""
    output = tmp_path / "cwd" / "output.txt"
    yield output
    assert list(output.parent.iterdir()) == [output]


def jobs_of(sweep: Path) -> dict[str, JobRecord]:
    """Name -> the job."""
    folders = (file.parent for file in sweep.glob(f"jobs/*/{JOB}"))
    return {job.name: job for job in map(JobRecord.read, folders)}


def test_a_sweep_with_failing_jobs_and_its_own_config_files(
    arguments: Arguments, output: Path, tmp_path: Path
) -> None:
    group = tmp_path / "own" / "optim"
    group.mkdir(parents=True)
    for name, rate in (("good", "1e-3"), ("bad", "1e38")):
        (group / f"{name}.yaml").write_text(f"defaults: [adamw]\nlr: {rate}\n")
    space = ("prompt.layer=2,4", "optim=good,bad", "sweep.jobs=2")
    own = (*SWEEP, f"--config-dir={tmp_path / 'own'}")
    printed = finished(arguments("sweep", *space), output, own, FAILURE)
    assert "2 finished, 2 failed; results:" in printed
    folder = tmp_path / "sweep"
    assert (folder / "report" / "index.html").is_file()
    jobs = jobs_of(folder)
    first, bad, other, also_bad = (
        f"prompt.layer-{layer}_optim-{name}" for layer in (2, 4) for name in ("good", "bad")
    )
    good, failed = (JobState.FINISHED, 0), (JobState.FAILED, 1)
    assert {name: (job.state, job.exit_status) for name, job in jobs.items()} == {
        **{first: good, bad: failed, other: good, also_bad: failed}
    }
    reason = jobs[bad].reason
    assert reason is not None
    assert "overflow" in reason
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert [row["reason"] for row in rows] == [None, reason, None, reason]
    # The first one has computed the hidden states of all.
    filling = [n for n, job in jobs.items() if any("cache.layers" in a for a in job.overrides)]
    assert filling == [first]


def signalled(arguments: list[str], output: Path, number: signal.Signals) -> tuple[int, str]:
    """Send a sweep a signal while its first job trains; all of its processes end."""
    with started(arguments, output, SWEEP) as sweep:
        sweep.wait_for_evaluation(sweep.folder / "jobs" / "seed-1")
        assert len(descendants(sweep.process.pid)) >= 2  # the fork server and a job
        os.kill(sweep.process.pid, number)
        return sweep.end(), sweep.text


@pytest.mark.slow
def test_a_killed_sweep_is_resumed_with_the_same_results(
    arguments: Arguments, output: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    first = folder / "jobs" / "seed-1"
    status, _ = signalled(arguments("killed", *LONG), output, signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert jobs_of(folder)["seed-1"].state == JobState.RUNNING  # nobody could change it
    assert not (first / "metrics.json").exists()

    finished(arguments("killed", *LONG), output, SWEEP)
    states = {name: (job.state, job.attempts) for name, job in jobs_of(folder).items()}
    assert states == {"seed-1": (JobState.FINISHED, 2), "seed-2": (JobState.FINISHED, 1)}
    assert "Resuming from" in (first / "output.txt").read_text()

    finished(arguments("undisturbed", *LONG), output, SWEEP)
    for name in ("seed-1", "seed-2"):
        assert_same(folder / "jobs" / name, tmp_path / "undisturbed" / "jobs" / name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, CTRL_C), (signal.SIGTERM, PREEMPTED)]
)
def test_a_stopped_sweep_has_its_jobs_save_their_state(
    arguments: Arguments, output: Path, tmp_path: Path, number: signal.Signals, expected: int
) -> None:
    status, printed = signalled(arguments("stopped", *LONG), output, number)
    assert status == expected, printed
    assert "Stopped. Rerun the same command to resume." in printed
    assert "Traceback" not in printed
    jobs = jobs_of(tmp_path / "stopped").items()
    assert {name: (job.state, job.exit_status) for name, job in jobs} == {
        "seed-1": (JobState.INTERRUPTED, PREEMPTED),
        "seed-2": (JobState.WAITING, None),
    }
    assert not (tmp_path / "stopped" / "report").exists()


def test_faults_of_all_jobs_are_reported(
    arguments: Arguments, output: Path, tmp_path: Path
) -> None:
    given = arguments("bad", "prompt.layer=2,9,8", "seed=1,2")
    printed = finished(given, output, SWEEP, USAGE_ERROR)
    assert "1. prompt.layer: 9" in printed
    assert "2. prompt.layer: 8" in printed
    assert not (tmp_path / "bad").exists()
