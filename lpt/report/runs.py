"""Finished runs, jobs and sweeps as typed records, read from what they left behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from lpt.errors import Problems, config_error
from lpt.report.check import read_metrics
from lpt.report.folders import FINISHED, JOB, SWEEP, Found
from lpt.runs.json_records import RECORD, is_number, read_json

Value = str | int | float | bool | None
_T = TypeVar("_T")
_SECTIONS = ("model", "prompt", "data", "optim", "trainer")
GROUPS = {"prompt": "prompt.kind", "model": "model.name"}
"""Config group to the key that names what was chosen."""
SEEDS = ("seed", "data.seed")
"""Config keys whose values are drawn at random; runs that differ in nothing else are repeats."""


@dataclass(frozen=True)
class Job:
    """A run that a sweep started, whether or not it came to its end."""

    folder: Path
    name: str
    settings: Mapping[str, str]
    state: str
    reason: str
    """Why it did not finish; empty if it did, or if nothing is known."""
    command: str
    started: datetime | None
    seconds: float | None


@dataclass(frozen=True)
class Sweep:
    """What a sweep was started as."""

    folder: Path
    name: str
    command: str
    space: Mapping[str, list[str]]


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run."""

    folder: Path
    config: Mapping[str, Value]
    """Config key (`prompt.layer`) to value."""
    metrics: Mapping[str, Any]
    """All that metrics.json holds."""
    finished: datetime
    job: Job | None

    @property
    def task(self) -> str:
        """Name of the task."""
        return str(self.config["task"])

    @property
    def selection(self) -> str:
        """Metric on dev that selected the checkpoint."""
        return str(self.metrics["selection"]["metric"])

    def measures(self) -> dict[str, float]:
        """Scores as `set/metric`, and `seconds`, `speed` (examples/s), `memory` (MB), `trainable`.

        A set without labels has no scores.
        """
        sets = {name: self.metrics[name] for name in ("dev", "test")} | self.metrics["extra"]
        scores = {
            f"{name}/{metric}": float(value)
            for name, values in sets.items()
            for metric, value in (values or {}).items()
        }
        return scores | {
            "seconds": float(self.metrics["speed"]["train_seconds"]),
            "speed": float(self.metrics["speed"]["examples_per_second"]),
            "memory": float(self.metrics["peak_memory_mb"]["training"]),
            "trainable": float(self.metrics["parameters"]["trainable"]),
        }


@dataclass(frozen=True)
class Material:
    """All that a report is made of."""

    runs: list[Run]
    unfinished: list[Job]
    sweeps: list[Sweep]


def read(found: Found, problems: Problems) -> Material:
    """Read what was found.

    Args:
        found: Folders of runs, jobs and sweeps.
        problems: Where every file that cannot be used is noted.
    """
    jobs = {job.folder: job for job in _all(found.jobs, _read_job, problems)}
    runs = _all(found.runs, lambda folder: _read_run(folder, jobs.get(folder)), problems)
    finished = set(found.runs)
    unfinished = [_lost(job) for folder, job in jobs.items() if folder not in finished]
    return Material(runs, unfinished, _all(found.sweeps, _read_sweep, problems))


def _lost(job: Job) -> Job:
    """A job without a result, whatever it says of itself."""
    if job.state != "finished":
        return job
    return replace(job, state="lost", reason=f"finished, but {FINISHED} is not there any more")


def _all(folders: Iterable[Path], one: Callable[[Path], _T], problems: Problems) -> list[_T]:
    read = []
    for folder in folders:
        with problems.collect():
            read.append(one(folder))
    return read


def _read_run(folder: Path, job: Job | None) -> Run:
    file = folder / FINISHED
    metrics = read_metrics(file)
    finished = datetime.fromtimestamp(file.stat().st_mtime).astimezone()
    if job is not None and job.started is not None and job.seconds is not None:
        with suppress(OverflowError):  # no date has so many digits
            finished = job.started + timedelta(seconds=job.seconds)
    return Run(folder, _flat(metrics), metrics, finished, job)


def _flat(metrics: Mapping[str, Any]) -> dict[str, Value]:
    config: dict[str, Value] = {"task": metrics["task"]}
    for section in _SECTIONS:
        for key, value in metrics[section].items():
            plain = value is None or isinstance(value, str | int | float | bool)
            config[f"{section}.{key}"] = value if plain else json.dumps(value)
    return config | {"loss": metrics.get("loss"), "seed": metrics["seed"]}


def _read_job(folder: Path) -> Job:
    file = folder / JOB
    job = _mapping(file, ("name", "state"))
    settings = job.get("settings")
    started = job.get("started")
    try:
        begun = datetime.fromisoformat(started).astimezone() if started else None
    except (TypeError, ValueError, OverflowError):
        begun = None
    return Job(
        folder=folder,
        name=str(job["name"]),
        settings={k: str(v) for k, v in settings.items()} if isinstance(settings, dict) else {},
        state=str(job["state"]),
        reason=" ".join(str(job.get("reason") or "").split()),
        command=str(job.get("command") or ""),
        started=begun,
        seconds=_finite(job.get("seconds")),
    )


def _finite(value: object) -> float | None:
    return float(value) if is_number(value) else None  # type: ignore[arg-type]


def _read_sweep(folder: Path) -> Sweep:
    sweep = _mapping(folder / SWEEP, ("name",))
    space = sweep.get("space")
    listed = space.items() if isinstance(space, dict) else ()
    values = {key: list(map(str, v)) if isinstance(v, list) else [str(v)] for key, v in listed}
    return Sweep(folder, str(sweep["name"]), str(sweep.get("command") or ""), values)


def _mapping(file: Path, needed: Iterable[str]) -> dict[str, Any]:
    try:
        content = read_json(file, RECORD)
    except (OSError, ValueError) as error:
        hint = "remove the file, or run the job again"
        raise config_error(str(file), f"cannot be read: {error}", "JSON", hint) from error
    if not isinstance(content, dict) or any(key not in content for key in needed):
        expected = f"an object with {', '.join(needed)}"
        raise config_error(str(file), "something else", expected, "remove the file, or mend it")
    return content
