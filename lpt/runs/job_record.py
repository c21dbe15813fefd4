"""job.json and sweep.json: the records of a sweep and of each of its jobs."""

from __future__ import annotations

import shlex
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field

from lpt.files import JsonModel, read_json_model, write_atomically

JOB, SWEEP = "job.json", "sweep.json"
_MAX_BYTES = 1 << 24


class JobState(StrEnum):
    """State of a job."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    INTERRUPTED = "interrupted"  # resumed when the sweep is started again
    PRUNED = "pruned"  # stopped early by a search


ENDED = (JobState.FINISHED, JobState.FAILED, JobState.PRUNED)


class _SweepFile(JsonModel):
    _name: ClassVar[str]

    def write(self, folder: Path) -> None:
        """Write the file; the folder is created if it does not exist.

        Raises:
            OSError: It cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / self._name, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the file.

        Raises:
            ConfigError: It is missing or damaged; with all its faults.
        """
        return read_json_model(folder / cls._name, cls, max_bytes=_MAX_BYTES)


class JobRecord(_SweepFile, frozen=False):
    """Content of job.json.

    Attributes:
        name: Name of the job's folder.
        settings: Key or group -> value, of what the sweep varies.
        overrides: Command line of the run, including `run_dir`.
        devices: Number of devices the run uses.
        gpu: Whether these are GPUs where the machine has any.
        state: State of the job.
        reason: Why it failed or was interrupted.
        attempts: Number of starts.
        started: Time of the last start.
        seconds: Run time, summed over all attempts.
        exit_status: Of the last attempt; negative: number of the signal that killed it.
        host: Machine of the last attempt.
        device: Devices of the last attempt.
    """

    _name = JOB

    name: str
    settings: dict[str, str]
    overrides: list[str]
    devices: int = Field(1, ge=1)
    gpu: bool = True
    state: JobState = JobState.WAITING
    reason: str | None = None
    attempts: int = Field(0, ge=0)
    started: datetime | None = None
    seconds: float = Field(0.0, ge=0)
    exit_status: int | None = None
    host: str | None = None
    device: str | None = None

    @property
    def command(self) -> str:
        """Shell command that repeats the run."""
        return shlex.join(["python", "-m", "lpt.cli.train", *self.overrides])


class NumberRange(JsonModel):
    """Numbers that a search samples from.

    Attributes:
        low: Smallest number.
        high: Largest number.
        step: Distance between neighbours; None: any number from `low` to `high`.
        log: Whether to sample uniformly on a logarithmic scale.
    """

    low: int | float
    high: int | float
    step: int | float | None = None
    log: bool = False

    @property
    def is_integer(self) -> bool:
        """Whether only integers are sampled."""
        return all(isinstance(number, int) for number in (self.low, self.high, self.step))


class SweepRecord(_SweepFile):
    """Content of sweep.json.

    Attributes:
        name: Name of the sweep.
        command: Shell command that started it.
        fixed: Overrides shared by all jobs, sorted.
        space: Key or group -> its values, or the numbers to sample from.
        search: Whether the space is searched rather than tried out in full.
    """

    _name = SWEEP

    name: str
    command: str
    fixed: list[str]
    space: dict[str, list[str] | NumberRange]
    search: bool
