"""A job: its process, a shell script here, and the state that its end becomes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lpt.runs.job_record import JobRecord, JobState
from lpt.runs.run_dir import lock_run_dir
from lpt.sweep.jobs import OUTPUT, Job, read_job, request_prune, run_job
from tests.support.processes import DEAF, FINISH, POLITE, SECONDS, alive, shell, until
from tests.support.sweeps import write_metrics

FINISHED, FAILED, INTERRUPTED = JobState.FINISHED, JobState.FAILED, JobState.INTERRUPTED
RUNNING, PRUNED, WAITING = JobState.RUNNING, JobState.PRUNED, JobState.WAITING
CONFIG_ERROR = (
    r"printf 'Found 2 configuration problems; the run was not started.\n1. a\n  hint: y\n2. z\n'"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder of a job."""
    return tmp_path / "job"


def write(folder: Path, script: str, **known: Any) -> None:
    JobRecord(name="job", settings={"seed": "1"}, overrides=[script], **known).write(folder)


def run(folder: Path, script: str, **known: Any) -> JobRecord:
    """The state of a job after it has run."""
    write(folder, script, **known)
    run_job(folder, start=shell)
    return JobRecord.read(folder)


@pytest.mark.parametrize(
    ("script", "state", "status", "reason"),
    [
        (FINISH, FINISHED, 0, None),
        (f"{FINISH}; exit 1", FINISHED, 1, None),  # metrics.json is written last
        ("exit 75", INTERRUPTED, 75, "by a signal from outside"),
        ("kill -TERM $$", INTERRUPTED, -signal.SIGTERM, "by a signal from outside"),
        ("exit 0", FAILED, 0, "exit status 0"),  # without a result
        ("exit 4", FAILED, 4, "exit status 4"),
        ("kill -SEGV $$", FAILED, -signal.SIGSEGV, "killed by SIGSEGV"),
        (f"echo before; {CONFIG_ERROR}; exit 2", FAILED, 2, "1. a hint: y 2. z"),
        (r"printf 'Traceback:\n  File x\nValueError: no\n\n'; exit 1", FAILED, 1, "ValueError: no"),
        (r"printf '  5%%|#  |\r 10%%|## |\r\nOSError: full'; exit 1", FAILED, 1, "OSError: full"),
        (r"printf '\377\376 nan\n'; exit 1", FAILED, 1, "\ufffd\ufffd nan"),
        ("head -c 5000 /dev/zero | tr '\\0' 'x'; exit 1", FAILED, 1, "x" * 1000),
        ("echo '{}' > metrics.json", FAILED, 0, "1. JOB/metrics.json: run_dir: Field required"),
    ],
)
def test_the_end_of_the_process_gives_state_and_reason(
    folder: Path, script: str, state: JobState, status: int, reason: str | None
) -> None:
    job = run(folder, script)
    assert (job.state, job.exit_status, job.attempts) == (state, status, 1)
    assert (job.reason or "").replace(str(folder), "JOB").startswith(reason or "")
    assert (job.reason is None) == (reason is None)
    assert 0 < job.seconds < SECONDS
    assert job.started is not None


def test_a_process_that_cannot_be_started(folder: Path) -> None:
    def start(*_: Any) -> Any:
        raise OSError("Cannot allocate memory")

    write(folder, "true")
    run_job(folder, start=start)
    job = JobRecord.read(folder)
    assert (job.state, job.exit_status, job.attempts) == (FAILED, None, 1)
    assert job.reason == "could not be started: OSError('Cannot allocate memory')"


def test_attempts_and_seconds_add_up(folder: Path) -> None:
    run(folder, "echo ValueError: no; exit 1")
    (folder / "prune").touch()  # of an earlier attempt
    job = run(folder, f"echo second; {FINISH}", attempts=1, seconds=100.0)
    assert (job.state, job.reason, job.attempts) == (FINISHED, None, 2)
    assert 100 < job.seconds < 100 + SECONDS
    first, second = (folder / OUTPUT).read_text().split("\n$ ")[1:]
    assert first.endswith("\nValueError: no\n")
    assert second.endswith("\nsecond\n")


@contextmanager
def started(folder: Path, script: str) -> Iterator[Job]:
    """A job whose script runs; it is killed at the end of the block."""
    write(folder, script)
    job = Job(folder, start=shell)
    try:
        until((folder / "started").exists)
        assert JobRecord.read(folder).state == RUNNING
        yield job
    finally:
        job.kill()
        assert job.wait(SECONDS)


@pytest.mark.parametrize(
    ("script", "state"),
    [
        (POLITE, PRUNED),
        ("touch started; sleep 100", PRUNED),  # SIGTERM before the run has installed its handler
        (DEAF.replace(":", "test ! -e prune"), FAILED),  # by itself
    ],
)
def test_a_job_is_pruned(folder: Path, script: str, state: JobState) -> None:
    with started(folder, script) as job:
        request_prune(folder)
        assert job.wait(SECONDS)
    assert JobRecord.read(folder).state == state


def test_no_process_outlives_its_job(folder: Path) -> None:
    script = "trap 'exit 75' TERM; sleep 100 & echo $! > child; touch started; wait"
    with started(folder, script) as job:
        job.stop()
        assert job.wait(SECONDS)
        until(lambda: not alive(int((folder / "child").read_text())))


def test_an_interrupted_worker_stops_its_job(folder: Path) -> None:
    write(folder, POLITE)

    def interrupt() -> None:
        until((folder / "started").exists)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_job(folder, start=shell)
    thread.join()
    assert JobRecord.read(folder).state == INTERRUPTED


@pytest.mark.parametrize(
    ("state", "finished", "expected"),
    [
        (RUNNING, True, FINISHED),
        (INTERRUPTED, True, FINISHED),
        (RUNNING, False, INTERRUPTED),
        (FAILED, False, FAILED),
        (WAITING, False, WAITING),
        (FINISHED, False, INTERRUPTED),
    ],
)
def test_states_left_by_a_killed_sweep_are_corrected(
    folder: Path, state: JobState, finished: bool, expected: JobState
) -> None:
    write(folder, "true", state=state)
    if finished:
        write_metrics(folder, 0.5)
    job, result = read_job(folder, settle=True)
    assert JobRecord.read(folder) == job
    assert job.state == expected
    assert (result is not None) == finished


def test_a_job_whose_run_is_alive_stays_running(folder: Path) -> None:
    write(folder, "true", state=RUNNING)
    with lock_run_dir(folder, 0):
        assert read_job(folder, settle=True)[0].state == RUNNING
