"""The folder of a run: names of its files, its outputs, its log, its lock."""

from __future__ import annotations

import fcntl
import itertools
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from lpt.config.schema import Config, first_layer
from lpt.errors import Problems, RunError, config_error

METRICS_FILE, CONFIG_FILE, LOG_FILE = "metrics.json", "config.yaml", "log.txt"
PROGRESS_FILE, BACKBONE_FILE = "progress.json", "backbone.json"
ADAPTER, CHECKPOINTS, ANALYSIS = "adapter", "checkpoints", "analysis"
BEST, LAST = "best.ckpt", "last.ckpt"
_OUTPUTS = (
    *(METRICS_FILE, CONFIG_FILE, LOG_FILE, PROGRESS_FILE, BACKBONE_FILE, "predictions*.tsv"),
    *(ADAPTER, CHECKPOINTS, ANALYSIS, "csv", "tensorboard", "wandb"),
)
SAVING_SECONDS = 60.0
"""Time that an interrupted run may take to save its state."""
_LOCK = ".lock"
PROBE_SECONDS = 1.0
"""Time for which to wait for a lock: whoever looks (`is_locked`) has it for a moment."""


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
    if resuming:
        return run_dir
    with lock_run_dir(run_dir):
        outputs = existing_outputs(run_dir)
        # What was interrupted before its first checkpoint starts over.
        kept = existing_checkpoints(run_dir) if config.resume is not None else outputs
        if kept and not config.overwrite:
            raise config_error("run_dir", f"another run started in {run_dir}", "another folder")
        for path in outputs:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    return run_dir


def _new_folder(config: Config) -> Path:
    """A folder under runs/ that no other run has, named by time and setting."""
    name = config.prompt.kind if config.prompt is not None else config.method.name
    setting = f"{name}{first_layer(config)}-s{config.seed}"
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
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        problems.add("run_dir", f"{existing} is not a writable folder", "a folder to write to")
    if config.run_dir is None or config.overwrite or config.resume is not None:
        return
    outputs = [path.name for path in existing_outputs(Path(config.run_dir))]
    if outputs and is_global_zero():
        what = "a finished run" if METRICS_FILE in outputs else ", ".join(outputs)
        hint = "choose another one, resume the run (resume=auto), or replace it (overwrite=true)"
        problems.add("run_dir", f"{config.run_dir} holds {what}", "a new folder", hint)


@contextmanager
def lock_run_dir(run_dir: Path, patience: float = PROBE_SECONDS) -> Iterator[None]:
    """Keep other processes out of an existing folder within the block; on rank 0 only.

    Raises:
        ConfigError: Another process keeps the lock for more than `patience` seconds; it may be
            saving its state.
    """
    if not is_global_zero():
        yield
        return
    lock = FileLock(run_dir / _LOCK, is_singleton=True)  # reentrant within a process
    try:
        lock.acquire(timeout=max(patience, PROBE_SECONDS))
    except Timeout:
        given = f"another process is running in {run_dir}"
        raise config_error("run_dir", given, "another folder", "wait for it, or stop it") from None
    try:
        yield
    finally:
        lock.release()


def is_locked(run_dir: Path) -> bool:
    """Whether a process is running in this folder.

    Looks by a shared lock, so any number of processes may look at once, without write access.
    """
    try:
        with (run_dir / _LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(file, fcntl.LOCK_UN)  # closing is not enough if a child has a copy
    except FileNotFoundError:
        return False
    except OSError:  # held; on a file system without flock, the file itself is the lock
        return True
    return False


def is_global_zero() -> bool:
    """Whether this process is rank 0, which writes; the other ranks of a run share its folder.

    Read from the variables of torchrun and Slurm: importing Lightning takes seconds.
    """
    return os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


@contextmanager
def log_to(run_dir: Path) -> Iterator[None]:
    """Copy log records, warnings and the exception that ends the block to log.txt; on rank 0."""
    if not is_global_zero():
        yield
        return
    handler = logging.FileHandler(run_dir / LOG_FILE, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in ("lpt", "lightning.pytorch", "py.warnings")]
    logging.captureWarnings(True)
    own, level = loggers[0], loggers[0].level
    own.setLevel(logging.DEBUG)
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    except Exception:
        own.debug("The run failed:", exc_info=True)
        raise
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        own.setLevel(level)
        with suppress(OSError):  # was reported when it could not be written
            handler.close()
        logging.captureWarnings(False)


@contextmanager
def explain_os_errors(run_dir: Path | None) -> Iterator[None]:
    """Say what to do about a full disk or a missing folder; `run_dir` is None before it is created.

    Raises:
        RunError: An OSError was raised within the block.
    """
    try:
        yield
    except OSError as error:
        # Raised by a library, with its own explanation; or a data loading worker is gone.
        if error.errno is None or isinstance(error, ConnectionError):
            raise
        hint = "The run was not started."
        if run_dir is not None:
            hint = "What was saved before is unchanged. "
            hint += f"Fix this, then rerun with resume={run_dir} to resume."
        place = error.filename or run_dir or "runs"
        raise RunError(f"{place}: {error.strerror or error}. {hint}") from error
