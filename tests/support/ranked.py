"""Runs with several ranks, each a process as the command line starts it."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.support.faulty import TRAIN
from tests.support.processes import alive, until

FAULTY = TRAIN.parent / "tests" / "faulty.py"
TWO = ("strategy=ddp", "strategy.devices=2")
SECONDS = 60  # in which a run has ended after one of its ranks
Arguments = Callable[..., list[str]]


@contextmanager
def started(
    arguments: list[str], output: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A run, alone in its process group; none of its processes may be left in the end."""
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, str(FAULTY), *arguments],
            cwd=output.parent,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
        until(lambda: not members(process.pid), SECONDS)
    finally:
        for pid in members(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()


def members(group: int) -> list[int]:
    """The processes of a group that run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(fields[2]) == group and alive(int(folder.name)):
            found.append(int(folder.name))
    return found


def result(process: subprocess.Popen[bytes], output: Path) -> int:
    """Exit status of a run: within a minute after what it meets with."""
    assert process.wait(300) is not None
    status: int = process.returncode
    for line in told(output).splitlines():
        if line.startswith("met at "):
            assert time.time() - float(line.split()[2]) < SECONDS
    return status


def told(output: Path) -> str:
    """What a run printed; what a progress bar has written over is a line of its own."""
    return output.read_text(errors="replace").replace("\r", "\n")


def finished(arguments: list[str], output: Path) -> None:
    """Run to the end."""
    with started(arguments, output) as process:
        assert result(process, output) == 0, told(output)[-3000:]


def assert_alike(found: Path, expected: Path) -> None:
    """That a run with several ranks gives what one gives at the same global batch."""
    metrics, others = (json.loads((d / "metrics.json").read_text()) for d in (found, expected))
    for part in ("zero_shot", "majority"):
        assert metrics[part] == others[part]
    for part in ("dev", "test"):
        assert metrics[part] == pytest.approx(others[part], abs=1e-5)
    assert metrics["selection"]["step"] == others["selection"]["step"]
    for name in metrics["metrics"]:
        curve = curve_of(found, f"dev/{name}")
        assert len(curve) == len(metrics["dev_history"]) > 1
        assert curve == pytest.approx(curve_of(expected, f"dev/{name}"), abs=1e-5)
    losses = curve_of(found, "train/loss")
    assert len(losses) > 1
    assert losses == pytest.approx(curve_of(expected, "train/loss"), abs=1e-5)
    weights, same = (
        torch.load(d / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for d in (found, expected)
    )
    torch.testing.assert_close(weights, same, atol=1e-5, rtol=0)


def curve_of(run_dir: Path, name: str) -> dict[str, float]:
    """Its values by step."""
    with (run_dir / "csv" / "metrics.csv").open(newline="") as lines:
        return {row["step"]: float(row[name]) for row in csv.DictReader(lines) if row.get(name)}
