"""The folder of a run: found or made, cleared of what an earlier run left, and the log in it."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from lightning.pytorch.utilities import rank_zero_only

from lpt.config.schema import Config
from lpt.errors import RunError, config_error
from lpt.runs.record import ADAPTER, CONFIG, FINISHED, PROGRESS
from lpt.training.checkpoints import FOLDER, saved

# Set by the first process; the others run the same command and share its folder.
_ENVIRONMENT = "LPT_RUN_DIR"
SAVING_SECONDS = 60.0  # that a run may take to save its state when it is asked to end
_LOCK = ".lock"
_LEFT_BEHIND = (
    FINISHED,
    "predictions*.tsv",
    CONFIG,
    PROGRESS,
    "log.txt",
    ADAPTER,
    "checkpoints",
    "csv",
    "tensorboard",
    "wandb",
)


def claim_run_dir(config: Config, layer: int, *, goes_on: bool = False) -> Path:
    """The folder of this run, made if it is not there.

    It is cleared of what an earlier run left, unless this one goes on with it.

    Raises:
        ConfigError: Processes that were started one by one have no common folder; another run has
            taken it meanwhile.
    """
    if not is_global_zero():
        common = os.environ.get(_ENVIRONMENT, config.run_dir)
        if common is None:
            raise config_error(
                "run_dir", "null, with processes started from outside", "a common folder"
            )
        return Path(common)
    run_dir = Path(config.run_dir) if config.run_dir is not None else _new_folder(config, layer)
    run_dir.mkdir(parents=True, exist_ok=True)
    if not goes_on:
        with lock_run_dir(run_dir, 0):
            held = existing_outputs(run_dir)
            # Of what could be gone on with there was nothing when this run was planned.
            resumable = [*saved(run_dir / FOLDER), *run_dir.glob(FINISHED)]
            others = held if config.resume is None else resumable
            if others and not config.overwrite:
                raise config_error(
                    "run_dir", f"another run has begun in {run_dir}", "another folder"
                )
            for path in held:
                _remove(path)
    os.environ[_ENVIRONMENT] = str(run_dir)
    return run_dir


@contextmanager
def lock_run_dir(folder: Path, patience: float) -> Iterator[None]:
    """Keep other processes out of the folder of a run, within the block.

    Args:
        folder: Of the run; it is there.
        patience: Seconds to wait for another process, which may be saving its state.

    Raises:
        ConfigError: Another process goes on using it.
    """
    if not is_global_zero():
        yield
        return
    lock = FileLock(folder / _LOCK, is_singleton=True)  # within a process it can be taken again
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        given = f"another process is running in {folder}"
        raise config_error("run_dir", given, "another folder", "wait for it, or stop it") from None
    try:
        yield
    finally:
        lock.release()


def is_locked(folder: Path) -> bool:
    """Whether the process of a run is alive that has this folder."""
    if not (folder / _LOCK).exists():
        return False
    try:
        with FileLock(folder / _LOCK).acquire(timeout=0):
            return False
    except Timeout:
        return True


def existing_outputs(run_dir: Path) -> list[Path]:
    """What an earlier run left in a folder."""
    return [path for pattern in _LEFT_BEHIND for path in sorted(run_dir.glob(pattern))]


@contextmanager
def explain_os_errors(run_dir: Path | None) -> Iterator[None]:
    """Say what is to be done about a full disk or a folder that is gone.

    Args:
        run_dir: Of the run; None before there is one.

    Raises:
        RunError: Within the block, the machine did not do as it should.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:  # of a library, which has its own reasons
            raise
        what = f"{error.filename or run_dir or 'runs'}: {error.strerror or error}. "
        if run_dir is None:
            raise RunError(f"{what}Nothing was begun.") from error
        hint = f"Mend that; then the same command with {resume_override(run_dir)} goes on."
        raise RunError(f"{what}What was saved before is as it was. {hint}") from error


def resume_override(run_dir: Path) -> str:
    """What is to be added to the command of a run that was interrupted."""
    return f"resume={run_dir}"


class _LogFile(logging.FileHandler):
    """A file whose loss is told once; the run goes on."""

    lost = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """As logging calls it when a record cannot be written."""
        if not self.lost:
            self.lost = True
            with suppress(OSError):  # it may lie on the same disk
                sys.stderr.write(f"{self.baseFilename} cannot be written: {sys.exc_info()[1]}\n")


@contextmanager
def log_to(run_dir: Path) -> Iterator[None]:
    """Send log records and warnings to log.txt in the run folder, too, and what ends the block."""
    if not is_global_zero():
        yield
        return
    handler = _LogFile(run_dir / "log.txt", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    names = ("lpt", "lightning.pytorch", "py.warnings")
    loggers = [logging.getLogger(name) for name in names]
    logging.captureWarnings(True)
    logging.getLogger("lpt").setLevel(logging.DEBUG)
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    except Exception:
        logging.getLogger("lpt").debug("The run ends with", exc_info=True)
        raise
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        with suppress(OSError):  # of what could not be written, and was told
            handler.close()
        logging.captureWarnings(False)


def is_global_zero() -> bool:
    """Whether this is the process that writes; the others of a run share its folder."""
    # Until the ranks have met, Lightning takes the first process of each node for the first of all.
    return getattr(rank_zero_only, "rank", 0) == 0 and os.environ.get("NODE_RANK", "0") == "0"


def _new_folder(config: Config, layer: int) -> Path:
    """A folder under runs/ that no other run has, named by time and setting."""
    parts = (config.task.name, config.model.name, f"{config.prompt.kind}{layer}")
    stem = "-".join([time.strftime("%Y%m%d-%H%M%S"), *parts, f"s{config.seed}"])
    number = 1
    while True:
        folder = Path("runs") / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return folder


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
