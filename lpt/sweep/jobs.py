"""One job of a sweep: a process that trains, and its state in job.json."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from multiprocessing.process import BaseProcess
from pathlib import Path

from lpt.errors import PREEMPTED, ConfigError, killed_by
from lpt.runs.job_record import JobRecord, JobState
from lpt.runs.record import RunRecord
from lpt.runs.run_dir import METRICS_FILE, SAVING_SECONDS, is_locked
from lpt.sweep.process import Start, deferred_signals, start_process

OUTPUT = "output.txt"
_PRUNE = "prune"  # this file in a job's folder requests its early end, whichever machine it is on
POLL_SECONDS = 0.1
_TAIL_BYTES = 1 << 16
_MAX_REASON = 1000
_PROMPT = "$ "  # precedes the command in the output, once for each attempt
_HEADING = re.compile(r"Found \d+ (configuration )?problems?(:|; .*)")  # of a ConfigError
_EXCEPTION = re.compile(r"[\w.]+(Error|Exception|Interrupt)\b")  # last line of a traceback


class Job:
    """A running job: its process, started on creation; however this ends becomes the job's state.

    Args:
        folder: Folder of the job, with job.json.
        cwd: Working directory of the run; None: that of this process.
        environment: Variables to set on top of those of this process.
        device: Name of what it runs on, for job.json.
        start: Starts the process.

    Raises:
        ConfigError: job.json is missing or damaged.
    """

    def __init__(
        self,
        folder: Path,
        *,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        device: str | None = None,
        start: Start = start_process,
    ) -> None:
        self.folder, self.record = folder, JobRecord.read(folder)
        self._stop_requested = self._prune_requested = False
        self._process: BaseProcess | None = None
        (folder / _PRUNE).unlink(missing_ok=True)
        record = self.record
        record.state, record.reason, record.exit_status = JobState.RUNNING, None, None
        record.attempts += 1
        record.started = datetime.now().astimezone()
        record.host, record.device = socket.gethostname(), device
        record.write(folder)
        self._started = time.monotonic() - record.seconds  # of earlier attempts
        output = folder / OUTPUT
        with output.open("a", encoding="utf-8") as file:
            file.write(f"\n{_PROMPT}{record.command}\n")
        try:
            self._process = start(record.overrides, output, cwd or Path.cwd(), environment or {})
        except (OSError, EOFError) as error:  # e.g. no memory for another process
            self._end(JobState.FAILED, f"could not be started: {error!r}")

    def poll(self) -> bool:
        """Whether the process has ended; its state is in job.json then."""
        if self._process is None:
            return True
        status = self._process.exitcode
        if status is None:
            if not self._prune_requested and (self.folder / _PRUNE).exists():
                self._prune_requested = True
                self._signal(signal.SIGTERM)
            return False
        self._signal(signal.SIGKILL, group=True)  # what is left: ranks and data loading workers
        self.record.exit_status = status
        self._end(*self._outcome(status))
        return True

    def stop(self) -> None:
        """Ask the run to save its state and end; calling it again does nothing.

        Only the main process is signalled: a run whose data loading workers end has failed.
        """
        if not self._stop_requested:
            self._stop_requested = True
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the run at once, with all its processes."""
        self._stop_requested = True
        self._signal(signal.SIGKILL, group=True)
        self._signal(signal.SIGKILL)  # before it has a group of its own

    def wait(self, seconds: float = float("inf")) -> bool:
        """Wait until the process has ended, or for that time; returns whether it has."""
        deadline = time.monotonic() + seconds
        while not self.poll():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _signal(self, number: signal.Signals, *, group: bool = False) -> None:
        if self._process is not None and self._process.pid is not None:
            with suppress(ProcessLookupError, PermissionError):
                (os.killpg if group else os.kill)(self._process.pid, number)

    def _end(self, state: JobState, reason: str | None) -> None:
        self._process = None
        self.record.state, self.record.reason = state, reason
        self.record.seconds = round(time.monotonic() - self._started, 3)
        self.record.write(self.folder)

    def _outcome(self, status: int) -> tuple[JobState, str | None]:
        """State and reason after the end of the process."""
        try:
            if _read_result(self.folder) is not None:  # the last file that a run writes
                return JobState.FINISHED, None
        except ConfigError as error:
            return JobState.FAILED, error.listing[:_MAX_REASON]
        preempted = status in (PREEMPTED, -signal.SIGTERM)
        if preempted and (self.folder / _PRUNE).exists():
            return JobState.PRUNED, None
        if self._stop_requested:
            return JobState.INTERRUPTED, None
        if preempted:
            return JobState.INTERRUPTED, "by a signal from outside the sweep"
        return JobState.FAILED, _failure(status, self.folder / OUTPUT)


def run_job(folder: Path, *, cwd: Path | None = None, start: Start = start_process) -> None:
    """Run the job in a folder and wait for its end, as a worker of one of Hydra's launchers.

    Raises:
        ConfigError: job.json is missing or damaged.
    """
    job = None
    try:
        with deferred_signals():
            job = Job(folder, cwd=cwd, start=start)
        job.wait()
    except BaseException:  # e.g. the cluster reclaims the machine
        if job is not None:
            job.stop()
            if not job.wait(SAVING_SECONDS):
                job.kill()
                job.wait()
        raise


def request_prune(folder: Path) -> None:
    """Ask a running job to end early, whichever machine it is on."""
    (folder / _PRUNE).touch()


JobResult = tuple[JobRecord, RunRecord | None]
"""State of a job, and the record of its run once that has finished."""


def read_job(folder: Path, *, settle: bool = False) -> JobResult:
    """The job in a folder.

    Args:
        folder: Folder of the job.
        settle: Whether to correct a state that a killed sweep has left; not while the job starts.

    Raises:
        ConfigError: job.json is missing, or a file is damaged.
    """
    job, result = JobRecord.read(folder), _read_result(folder)
    if not settle:
        return job, result
    state = job.state
    if result is not None:
        state = JobState.FINISHED
    elif state == JobState.FINISHED or (state == JobState.RUNNING and not is_locked(folder)):
        state = JobState.INTERRUPTED
    if state != job.state:
        job.state, job.reason = state, None
        job.write(folder)
    return job, result


def _read_result(folder: Path) -> RunRecord | None:
    return RunRecord.read(folder) if (folder / METRICS_FILE).exists() else None


def _failure(status: int, output: Path) -> str:
    """Why a run failed, from its exit status and the end of its output."""
    if status < 0:
        return killed_by(status)
    with output.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        text = file.read().decode("utf-8", errors="replace")
    # Only the last attempt. A progress bar overwrites its line by carriage returns.
    text = text.rpartition(f"\n{_PROMPT}")[2].replace("\r", "\n")
    lines = [line.strip() for line in text.split("\n")[1:] if line.strip()]
    headings = [i for i, line in enumerate(lines) if _HEADING.fullmatch(line)]
    if headings:
        return " ".join(lines[headings[-1] + 1 :])[:_MAX_REASON]
    exceptions = [line for line in lines if _EXCEPTION.match(line)]
    return (exceptions or lines or [f"exit status {status}"])[-1][:_MAX_REASON]
