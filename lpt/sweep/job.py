"""One job of a sweep: a process of its own, which leaves its log and its state in its folder."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

from lpt.config.constraints import limited
from lpt.errors import PREEMPTED, ConfigError, Problems, config_error, killed_by
from lpt.files import write_atomically
from lpt.report.check import read_metrics
from lpt.runs.json_records import RECORD, read_json, to_record
from lpt.runs.record import FINISHED
from lpt.runs.run_dir import SAVING_SECONDS, is_locked
from lpt.sweep.process import Process, ask_to_end, kill, start_fresh

JOB, OUTPUT = "job.json", "output.txt"
_PRUNE = "prune"  # its presence asks a job to end, because others do better
_POLL_SECONDS = 0.1
_TAIL_BYTES = 1 << 16
_REASON_CHARACTERS = 1000
_AGAIN = "start the same sweep again: it writes the record anew, and the run goes on"

_PROMPT = "$ "  # before the command in the output, once for each attempt
_ERROR = re.compile(r"[\w.]+(Error|Exception|Interrupt)\b")  # the end of a traceback
Start = Callable[[Sequence[str], Path, Path | None, Mapping[str, str]], Process]

WAITING, RUNNING = "waiting", "running"
DONE, FAILED, INTERRUPTED, PRUNED = "finished", "failed", "interrupted", "pruned"
_STATES = (WAITING, RUNNING, DONE, FAILED, INTERRUPTED, PRUNED)


@dataclass
class _Record:
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
        device: On which devices it ran.
    """

    name: str
    settings: dict[str, str]
    arguments: list[str]
    devices: int = limited(1, ge=1)
    gpu: bool = True
    state: str = limited(WAITING, choices=_STATES)
    reason: str | None = None
    attempts: int = limited(0, ge=0)
    started: str | None = None
    seconds: float = limited(0.0, ge=0)
    exit_status: int | None = None
    host: str | None = None
    device: str | None = None


@dataclass
class Job(_Record):
    """A job as its record has it, and the folder that it is in."""

    folder: Path = field(default=Path(), compare=False)

    @property
    def command(self) -> str:
        """What to type to do the same."""
        return shlex.join(["python", "train.py", *self.arguments])

    @property
    def metrics(self) -> dict[str, Any] | None:
        """What its metrics.json says; None if it has not finished, or that file is damaged."""
        return self.result(Problems())

    def result(self, problems: Problems) -> dict[str, Any] | None:
        """The same; damage is noted."""
        file = self.folder / FINISHED
        if not file.exists():
            return None
        try:
            return read_metrics(file)
        except ConfigError as error:
            problems.take(error)
            return None

    def settle(self) -> None:
        """Mend the state that a sweep left which was killed itself, or whose files were damaged."""
        finished = self.metrics is not None
        if finished and self.state != DONE:
            self.state, self.reason = DONE, None
        elif not finished and self.state == DONE:
            self.state, self.reason = INTERRUPTED, f"{FINISHED} is gone or damaged"
        elif not finished and self.state == RUNNING and not is_locked(self.folder):
            self.state = INTERRUPTED
        else:
            return
        self.write()

    def write(self) -> None:
        """Write job.json."""
        known = dataclasses.asdict(self) | {"command": self.command}
        del known["folder"]
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / JOB, json.dumps(known, indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path, problems: Problems | None = None) -> Job | None:
        """The job in a folder; None if there is none, or if its record is damaged.

        Args:
            folder: Of the job.
            problems: Damage is noted there.
        """
        file, wrong = folder / JOB, Problems()
        try:
            known: Any = read_json(file, RECORD)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            wrong.add(f"cannot be read: {error}", "")
        else:
            if isinstance(known, dict):
                known.pop("command", None)
            record = to_record(_Record, known, "", wrong)
            if record is not None and record.name == folder.name:
                return cls(**vars(record), folder=folder)
            if record is not None:
                wrong.add("name", repr(record.name))
        if problems is not None:
            given = "; ".join(f"{one.where}: {one.given}".strip(": ") for one in wrong.found)
            problems.add(str(file), given[:_REASON_CHARACTERS], "what a sweep wrote", _AGAIN)
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

    Raises:
        ConfigError: There is no whole job.json.

    Args:
        folder: Holds job.json.
        cwd: Working directory; None: this process's.
        environment: Variables to set besides those of this process.
        device: What it runs on, for job.json.
        stop: Asks to end the job early.
        start: Makes the process.
    """
    problems = Problems()
    job = Job.read(folder, problems)
    problems.raise_if_any()
    if job is None:
        raise config_error(str(folder / JOB), "is gone", "what a sweep wrote", _AGAIN)
    if job.metrics is not None or (stop is not None and stop.asked.is_set()):
        return job
    (folder / _PRUNE).unlink(missing_ok=True)
    job.state, job.reason, job.exit_status = RUNNING, None, None
    job.attempts += 1
    job.started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    job.host, job.device = socket.gethostname(), device
    job.write()
    before, started = job.seconds, time.monotonic()
    try:
        job.exit_status = _run(job, cwd, environment or {}, stop, start)
        job.state, job.reason = _outcome(job, stop)
    except (OSError, EOFError) as error:  # e.g. no memory for another process
        job.state, job.reason = FAILED, f"could not be started: {error!r}"
    except BaseException:  # a cluster asks for the machine that this job is on
        job.state = INTERRUPTED
        raise
    finally:
        job.seconds = round(before + time.monotonic() - started, 3)
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
        file.write(f"\n{_PROMPT}{job.command}\n")
    process = start(job.arguments, output, cwd, environment)
    try:
        return _wait(process, job.folder, stop)
    except BaseException:
        _give_up(process)
        raise
    finally:
        kill(process)  # other ranks may wait for one that is gone


def _wait(process: Process, folder: Path, stop: Stop | None) -> int:
    asked = False
    while (status := process.poll()) is None:
        if stop is not None and stop.at_once.is_set():
            kill(process)
        elif not asked and (_stopped(stop) or (folder / _PRUNE).exists()):
            asked = True
            ask_to_end(process)
        time.sleep(_POLL_SECONDS)
    return status


def _stopped(stop: Stop | None) -> bool:
    return stop is not None and stop.asked.is_set()


def _give_up(process: Process) -> None:
    """End a process, in time to save its state, if it heeds that."""
    deadline = time.monotonic() + SAVING_SECONDS
    ask_to_end(process)
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def _outcome(job: Job, stop: Stop | None) -> tuple[str, str | None]:
    """State and reason after the end of its process."""
    if job.metrics is not None:  # which is written last
        return DONE, None
    if job.exit_status in (PREEMPTED, -signal.SIGTERM):
        if (job.folder / _PRUNE).exists():
            return PRUNED, None
        return INTERRUPTED, None if _stopped(stop) else "by a signal from outside the sweep"
    if _stopped(stop) and job.exit_status == -signal.SIGKILL:
        return INTERRUPTED, None
    problems = Problems()
    job.result(problems)
    if job.exit_status == 0 and problems.found:  # the run itself found nothing wrong
        return FAILED, ConfigError(problems.found).listing[:_REASON_CHARACTERS]
    return FAILED, _reason(job)


def _reason(job: Job) -> str:
    """Why a job failed, from its exit status and the end of its output."""
    status = job.exit_status
    if status is not None and status < 0:
        return killed_by(status)
    lines = _last_lines(job.folder / OUTPUT)
    heads = [i for i, line in enumerate(lines) if line.endswith("nothing was started.")]
    errors = [line for line in lines if _ERROR.match(line)]
    told = " ".join(lines[heads[-1] + 1 :]) if heads else next(iter((errors or lines)[::-1]), "")
    return told[:_REASON_CHARACTERS] or f"exit status {status}"


def _last_lines(file: Path) -> Sequence[str]:
    """What the last attempt said at its end."""
    with file.open("rb") as output:
        output.seek(max(0, output.seek(0, os.SEEK_END) - _TAIL_BYTES))
        text = output.read().decode("utf-8", errors="replace")
    # What is written over in a terminal is a line of its own here: progress bars.
    text = text.rpartition(f"\n{_PROMPT}")[2].replace("\r", "\n")
    return [line.strip() for line in text.split("\n")[1:] if line.strip()]
