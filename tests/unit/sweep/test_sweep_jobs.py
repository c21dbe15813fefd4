"""Jobs of a sweep: processes, what becomes of them, and where they run. Nothing trains here."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from lpt.runs.run_dir import lock_run_dir
from lpt.sweep.job import (
    DONE,
    FAILED,
    INTERRUPTED,
    JOB,
    OUTPUT,
    PRUNED,
    RUNNING,
    WAITING,
    Job,
    Stop,
    ask_to_prune,
    run_job,
)
from lpt.sweep.process import ask_to_end, kill
from tests import runs
from tests.support.processes import FINISH, SECONDS, alive, shell, until


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Job]:
    """A job that runs a shell script, written to its folder."""

    def make(script: str, name: str = "a", **known: Any) -> Job:
        job = Job(name, {"seed": "1"}, [script], folder=tmp_path / name, **known)
        job.write()
        return job

    return make


Make = Callable[..., Job]


def ran(job: Job, **given: Any) -> Job:
    """The job after it has run, which is what its folder says."""
    found = run_job(job.folder, **{"start": shell, **given})
    assert Job.read(job.folder) == found
    return found


def test_a_job_is_read_as_it_was_written(make: Make, tmp_path: Path) -> None:
    job = make("x=1", "b", devices=2, gpu=False, reason='it\'s "so"', seconds=1.5, attempts=3)
    found = Job.read(tmp_path / "b")
    assert found == job
    assert found is not None
    assert found.folder == tmp_path / "b"
    assert found.metrics is None
    assert [path.name for path in job.folder.iterdir()] == [JOB]
    job.arguments = ["prompt.layer=3", "task.template='a b'"]
    expected = "python train.py prompt.layer=3 'task.template='\"'\"'a b'\"'\"''"
    assert job.command == expected


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "3", "{}", '{"name": "a"}', '{"command": "x", "nme": 1}']
)
def test_what_is_no_job_is_none(tmp_path: Path, content: str) -> None:
    assert Job.read(tmp_path / "nowhere") is None
    (tmp_path / JOB).write_text(content)
    assert Job.read(tmp_path) is None


@pytest.mark.parametrize(
    ("script", "state", "status"),
    [
        (FINISH, DONE, 0),
        (f"{FINISH}; exit 1", DONE, 1),  # that file is the last thing of a run
        ("exit 0", FAILED, 0),  # it left nothing
        ("echo no; exit 3", FAILED, 3),
        ("exit 75", INTERRUPTED, 75),
        (f"{FINISH}; exit 75", DONE, 75),
        ("kill -TERM $$", INTERRUPTED, -signal.SIGTERM),
        ("touch prune; exit 75", PRUNED, 75),
        ("touch prune; kill -TERM $$", PRUNED, -signal.SIGTERM),
        ("touch prune; kill -KILL $$", FAILED, -signal.SIGKILL),
        (f"touch prune; {FINISH}", DONE, 0),
    ],
)
def test_the_end_of_a_process_is_the_state_of_its_job(
    make: Make, script: str, state: str, status: int
) -> None:
    def over(*given: Any) -> Any:
        process = shell(*given)
        process.wait()  # so that nobody asks it to end before it does
        return process

    job = ran(make(script), device="CPU", start=over)
    assert (job.state, job.exit_status, job.attempts, job.device) == (state, status, 1, "CPU")
    assert (job.reason is not None) == (state in (FAILED, INTERRUPTED))
    assert 0 < job.seconds < SECONDS
    assert job.started is not None


CONFIG_ERROR = (
    r"""printf '2 problems found; nothing was started.\n1. seed: x\n     hint: y\n2. z\n'"""
)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (f"echo before; {CONFIG_ERROR}; exit 2", "1. seed: x hint: y 2. z"),
        (r"printf 'Traceback:\n  File x\nValueError: no\n\n'; exit 1", "ValueError: no"),
        (r"printf '  5%%|#  |\r 10%%|## |\r\nOSError: full'; exit 1", "OSError: full"),
        (r"printf 'Epoch 0: 5%%\rEpoch 1: 7%%\r'; exit 1", "Epoch 1: 7%"),
        (r"printf '\377\376 nan\n'; exit 1", "\ufffd\ufffd nan"),
        ("kill -SEGV $$", "killed by SIGSEGV"),
        ("kill -35 $$", "killed by signal 35"),  # a real-time one
        ("echo '{}' > metrics.json", "1. JOB/metrics.json: no task; no run_dir; no model; no"),
        ("kill -KILL $$", "killed by SIGKILL, perhaps for want of memory"),
        ("head -c 100000 /dev/zero | tr '\\0' 'x'; echo; echo last; exit 1", "last"),
        ("head -c 5000 /dev/zero | tr '\\0' 'x'; exit 1", "x" * 1000),
    ],
)
def test_the_reason_of_a_failure(make: Make, script: str, reason: str) -> None:
    job = ran(make(script))
    assert job.state == FAILED
    assert (job.reason or "").replace(str(job.folder), "JOB")[: len(reason)] == reason
    assert "JOB" in reason or job.reason == reason


def test_a_process_that_cannot_be_started(make: Make) -> None:
    def start(*_: Any) -> Any:
        raise OSError("Cannot allocate memory")

    job = ran(make("true"), start=start)
    assert (job.state, job.exit_status, job.attempts) == (FAILED, None, 1)
    assert job.reason == "could not be started: OSError('Cannot allocate memory')"
    again = ran(make(FINISH, attempts=job.attempts, state=FAILED, reason=job.reason))
    assert (again.state, again.reason, again.attempts) == (DONE, None, 2)


def test_attempts_add_up(make: Make) -> None:
    make("echo first; exit 75")
    job = make("echo second; " + FINISH, attempts=1, seconds=100.0, state=INTERRUPTED)
    (job.folder / "prune").touch()  # asked for before
    job = ran(job)
    assert (job.state, job.attempts) == (DONE, 2)
    assert 100 < job.seconds < 100 + SECONDS
    assert (job.folder / OUTPUT).read_text() == f"\n$ {job.command}\nsecond\n"
    assert ran(job) == job  # a finished one is left alone


def test_a_job_that_is_not_to_start_is_left_as_it_is(make: Make) -> None:
    stop = Stop()
    stop.asked.set()
    job = ran(make(FINISH), stop=stop)
    assert (job.state, job.attempts) == (WAITING, 0)
    assert [path.name for path in job.folder.iterdir()] == [JOB]


@pytest.fixture
def beside() -> Iterator[Callable[..., Callable[[], Job]]]:
    """Run a job in a thread; gives what waits for it."""
    threads: list[threading.Thread] = []

    def start(job: Job, **given: Any) -> Callable[[], Job]:
        ended: SimpleQueue[Job] = SimpleQueue()
        threads.append(threading.Thread(target=lambda: ended.put(ran(job, **given))))
        threads[-1].start()
        return lambda: ended.get(timeout=SECONDS)

    yield start
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive()


Beside = Callable[..., Callable[[], Job]]
# As a run: ends by itself, with its state saved, when asked.
POLITE = "trap 'exit 75' TERM; touch begun; while :; do sleep 0.02; done"
DEAF = "trap '' TERM; touch begun; while :; do sleep 0.02; done"


def begin(job: Job, beside: Beside, **given: Any) -> Callable[[], Job]:
    """Run a job beside, as far as that its script has begun."""
    end = beside(job, **given)
    until((job.folder / "begun").exists)
    found = Job.read(job.folder)
    assert found is not None
    assert (found.state, found.attempts) == (RUNNING, 1)
    return end


def test_a_job_is_stopped_politely(make: Make, beside: Beside) -> None:
    stop = Stop()
    end = begin(make(POLITE), beside, stop=stop)
    stop.asked.set()
    ended = end()
    assert (ended.state, ended.exit_status, ended.reason) == (INTERRUPTED, 75, None)


def test_a_job_that_does_not_listen_is_killed(make: Make, beside: Beside) -> None:
    stop = Stop()
    job = make(DEAF)
    end = begin(job, beside, stop=stop)
    stop.asked.set()
    stop.at_once.set()
    ended = end()
    assert (ended.state, ended.exit_status) == (INTERRUPTED, -signal.SIGKILL)


def test_a_job_is_asked_to_be_pruned(make: Make, beside: Beside) -> None:
    job = make(POLITE)
    end = begin(job, beside)
    ask_to_prune(job.folder)
    ended = end()
    assert (ended.state, ended.reason, ended.exit_status) == (PRUNED, None, 75)


def test_no_process_outlives_its_job(make: Make, beside: Beside) -> None:
    stop = Stop()
    job = make("trap 'exit 75' TERM; sleep 100 & echo $! > child; touch begun; wait")
    end = begin(job, beside, stop=stop)
    child = int((job.folder / "child").read_text())
    stop.asked.set()
    assert end().state == INTERRUPTED
    until(lambda: not alive(child))


def test_the_reason_is_that_of_the_last_attempt(make: Make) -> None:
    first = ran(make(f"{CONFIG_ERROR}; exit 2"))
    again = ran(make("echo RunError: no; echo wandb: bye; exit 1", attempts=first.attempts))
    assert (again.reason, again.attempts) == ("RunError: no", 2)
    silent = ran(make("exit 1", attempts=again.attempts))
    assert silent.reason == "exit status 1"


@pytest.mark.parametrize(
    ("state", "finished", "expected"),
    [
        (RUNNING, True, DONE),
        (INTERRUPTED, True, DONE),
        (RUNNING, False, INTERRUPTED),
        (FAILED, False, FAILED),
        (WAITING, False, WAITING),
        (DONE, False, INTERRUPTED),
    ],
)
def test_what_a_killed_sweep_left_is_settled(
    make: Make, state: str, finished: bool, expected: str
) -> None:
    job = make("true", state=state)
    if finished:
        (job.folder / "metrics.json").write_text(json.dumps(runs.metrics()))
    job.settle()
    assert Job.read(job.folder) == job
    assert job.state == expected


def test_a_job_whose_process_is_alive_is_running(make: Make) -> None:
    job = make("true", state=RUNNING)
    with lock_run_dir(job.folder, 0):
        job.settle()
        assert job.state == RUNNING


def test_a_signal_for_one_that_has_ended_is_nothing() -> None:
    ended = subprocess.Popen(["true"], start_new_session=True)
    ended.wait()
    ask_to_end(ended)
    kill(ended)
