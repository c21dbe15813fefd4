"""The folder of a sweep: one for each space, held by one process, gone on with where it stands.

sweep.json says what the sweep is, jobs/NAME are the folders of its runs, results.csv and
results.jsonl the record, report/ the report.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lpt.config.schema import SweepConfig
from lpt.errors import config_error
from lpt.files import write_atomically
from lpt.runs.json_records import RECORD, read_json
from lpt.sweep.plan import Point
from lpt.sweep.record import CSV, JSONL
from lpt.sweep.search import STUDY
from lpt.sweep.space import Space

SWEEP, JOBS, REPORT = "sweep.json", "jobs", "report"
_LOCK = ".lock"


def sweep_folder(config: SweepConfig, space: Space, points: Sequence[Point]) -> Path:
    """Where a sweep is: the same for the same command, and for no other."""
    if config.dir is not None:
        return Path(config.dir)
    digest = hashlib.sha256(json.dumps(_identity(config, space)).encode()).hexdigest()[:8]
    named = ({p.config.task.name for p in points}, {p.config.model.name for p in points})
    common = [next(iter(names)) for names in named if len(names) == 1]
    return Path("runs") / "-".join(["sweep", config.name, *common, digest])


@contextmanager
def claimed(folder: Path, config: SweepConfig, space: Space, *, overwrite: bool) -> Iterator[None]:
    """Hold a folder for this process alone, within the block.

    Raises:
        ConfigError: Another sweep runs in it, or what it holds is none of this space's.
    """
    _refuse_other(folder, config, space, overwrite=overwrite)  # before anything is written
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        given = f"another sweep is running in {folder}"
        raise config_error(
            "sweep.dir", given, "another folder", "wait for it, or stop it"
        ) from None
    try:
        _refuse_other(folder, config, space, overwrite=overwrite)  # now that it stays as it is
        if overwrite:
            _clear(folder)
        command = shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]])
        known = {"name": config.name, "command": command, **_identity(config, space)}
        write_atomically(folder / SWEEP, json.dumps(known, indent=2) + "\n")
        yield
    finally:
        lock.release()


def _identity(config: SweepConfig, space: Space) -> dict[str, Any]:
    """What makes it this sweep and no other; a search may be given more trials."""
    searched = config.trials is not None
    return {"fixed": sorted(space.arguments), "space": space.described(), "search": searched}


def _refuse_other(folder: Path, config: SweepConfig, space: Space, *, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise config_error("sweep.dir", f"{folder} is a file", "a folder")
    file = folder / SWEEP
    if not file.is_file():
        strange = sorted(p.name for p in folder.glob("[!.]*"))
        if strange:
            given = f"{folder} holds {', '.join(strange[:5])}, but no {SWEEP}"
            raise config_error("sweep.dir", given, "a new folder, or that of this sweep")
        return
    if overwrite:
        return
    try:
        known = read_json(file, RECORD)
        same = {key: known[key] for key in _identity(config, space)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = "start anew with overwrite=true, or take another sweep.dir"
        raise config_error(
            str(file), f"cannot be read ({error!r})", "what a sweep wrote", hint
        ) from error
    if same != _identity(config, space):
        raise config_error(
            "sweep.dir",
            f"{folder} holds the results of another space",
            "a folder for each space",
            "another sweep.dir, or overwrite=true, which deletes those results; they came from: "
            f"{known.get('command')}",
        )


def _clear(folder: Path) -> None:
    """Remove what an earlier sweep left, what marks it as one last; other things stay."""
    for name in (JOBS, REPORT, "wandb"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (CSV, JSONL, STUDY, f"{STUDY}.lock", SWEEP):
        (folder / name).unlink(missing_ok=True)
