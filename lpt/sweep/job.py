"""One job of a sweep: a process of its own, which leaves its log and its state in its folder."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

from lpt.errors import PREEMPTED
from lpt.results import FINISHED, write_atomically
from lpt.sweep.process import Process, signal_all, start_fresh

JOB, OUTPUT = "job.json", "output.txt"
_PRUNE = "prune"  # its presence asks a job to end, because others do better
_POLL_SECONDS = 0.1
_SAVING_SECONDS = 60
_TAIL_BYTES = 1 << 16
_REASON_CHARACTERS = 1000

Start = Callable[[Sequence[str], Path, Path | None, Mapping[str, str]], Process]

WAITING, RUNNING = "waiting", "running"
DONE, FAILED, INTERRUPTED, PRUNED = "finished", "failed", "interrupted", "pruned"


@dataclass
class Job:
    """What job.json says.

    Attributes:
        name: Name of its folder.
        settings: Key -> value, of what the sweep varies.
        arguments: The run's overrides, those of its folder included.
        devices: Devices it needs.
        gpu: Whether these may be GPUs.
        state: waiting, running, finished, failed, interrupted or pruned.
        reason: Why it failed.
        attempts: How often it was started.
        started: Time of the last start, ISO 8601.
        seconds: Time of all attempts.
        exit_status: Of the last attempt; negative: the signal that killed it.
        host: Where it ran.
        pid: Its process there; None after its end.
        device: On which devices it ran.
    """

    name: str
    settings: dict[str, str]
    arguments: list[str]
    devices: int = 1
    gpu: bool = True
    state: str = WAITING
    reason: str | None = None
    attempts: int = 0
    started: str | None = None
    seconds: float = 0.0
    exit_status: int | None = None
    host: str | None = None
    pid: int | None = None
    device: str | None = None
    folder: Path = field(default=Path(), compare=False)

    @property
    def command(self) -> str:
        """What to type to do the same."""
        return shlex.join(["python", "train.py", *self.arguments])

    @property
    def metrics(self) -> dict[str, Any] | None:
        """What its metrics.json says; None if it has not finished, or that cannot be read."""
        try:
            known: dict[str, Any] = json.loads((self.folder / FINISHED).read_text(encoding="utf-8"))
            return known
        except (OSError, ValueError):
            return None

    def write(self) -> None:
        """Write job.json."""
        known = dataclasses.asdict(self) | {"command": self.command}
        del known["folder"]
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / JOB, json.dumps(known, indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Job | None:
        """The job in a folder; None if there is none that can be read."""
        try:
            known = json.loads((folder / JOB).read_text(encoding="utf-8"))
            known.pop("command")
            return cls(**known, folder=folder)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None


@dataclass
class Stop:
    """How a sweep ends its jobs before their time: first politely."""

    asked: Event = field(default_factory=Event)
    at_once: Event = field(default_factory=Event)


def run_job(
    folder: Path,
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    device: str | None = None,
    stop: Stop | None = None,
    start: Start = start_fresh,
) -> Job:
    """Run the job of a folder in a new process, and wait for its end.

    Nothing that happens to the process is an error here: it becomes the job's state.

    Args:
        folder: Holds job.json.
        cwd: Working directory; None: this process's.
        environment: Variables to set besides those of this process.
        device: What it runs on, for job.json.
        stop: Asks to end the job early.
        start: Makes the process.
    """
    job = Job.read(folder)
    assert job is not None, folder
    if job.metrics is not None or (stop is not None and stop.asked.is_set()):
        return job
    _wait_for_earlier(job)
    (folder / _PRUNE).unlink(missing_ok=True)
    job.state, job.reason, job.exit_status = RUNNING, None, None
    job.attempts += 1
    job.started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    job.host, job.device = socket.gethostname(), device
    job.write()
    before, started = job.seconds, time.monotonic()
    try:
        job.exit_status = _run(job, cwd, environment or {}, stop, start)
        job.state = _state(job)
    except OSError as error:  # e.g. no memory for another process
        job.state, job.reason = FAILED, f"could not be started: {error}"
    except BaseException:  # a cluster asks for the machine that this job is on
        job.state = INTERRUPTED
        raise
    finally:
        job.pid = None
        job.seconds = round(before + time.monotonic() - started, 3)
        if job.state == FAILED and job.reason is None:
            job.reason = _reason(job)
        job.write()
    return job


def ask_to_prune(folder: Path) -> None:
    """Have a running job ended, wherever its process is, because others do better."""
    (folder / _PRUNE).touch()


def _run(
    job: Job,
    cwd: Path | None,
    environment: Mapping[str, str],
    stop: Stop | None,
    start: Start,
) -> int:
    output = job.folder / OUTPUT
    with output.open("a", encoding="utf-8") as file:
        file.write(f"$ {job.command}\n")
    process = start(job.arguments, output, cwd, environment)
    job.pid = process.pid
    job.write()
    try:
        return _wait(process, job.folder, stop)
    except BaseException:
        _end(process)
        raise


def _wait_for_earlier(job: Job) -> None:
    """Let the process of an earlier sweep end, which saves its state because that was killed."""
    if job.pid is None or job.host != socket.gethostname():
        return
    deadline = time.monotonic() + _SAVING_SECONDS
    while time.monotonic() < deadline:
        try:
            os.killpg(job.pid, 0)
        except (ProcessLookupError, PermissionError):  # gone, or somebody else's by now
            return
        time.sleep(_POLL_SECONDS)


def _wait(process: Process, folder: Path, stop: Stop | None) -> int:
    asked = False
    while (status := process.poll()) is None:
        if stop is not None and stop.at_once.is_set():
            signal_all(process, signal.SIGKILL)
        elif not asked and (
            (stop is not None and stop.asked.is_set()) or (folder / _PRUNE).exists()
        ):
            asked = True
            signal_all(process, signal.SIGTERM)
        time.sleep(_POLL_SECONDS)
    return status


def _end(process: Process) -> None:
    """End a process whose job is given up: in time to save its state, if it heeds that."""
    deadline = time.monotonic() + _SAVING_SECONDS
    signal_all(process, signal.SIGTERM)
    while process.poll() is None:
        if time.monotonic() > deadline:
            signal_all(process, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)


def _state(job: Job) -> str:
    if job.metrics is not None and job.exit_status == 0:
        return DONE
    if job.exit_status in (PREEMPTED, -signal.SIGTERM):
        return PRUNED if (job.folder / _PRUNE).exists() else INTERRUPTED
    return FAILED


def _reason(job: Job) -> str:
    """Why a job failed, from its exit status and the end of its output."""
    status = job.exit_status
    if status is not None and status < 0:
        name = signal.Signals(-status).name
        return f"killed by {name}" + (", perhaps for want of memory" if status == -9 else "")
    lines = _last_lines(job.folder / OUTPUT)
    heads = [i for i, line in enumerate(lines) if line.endswith("nothing was started.")]
    told = " ".join(lines[heads[-1] + 1 :]) if heads else next(iter(lines[::-1]), "")
    return told[:_REASON_CHARACTERS] or f"exit status {status}"


def _last_lines(file: Path) -> Sequence[str]:
    with file.open("rb") as output:
        output.seek(max(0, output.seek(0, os.SEEK_END) - _TAIL_BYTES))
        text = output.read().decode("utf-8", errors="replace")
    # What is written over in a terminal is a line of its own here: progress bars.
    return [line.strip() for line in text.replace("\r", "\n").split("\n") if line.strip()]
