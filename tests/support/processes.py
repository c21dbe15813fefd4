"""Commands and functions in processes of their own, and waiting for them."""

from __future__ import annotations

import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lpt.config.schema import PACKAGE_DIR
from tests.support import runs

TRAIN, SWEEP = ("-m", "lpt.cli.train"), ("-m", "lpt.cli.sweep")
SECONDS = 20
START_SECONDS = 180  # until a run trains or a short one has ended, on a busy machine
END_SECONDS = 60  # from a fault to the end of the run
FINISH = f"echo {shlex.quote(json.dumps(runs.metrics()))} > metrics.json"
"""Last command of a shell script that replaces a run."""
POLITE = "trap 'exit 75' TERM; echo $$ > started; while :; do sleep 0.02; done"
"""As a run: ends by itself, with its state saved, when it is asked to."""
DEAF = "trap '' TERM; echo $$ > started; while :; do sleep 0.02; done"
"""Has to be killed."""


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


@contextmanager
def no_room() -> Iterator[Callable[[int], None]]:
    """Yields a function that limits the size of files, which acts like a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


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


def descendants(pid: int) -> list[int]:
    """Processes below one, its children first."""
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            children += map(int, (task / "children").read_text().split())
        except OSError:  # it has ended meanwhile
            continue
    return children + [below for child in children for below in descendants(child)]


class Command:
    """A run (with several ranks: their launcher) or a sweep in a process of its own."""

    def __init__(self, command: Sequence[str], arguments: Sequence[str], output: Path) -> None:
        self.output, self.start = output, time.time()
        [folder] = (a for a in arguments if a.startswith(("run_dir=", "sweep.dir=")))
        self.folder = Path(folder.partition("=")[2])
        output.parent.mkdir(exist_ok=True)
        offline = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, *command, *arguments],
                env={**os.environ, **offline, "PYTHONPATH": str(PACKAGE_DIR.parent)},
                cwd=output.parent,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        """What was printed so far, each state of a progress bar on a line of its own."""
        return self.output.read_text(errors="replace").replace("\r", "\n")

    def ranks(self) -> dict[int, int]:
        """Process id of each local rank."""
        found = {}
        for pid in descendants(self.process.pid):
            try:
                variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            except OSError:  # it has ended meanwhile
                continue
            for rank in (int(v[11:]) for v in variables if v.startswith(b"LOCAL_RANK=")):
                found.setdefault(rank, pid)  # its own children inherit the variable
        return found

    def wait_for_evaluation(self, run_dir: Path | None = None) -> None:
        """Wait until the run (or that run of a sweep) trains and was evaluated at least once."""
        progress = (run_dir or self.folder) / "progress.json"

        def evaluated() -> bool:
            assert self.process.poll() is None, self.text[-3000:]
            if not progress.exists() or progress.stat().st_mtime < self.start:
                return False  # of an earlier start
            return bool(json.loads(progress.read_text())["dev_history"])

        until(evaluated, START_SECONDS)

    def wait(self) -> int:
        """Exit status of a command that ends by itself."""
        return self.process.wait(START_SECONDS)

    def end(self) -> int:
        """Exit status after a fault or signal; fails if a process is left."""
        below = descendants(self.process.pid)
        status = self.process.wait(END_SECONDS)
        until(lambda: not any(map(alive, below)), END_SECONDS)
        return status


@contextmanager
def started(
    arguments: Sequence[str], output: Path, command: Sequence[str] = TRAIN
) -> Iterator[Command]:
    """A command, no process of which survives the block."""
    run = Command(command, arguments, output)
    try:
        yield run
    finally:
        for pid in [run.process.pid, *descendants(run.process.pid)]:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        run.process.wait()


def finished(
    arguments: Sequence[str], output: Path, command: Sequence[str] = TRAIN, status: int = 0
) -> str:
    """Run a command to its end, with this exit status; returns what it prints."""
    with started(arguments, output, command) as run:
        assert run.wait() == status, run.text[-3000:]
    return run.text


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
