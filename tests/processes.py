"""Processes that stand in for runs, and what to wait for them with."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests import runs

SECONDS = 20
FINISH = f"echo {shlex.quote(json.dumps(runs.metrics()))} > metrics.json"
"""What a shell script does last that stands in for a run."""


def until(true: Callable[[], Any], seconds: float = SECONDS) -> None:
    """Wait for something, but not for ever."""
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


def shell(
    arguments: Sequence[str], output: Path, cwd: Path | None, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a job whose first argument is a shell script, run in the job's folder."""
    with output.open("ab") as file:
        return subprocess.Popen(
            ["sh", "-c", arguments[0]],
            cwd=cwd or output.parent,
            env={**os.environ, **environment},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
