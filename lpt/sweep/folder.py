"""The folder of a sweep: one for each space, used by one process at a time."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lpt.config.schema import SweepConfig
from lpt.errors import config_error
from lpt.runs.job_record import SWEEP, SweepRecord
from lpt.sweep.plan import Point
from lpt.sweep.results import CSV, JSONL

JOBS, REPORT = "jobs", "report"
_LOCK = ".lock"
_IDENTITY = {"fixed", "space", "search"}  # the number of trials may grow, jobs at a time change


def sweep_dir(config: SweepConfig, record: SweepRecord, points: Sequence[Point]) -> Path:
    """Folder of a sweep: the same for the same space, different for any other."""
    if config.dir is not None:
        return Path(config.dir)
    identity = json.dumps(record.model_dump(include=_IDENTITY))
    digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
    names = ({p.config.task.name for p in points}, {p.config.model.name for p in points})
    common = [next(iter(found)) for found in names if len(found) == 1]
    return Path("runs") / "-".join(["sweep", config.name, *common, digest])


@contextmanager
def claim_sweep_dir(folder: Path, record: SweepRecord, *, overwrite: bool) -> Iterator[None]:
    """Lock the folder of a sweep within the block, and write sweep.json.

    Args:
        folder: The folder, created if it does not exist.
        record: The sweep.
        overwrite: Whether to remove the results of an earlier sweep.

    Raises:
        ConfigError: Another sweep is running in it, or its content is not this sweep's.
    """
    _check_content(folder, record, overwrite=overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder / _LOCK).acquire(timeout=0)
    except Timeout:
        found, hint = f"another sweep is running in {folder}", "wait until it ends, or stop it"
        raise config_error("sweep.dir", found, "another folder", hint) from None
    with lock:
        if overwrite:
            _remove_results(folder)
        record.write(folder)
        yield


def _check_content(folder: Path, record: SweepRecord, *, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise config_error("sweep.dir", f"{folder} is a file", "a folder")
    if not (folder / SWEEP).is_file():
        others = sorted(path.name for path in folder.glob("[!.]*"))
        if others:
            found = f"{folder} contains {', '.join(others[:5])}, but no {SWEEP}"
            raise config_error("sweep.dir", found, "a new folder, or that of this sweep")
        return
    if overwrite:
        return
    earlier = SweepRecord.read(folder)
    if earlier.model_dump(include=_IDENTITY) != record.model_dump(include=_IDENTITY):
        found = f"{folder} contains the results of another space, started by: {earlier.command}"
        hint = "overwrite=true deletes its results; or choose another sweep.dir"
        raise config_error("sweep.dir", found, "a folder for each space", hint)


def _remove_results(folder: Path) -> None:
    """Remove what an earlier sweep wrote, sweep.json last; other files stay."""
    for name in (JOBS, REPORT, "wandb"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (CSV, JSONL, SWEEP):
        (folder / name).unlink(missing_ok=True)
