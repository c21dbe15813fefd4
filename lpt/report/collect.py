"""Finished runs, jobs and sweeps below some folders, read into one table."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from lpt.errors import Problems
from lpt.runs.job_record import JOB, SWEEP, JobRecord, JobState, SweepRecord
from lpt.runs.record import RunRecord
from lpt.runs.run_dir import METRICS_FILE

SEEDS = ("seed", "data.seed")
"""Config keys by which the runs of one setting differ."""
GROUPS = {
    "task": "task.name",
    "model": "model.name",
    "prompt": "prompt.kind",
    "data": "data.protocol",
    "cache": "cache.mode",
    "strategy": "strategy.name",
}
"""Config group -> the key that names the choice."""
HASH_DIGITS = 12

# Whether a job fills the cache for others is no setting; the data are compared in `settings`.
_NO_SETTINGS = ("cache.layers", "split.sha256")


@dataclass(frozen=True, eq=False)
class Collection:
    """Everything that was found.

    Attributes:
        runs: A row for each finished run: folder, finished (time), command (empty for a run from
            Python), metric (the selecting one), split (checksum of its data), record (`RunRecord`),
            scores (`dev/accuracy`, `zero_shot/test/accuracy`, ...) and costs.
        config: The flattened configuration of each run (`prompt.layer`), with the index of `runs`.
        unfinished: Jobs without a result: job, state, reason, command.
        sweeps: The sweeps that were found.
        swept: Config keys for which the jobs of sweeps have several values.
    """

    runs: pd.DataFrame
    config: pd.DataFrame
    unfinished: pd.DataFrame
    sweeps: list[SweepRecord]
    swept: set[str]


def collect(folders: Iterable[Path], problems: Problems) -> Collection:
    """Search folders for runs, jobs and sweeps, and read them.

    Args:
        folders: Searched with everything below; overlapping ones count once.
        problems: Missing folders and files that cannot be read are added to it.
    """
    tops = [folder.resolve() for folder in folders]
    for top in tops:
        if not top.is_dir():
            problems.add(str(top), "not a folder", "folders of runs or sweeps")
    runs: dict[Path, RunRecord] = _read(tops, METRICS_FILE, RunRecord, problems)
    jobs: dict[Path, JobRecord] = _read(tops, JOB, JobRecord, problems)
    sweeps: dict[Path, SweepRecord] = _read(tops, SWEEP, SweepRecord, problems)
    unfinished = [_unfinished(job) for path, job in jobs.items() if path not in runs]
    return Collection(
        pd.DataFrame([_run(path, record) for path, record in runs.items()]),
        pd.DataFrame([_settings(record) for record in runs.values()], dtype=object),
        pd.DataFrame(unfinished, columns=["job", "state", "reason", "command"]),
        list(sweeps.values()),
        _swept_keys(jobs.values()),
    )


def _read(tops: list[Path], name: str, model: Any, problems: Problems) -> dict[Path, Any]:
    """Folder -> its record, for each folder that holds a file of this name."""
    records = {}
    for folder in sorted({path.parent for top in tops for path in top.rglob(name)}):
        with problems.collect():
            records[folder] = model.read(folder)
    return records


def _run(folder: Path, record: RunRecord) -> dict[str, Any]:
    scores = {key.removeprefix("final/"): value for key, value in record.summary().items()}
    command = shlex.join(["python", "-m", "lpt.cli.train", *record.command])
    return {
        "folder": folder,
        "finished": datetime.fromtimestamp((folder / METRICS_FILE).stat().st_mtime).astimezone(),
        "command": command if record.command else "",
        "metric": record.selection.metric,
        "split": record.split.sha256,
        "record": record,
        **scores,
        "train_seconds": record.cost.train_seconds,
        "examples_per_second": record.cost.examples_per_second,
        "peak_memory_mib": record.cost.peak_memory_mib,
        "trainable": record.parameters.trainable,
    }


def _settings(record: RunRecord) -> dict[str, Any]:
    """What can tell the run from others by config key; lists and empty mappings as JSON text."""
    settings = {key: value for key, value in record.settings().items() if key not in _NO_SETTINGS}
    settings["backbone.fingerprint"] = record.backbone.fingerprint[:HASH_DIGITS]
    return {
        key: json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value
        for key, value in settings.items()
    }


def _unfinished(job: JobRecord) -> dict[str, str]:
    lost = job.state == JobState.FINISHED
    reason = f"{METRICS_FILE} is missing" if lost else " ".join((job.reason or "").split())
    return {"job": job.name, "state": str(job.state), "reason": reason, "command": job.command}


def _swept_keys(jobs: Iterable[JobRecord]) -> set[str]:
    values: dict[str, set[str]] = {}
    for job in jobs:
        for key, value in job.settings.items():
            values.setdefault(GROUPS.get(key, key), set()).add(value)
    return {key for key, found in values.items() if len(found) > 1}
