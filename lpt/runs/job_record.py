"""job.json and sweep.json: the records of a sweep and of each of its jobs."""

from __future__ import annotations

import shlex
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import Field

from lpt.files import JsonFile, JsonModel

JOB, SWEEP = "job.json", "sweep.json"
# In the space of a sweep: settings of several keys, and combinations that are left out.
SETTINGS, EXCLUDE = "settings", "exclude"


class JobState(StrEnum):
    """State of a job."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    INTERRUPTED = "interrupted"  # resumed when the sweep is started again
    PRUNED = "pruned"  # stopped early by a search


ENDED = (JobState.FINISHED, JobState.FAILED, JobState.PRUNED)


class JobRecord(JsonFile, frozen=False):
    """Content of job.json; host and device are those of the last attempt."""

    file_name = JOB

    name: str
    """Name of the job's folder."""
    settings: dict[str, str]
    """Key or group -> value, of what the sweep varies."""
    overrides: list[str]
    """Command line of the run, including `run_dir`."""
    devices: int = Field(1, ge=1)
    gpu: bool = True
    """Whether the devices are GPUs where the machine has any."""
    state: JobState = JobState.WAITING
    reason: str | None = None
    """Why it failed or was interrupted."""
    attempts: int = Field(0, ge=0)
    """Number of starts."""
    started: datetime | None = None
    """Time of the last start."""
    seconds: float = Field(0.0, ge=0)
    """Run time, summed over all attempts."""
    exit_status: int | None = None
    """Of the last attempt; negative: number of the signal that killed it."""
    host: str | None = None
    device: str | None = None

    def write(self, folder: Path) -> None:
        """Write job.json; the folder is created if it does not exist."""
        folder.mkdir(parents=True, exist_ok=True)
        super().write(folder)

    @property
    def command(self) -> str:
        """Shell command that repeats the run."""
        return shlex.join(["python", "-m", "lpt.cli.train", *self.overrides])


class NumberRange(JsonModel):
    """Numbers that a search samples from."""

    low: int | float
    high: int | float
    step: int | float | None = None
    """Distance between neighbors; None: any number from `low` to `high`."""
    log: bool = False
    """Whether to sample uniformly on a logarithmic scale."""

    @property
    def is_integer(self) -> bool:
        """Whether only integers are sampled."""
        return all(isinstance(number, int) for number in (self.low, self.high, self.step))


class SweepRecord(JsonFile):
    """Content of sweep.json."""

    file_name = SWEEP

    name: str
    command: str
    """Shell command that started it."""
    fixed: list[str]
    """Overrides shared by all jobs, sorted."""
    space: dict[str, list[str] | list[dict[str, str]] | NumberRange]
    """Key or group -> its values, or the numbers to sample from; `settings` -> couples of keys;
    `exclude` -> combinations that are left out."""
    search: bool
    """Whether the space is searched rather than tried out in full."""

    @property
    def varied(self) -> set[str]:
        """Keys and groups with several values; a key that only some couples set has two."""
        values: dict[str, Any] = dict(self.space)
        couples = values.pop(SETTINGS, [])
        values.pop(EXCLUDE, None)
        values |= {key: {c.get(key) for c in couples} for couple in couples for key in couple}
        return {k for k, v in values.items() if isinstance(v, NumberRange) or len(v) > 1}
