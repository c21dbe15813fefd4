"""The process of a job, forked from a server that has already imported the libraries.

This saves each job seconds of imports. The server starts with the first job and ends with the
sweep's process.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import runpy
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

from lpt.runs.environment import REVISION, source_revision

_revision = cache(source_revision)  # taken when the server imports the source, for all jobs
_PRELOAD = ["lpt.sweep.process", "lpt.cli.main", "lpt.experiment"]
# Variables by which Lightning and torch take a process for a member of a distributed group.
_RANK_VARIABLE = re.compile(
    "(LOCAL_|NODE_|GROUP_)?RANK|(LOCAL_)?WORLD_SIZE|MASTER_(ADDR|PORT)|(SLURM|TORCHELASTIC)_.*"
)

Start = Callable[[Sequence[str], Path, Path, Mapping[str, str]], BaseProcess]
"""As `start_process`."""


def start_process(
    overrides: Sequence[str], output: Path, cwd: Path, environment: Mapping[str, str]
) -> BaseProcess:
    """Start `python -m lpt.cli.train` in a session of its own.

    Args:
        overrides: Its command line.
        output: File that stdout and stderr are appended to.
        cwd: Its working directory.
        environment: Variables to set on top of those of this process.

    Raises:
        OSError: The process cannot be started.
    """
    kept = {name: v for name, v in os.environ.items() if not _RANK_VARIABLE.fullmatch(name)}
    variables = {**kept, REVISION: _revision(), **environment}
    # The fork server does not know the start method that joblib sets in its workers.
    multiprocessing.set_start_method(None, force=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread:  # the server and all jobs ignore Ctrl-C in the terminal
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    forkserver.ensure_running()
    if in_main_thread:
        signal.signal(signal.SIGINT, handler)
    process = context.Process(target=_train, args=(list(overrides), output, cwd, variables))
    process.start()
    return process


@contextmanager
def deferred_signals() -> Iterator[list[int]]:
    """Within the block, collect the signals that stop a sweep; after it, act on the first one.

    An exception raised by a handler while a process is being started would lose that process. A
    third signal raises KeyboardInterrupt at once.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # it gets no signals
        yield received
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = {n: h for n in numbers if (h := signal.getsignal(n)) != signal.SIG_IGN}

    def collect(number: int, _: FrameType | None) -> None:
        received.append(number)
        if len(received) > 2:
            raise KeyboardInterrupt

    for number in before:
        signal.signal(number, collect)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        signal.raise_signal(received[0])


def _train(
    overrides: Sequence[str], output: Path, cwd: Path, environment: Mapping[str, str]
) -> None:
    """Become `python -m lpt.cli.train OVERRIDES`, in a forked process."""
    os.setsid()
    with output.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    threading.Thread(target=_end_with_sweep, daemon=True).start()
    sys.argv = ["train.py", *overrides]
    runpy.run_module("lpt.cli.train", run_name="__main__", alter_sys=True)


def _end_with_sweep() -> None:
    """Make this process save its state and end once the process of the sweep is gone."""
    sweep = multiprocessing.parent_process()
    assert sweep is not None
    sweep.join()
    os.kill(os.getpid(), signal.SIGTERM)
