"""Processes of jobs: started from scratch, or forked off one that has imported everything."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from lpt.cli.main import PARENT
from lpt.config.schema import PACKAGE_DIR

TRAIN = PACKAGE_DIR.parent / "train.py"
_PRELOADED = ["lpt.experiment", "hydra.main"]
# By these, Lightning takes a process for one of a group that was started from outside.
_OF_A_RANK = (
    *("LPT_RUN_DIR", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "RANK"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
)
_OF_A_GROUP = ("SLURM_", "TORCHELASTIC_")
_one_at_a_time = threading.Lock()  # multiprocessing looks after all its children in one place


class Process(Protocol):
    """A process that leads a session of its own: Ctrl-C in the terminal does not reach it."""

    pid: int

    def poll(self) -> int | None:
        """Its exit status, negative: the signal that killed it; None while it runs."""


def start_fresh(
    arguments: Sequence[str], output: Path, cwd: Path | None, environment: Mapping[str, str]
) -> Process:
    """`python train.py ...`, whose output is added to a file.

    Args:
        arguments: Of train.py.
        output: Where what it prints goes.
        cwd: Its working directory; None: this process's.
        environment: Variables to set besides those of this process.

    Raises:
        OSError: It cannot be started.
    """
    with output.open("ab") as file:
        return subprocess.Popen(  # noqa: S603  # arguments are those of this command line
            [sys.executable, str(TRAIN), *arguments],
            cwd=cwd,
            env={**_own(os.environ), **environment, PARENT: str(os.getpid())},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


class Forked:
    """The same as `start_fresh`, within a tenth of a second instead of ten.

    It is forked off a server that has imported the libraries and done nothing else: it has used
    neither threads nor a GPU. One server is started with the first job, and ends with this process.
    """

    def __init__(
        self, arguments: Sequence[str], output: Path, cwd: Path | None, given: Mapping[str, str]
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        with _one_at_a_time, _importable(TRAIN.parent), _without_ctrl_c():
            environment = {**_own(os.environ), **given}
            self._process = context.Process(
                target=_train, args=(list(arguments), str(output), cwd or Path.cwd(), environment)
            )
            self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Its exit status, negative: the signal that killed it; None while it runs."""
        with _one_at_a_time:
            return self._process.exitcode


def ask_to_end(process: Process) -> None:
    """Have a job save its state and end: its first process tells the other ranks.

    Its data loader's workers must not be asked, too: a run whose workers end has failed.
    """
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGTERM)


def kill(process: Process) -> None:
    """Kill all processes of a job that there still are: other ranks and workers are its children.

    The first one may not lead a group of its own yet.
    """
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Start processes that Ctrl-C in the terminal does not reach, while they lead no session."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Have the server import this checkout, wherever it is started."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(folder), before)))
    try:
        yield
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before


def _own(environment: Mapping[str, str]) -> dict[str, str]:
    """Without what makes a process one of a group that trains together; errors told in full."""
    kept = {
        name: value
        for name, value in environment.items()
        if name not in _OF_A_RANK and not name.startswith(_OF_A_GROUP)
    }
    return {**kept, "HYDRA_FULL_ERROR": "1"}


def own_progress_bars() -> None:
    """Give a forked process a lock of its own for progress bars.

    All that are forked off one process share tqdm's: one that is killed while it holds the lock
    would stop every other one for good.
    """
    lock, kinds = threading.RLock(), [tqdm]
    for kind in kinds:  # subclasses may have one of their own
        kind.set_lock(lock)
        kinds += kind.__subclasses__()


def _end_with_sweep() -> None:
    """Have this process asked to end when the sweep's is gone, however that went."""
    sweep = multiprocessing.parent_process()
    assert sweep is not None
    sweep.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _train(
    arguments: Sequence[str], output: str, cwd: Path, environment: Mapping[str, str]
) -> None:
    """What a forked process does: as `python train.py ...` would."""
    os.setsid()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    file = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    threading.Thread(target=_end_with_sweep, daemon=True).start()
    own_progress_bars()
    if "OMP_NUM_THREADS" in environment:  # the library read its variable before it was set
        import torch

        torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    sys.argv = [str(TRAIN), *arguments]
    sys.path[0] = str(TRAIN.parent)
    runpy.run_path(str(TRAIN), run_name="__main__")
