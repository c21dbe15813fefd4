"""Finished runs, jobs and sweeps below some folders, read into one table."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from lpt.config.command_line import LAYERS
from lpt.config.resolve import flatten
from lpt.errors import Problems
from lpt.files import JsonFile
from lpt.report.formatting import COST_TITLES
from lpt.runs.job_record import JobRecord, JobState, SweepRecord
from lpt.runs.record import RunRecord
from lpt.runs.run_dir import METRICS_FILE

SEEDS = ("seed", "data.seed")
"""Config keys by which the runs of one setting differ."""
CHOICES = (
    *("task.name", "model.name", "method.name", "prompt.kind"),
    *("data.protocol", "cache.mode", "strategy.name"),
)
"""Config keys that name the choice of a config group."""
HASH_DIGITS = 12

# Where files are, what is logged, and what is cached for other runs.
_NO_SETTINGS = (
    *("run_dir", "resume", "overwrite", "dry_run", "logger", "cache.dir", "cache.layers"),
    "task.default_path",  # where lpt is installed
)
_File = TypeVar("_File", bound=JsonFile)


@dataclass(frozen=True, eq=False)
class Collection:
    """Everything that was found.

    Attributes:
        runs: A row for each finished run: path, folder (relative to the report), finished (time),
            command (empty for a run from Python), metric (the selecting one), split (checksum of
            its data), device, revision, versions, dev_history; and what the following lists name.
        keys: Its columns with the flattened configuration (`prompt.layer`).
        measures: Its columns with scores (`dev/accuracy`, `zero_shot/test/accuracy`) and costs.
        unfinished: Jobs without a result: job, state, reason, command.
        sweeps: The sweeps.
    """

    runs: pd.DataFrame
    keys: list[str]
    measures: list[str]
    unfinished: pd.DataFrame
    sweeps: list[SweepRecord]

    @property
    def swept(self) -> set[str]:
        """Config keys for which the jobs of a sweep have several values."""
        names = {key.partition(".")[0]: key for key in CHOICES}
        if "prompt.kind" not in self.keys:
            names["prompt"] = "method.name"
        names |= {key: shown for key in LAYERS for shown in LAYERS if shown in self.keys}
        return {names.get(key, key) for sweep in self.sweeps for key in sweep.varied}


def collect(folders: Iterable[Path], out: Path, problems: Problems) -> Collection:
    """Read all runs, jobs and sweeps below some folders; paths to runs start from `out`.

    Missing folders and files that cannot be read are added to `problems`.
    """
    tops = [folder.resolve() for folder in folders]
    for top in tops:
        if not top.is_dir():
            problems.add(str(top), "not a folder", "folders of runs or sweeps")
    records, jobs = _read(tops, RunRecord, problems), _read(tops, JobRecord, problems)
    unfinished = [_unfinished(job) for folder, job in jobs.items() if folder not in records]
    settings = _with_one_method_key([_settings(record) for record in records.values()])
    measures = [_measures(record) for record in records.values()]
    runs = [_run(folder, out, record) for folder, record in records.items()]
    return Collection(
        # As objects, whole numbers stay whole beside the null of another run.
        pd.DataFrame(runs).join([pd.DataFrame(settings, dtype=object), pd.DataFrame(measures)]),
        list(dict.fromkeys(key for row in settings for key in row)),
        list(dict.fromkeys(name for row in measures for name in row)),
        pd.DataFrame(unfinished, columns=["job", "state", "reason", "command"]),
        list(_read(tops, SweepRecord, problems).values()),
    )


def _read(tops: list[Path], model: type[_File], problems: Problems) -> dict[Path, _File]:
    """Folder -> its record, for each folder that holds a file of this kind."""
    records = {}
    for folder in sorted({path.parent for top in tops for path in top.rglob(model.file_name)}):
        with problems.collect():
            records[folder] = model.read(folder)
    return records


def _run(folder: Path, out: Path, record: RunRecord) -> dict[str, Any]:
    machine, changed = record.environment, " (modified)" * bool(record.environment.git_dirty)
    versions = {"python": machine.python, **machine.versions}
    command = shlex.join(["python", "-m", "lpt.cli.train", *record.command])
    return {
        "path": folder,
        "folder": Path(os.path.relpath(folder, out.resolve())).as_posix(),
        "finished": datetime.fromtimestamp((folder / METRICS_FILE).stat().st_mtime).astimezone(),
        "command": command if record.command else "",
        "metric": record.selection.metric,
        "split": record.split.sha256,
        "device": machine.device,
        "revision": f"{(machine.git_revision or 'unknown')[:10]}{changed}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "dev_history": record.dev_history,
    }


def _settings(record: RunRecord) -> dict[str, Any]:
    """What can tell the run from others by config key; lists as JSON text, empty ones as null."""
    return (
        {
            key: _list_text(value) if isinstance(value, list) else value
            for key, value in flatten(record.config).items()
            if not key.startswith(_NO_SETTINGS) and key != "prompt"  # null without a prompt
        }
        | {"backbone.fingerprint": record.backbone.fingerprint[:HASH_DIGITS]}
    )


def _list_text(values: list[Any]) -> str | None:
    return json.dumps(values, ensure_ascii=False) if values else None


def _with_one_method_key(settings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Settings with one key for the layer and, of several methods, one that tells them apart.

    Beside other methods, a late prompt is named after its kind: npg, layer 4; lora, layer 4.
    """
    prompts = [row.get("prompt.kind") is not None for row in settings]
    if all(prompts):
        return [{k: v for k, v in row.items() if k != "method.layer"} for row in settings]
    for row, prompt in zip(settings, prompts, strict=True):
        kind, layer = row.pop("prompt.kind", None), row.pop("prompt.layer", None)
        row |= {"method.name": kind, "method.layer": layer} if prompt else {}
    return settings


def _measures(record: RunRecord) -> dict[str, float]:
    scores = {key.removeprefix("final/"): value for key, value in record.summary().items()}
    costs = record.cost.model_dump(include=set(COST_TITLES))
    return {**scores, **costs, "trainable": record.parameters.trainable}


def _unfinished(job: JobRecord) -> dict[str, str]:
    lost = job.state == JobState.FINISHED
    reason = f"{METRICS_FILE} is missing" if lost else " ".join((job.reason or "").split())
    return {"job": job.name, "state": str(job.state), "reason": reason, "command": job.command}
