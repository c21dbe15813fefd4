"""The folder of a run: names of its files, its outputs, its lock."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from lpt.config.schema import Config
from lpt.errors import Problems, RunError, config_error

METRICS_FILE, CONFIG_FILE, LOG_FILE = "metrics.json", "config.yaml", "log.txt"
PROGRESS_FILE = "progress.json"
ADAPTER, CHECKPOINTS = "adapter", "checkpoints"
BEST, LAST = "best.ckpt", "last.ckpt"
_OUTPUTS = (
    *(METRICS_FILE, CONFIG_FILE, LOG_FILE, PROGRESS_FILE, "predictions*.tsv"),
    *(ADAPTER, CHECKPOINTS, "csv", "tensorboard", "wandb"),
)
SAVING_SECONDS = 60.0
"""Time that an interrupted run may take to save its state."""
_LOCK = ".lock"
_PROBE_SECONDS = 1.0  # `is_locked` holds the lock for the moment in which it looks


def create_run_dir(config: Config, *, resuming: bool = False) -> Path:
    """Create the folder of a run; on rank 0, remove an earlier run's outputs unless resuming.

    Raises:
        ConfigError: Ranks that were started one by one have no common folder, or another run
            started in the folder in the meantime.
    """
    if not is_global_zero():
        if config.run_dir is None:
            given = "null, with ranks started from outside"
            raise config_error("run_dir", given, "a folder that all ranks see")
        return Path(config.run_dir)
    run_dir = Path(config.run_dir) if config.run_dir is not None else _new_folder(config)
    run_dir.mkdir(parents=True, exist_ok=True)
    if not resuming:
        with lock_run_dir(run_dir):
            _remove_outputs(config, run_dir)
    return run_dir


def _remove_outputs(config: Config, run_dir: Path) -> None:
    outputs = existing_outputs(run_dir)
    # With resume, what was interrupted before its first checkpoint starts over.
    interrupted = config.resume is not None and not (run_dir / METRICS_FILE).exists()
    kept = existing_checkpoints(run_dir) if interrupted else outputs
    if kept and not config.overwrite:
        raise config_error("run_dir", f"another run started in {run_dir}", "another folder")
    for path in outputs:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _new_folder(config: Config) -> Path:
    """A folder under runs/ that no other run has, named by time and setting."""
    setting = f"{config.prompt.kind}{config.prompt.layer}-s{config.seed}"
    stem = "-".join((time.strftime("%Y%m%d-%H%M%S"), config.task.name, config.model.name, setting))
    for number in itertools.count(1):
        folder = Path("runs") / (stem if number == 1 else f"{stem}-{number}")
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            break
    return folder


def existing_outputs(run_dir: Path) -> list[Path]:
    """Outputs of an earlier run in a folder."""
    return [path for pattern in _OUTPUTS for path in sorted(run_dir.glob(pattern))]


def existing_checkpoints(run_dir: Path) -> list[Path]:
    """Checkpoints of a run."""
    files = (run_dir / CHECKPOINTS / name for name in (BEST, LAST))
    return [file for file in files if file.is_file()]


def check_run_dir(config: Config, problems: Problems) -> None:
    """Check that a run can use `run_dir`, and `resume` what it names."""
    if config.resume not in (None, "auto") and not Path(str(config.resume)).is_dir():
        problems.add("resume", f"{config.resume} is not a folder", "auto, or the folder of a run")
    run_dir = Path(config.run_dir or "runs").absolute()
    existing = next(path for path in (run_dir, *run_dir.parents) if path.exists())
    if not existing.is_dir():
        problems.add("run_dir", f"{existing} is a file", "a folder")
    elif not os.access(existing, os.W_OK):
        problems.add("run_dir", f"{existing} is not writable", "a writable folder")
    if config.run_dir is None or config.overwrite or config.resume is not None:
        return
    outputs = [path.name for path in existing_outputs(run_dir)]
    if outputs and is_global_zero():
        what = "a finished run" if METRICS_FILE in outputs else ", ".join(outputs)
        hint = "choose another run_dir, resume an interrupted run (resume=auto), or replace it "
        hint += "(overwrite=true)"
        problems.add("run_dir", f"{config.run_dir} holds {what}", "a new folder", hint)


@contextmanager
def lock_run_dir(run_dir: Path, patience: float = _PROBE_SECONDS) -> Iterator[None]:
    """Keep other processes out of the folder of a run within the block; on rank 0 only.

    Args:
        run_dir: The folder, which exists.
        patience: Seconds to wait for another process, which may be saving its state.

    Raises:
        ConfigError: Another process keeps the lock.
    """
    if not is_global_zero():
        yield
        return
    lock = FileLock(run_dir / _LOCK, is_singleton=True)  # reentrant within a process
    try:
        lock.acquire(timeout=max(patience, _PROBE_SECONDS))
    except Timeout:
        given = f"another process is running in {run_dir}"
        raise config_error("run_dir", given, "another folder", "wait for it, or stop it") from None
    try:
        yield
    finally:
        lock.release()


def is_locked(run_dir: Path) -> bool:
    """Whether a process is running in this folder."""
    if not (run_dir / _LOCK).exists():
        return False
    try:
        with FileLock(run_dir / _LOCK).acquire(timeout=0):
            return False
    except Timeout:
        return True


def resume_override(run_dir: Path) -> str:
    """The override that resumes an interrupted run."""
    return f"resume={run_dir}"


def is_global_zero() -> bool:
    """Whether this process is rank 0, which writes; the other ranks of a run share its folder.

    Read from the variables of torchrun, Lightning and Slurm: importing Lightning takes seconds.
    """
    rank = os.environ.get("RANK")
    if rank is None and "LOCAL_RANK" in os.environ:
        node = os.environ.get("NODE_RANK", "0")
        rank = "0" if node == os.environ["LOCAL_RANK"] == "0" else "1"
    return (rank or os.environ.get("SLURM_PROCID", "0")) == "0"


@contextmanager
def explain_os_errors(run_dir: Path | None) -> Iterator[None]:
    """Say what to do about a full disk or a missing folder.

    Args:
        run_dir: Folder of the run; None before it is created.

    Raises:
        RunError: An OSError was raised within the block.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:  # raised by a library, with its own explanation
            raise
        reason = f"{error.filename or run_dir or 'runs'}: {error.strerror or error}. "
        if run_dir is None:
            raise RunError(f"{reason}The run was not started.") from error
        hint = f"Fix this, then rerun with {resume_override(run_dir)} to resume."
        raise RunError(f"{reason}What was saved before is unchanged. {hint}") from error
