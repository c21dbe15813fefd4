"""Processes that replace runs, and waiting for them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tests.support import runs

SECONDS = 20
FINISH = f"echo {shlex.quote(json.dumps(runs.metrics()))} > metrics.json"
"""Last command of a shell script that replaces a run."""


def until(true: Callable[[], Any], seconds: float = SECONDS) -> None:
    """Wait until a condition holds; fail when it takes too long."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not asked about does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def forked(task: Callable[[], Any], errors: Path) -> int:
    """Run a function in a forked process, without output.

    Args:
        task: The function.
        errors: File for the traceback if it raises; the exit status is 1 then.

    Returns:
        Id of the process.
    """
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        _replace_progress_bar_locks()
        task()
        status = 0
    except Exception:
        errors.write_text(traceback.format_exc())
    finally:
        os._exit(status)


def ended(child: int) -> int:
    """Wait for a forked process; gives its exit status, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _replace_progress_bar_locks() -> None:
    """Give a forked process its own: another one may have been killed while it held them."""
    lock, kinds = threading.RLock(), [tqdm]
    for kind in kinds:
        kind.set_lock(lock)
        kinds += kind.__subclasses__()


class Shell(subprocess.Popen[bytes]):
    """A process with the interface of multiprocessing."""

    @property
    def exitcode(self) -> int | None:
        """Exit status; None while it runs."""
        return self.poll()


def shell(overrides: Sequence[str], output: Path, _: Path, environment: Mapping[str, str]) -> Shell:
    """Start a job whose first override is a shell script, run in the job's folder."""
    with output.open("ab") as file:
        return Shell(
            ["sh", "-c", overrides[0]],
            cwd=output.parent,
            env={**os.environ, **environment},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
