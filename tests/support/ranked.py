"""Runs with several ranks, started through the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from lpt.config.schema import PACKAGE_DIR
from tests.support.csv_curves import read_curves
from tests.support.processes import alive, until

TWO = ("strategy=ddp", "strategy.devices=2")
TRAIN = ("-m", "lpt.cli.train")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *TRAIN)
START_SECONDS = 180  # until a run trains, on a busy machine
END_SECONDS = 60  # from a fault to the end of the run
Arguments = Callable[..., list[str]]


class Run:
    """A run in a process of its own.

    Attributes:
        process: The process that was started: the launcher of the ranks.
        start: When it was started.
        run_dir: Folder of the run.
        output: File with what the run prints.
    """

    def __init__(self, command: Sequence[str], arguments: Sequence[str], output: Path) -> None:
        self.output, self.start = output, time.time()
        (self.run_dir,) = (Path(a[8:]) for a in arguments if a.startswith("run_dir="))
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, *command, *arguments],
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PACKAGE_DIR.parent)},
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
        for pid in children(self.process.pid):
            try:
                variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            except OSError:  # it has ended meanwhile
                continue
            for rank in (int(v[11:]) for v in variables if v.startswith(b"LOCAL_RANK=")):
                found[rank] = pid
        return found

    def wait_for_evaluation(self) -> None:
        """Wait until it trains and has been evaluated at least once."""
        progress = self.run_dir / "progress.json"

        def evaluated() -> bool:
            assert self.process.poll() is None, self.text[-3000:]
            if not progress.exists() or progress.stat().st_mtime < self.start:
                return False  # of an earlier start
            return bool(json.loads(progress.read_text())["dev_history"])

        until(evaluated, START_SECONDS)

    def end(self) -> int:
        """Exit status; fails if a rank is left."""
        ranks = self.ranks()
        status = self.process.wait(END_SECONDS)
        until(lambda: not any(map(alive, ranks.values())), END_SECONDS)
        return status


@contextmanager
def started(
    arguments: Sequence[str], output: Path, command: Sequence[str] = TRAIN
) -> Iterator[Run]:
    """A run, no process of which survives the block."""
    run = Run(command, arguments, output)
    try:
        yield run
    finally:
        for pid in [run.process.pid, *run.ranks().values()]:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        run.process.wait()


def finished(arguments: Sequence[str], output: Path, command: Sequence[str] = TRAIN) -> None:
    """Run to the end."""
    with started(arguments, output, command) as run:
        status = run.process.wait(START_SECONDS)
        assert status == 0, run.text[-3000:]


def children(pid: int) -> list[int]:
    """Child processes."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            found += map(int, (task / "children").read_text().split())
        except OSError:  # it has ended meanwhile
            continue
    return found


def assert_alike(found: Path, expected: Path) -> None:
    """Assert that a run with several ranks equals one with one rank and the same global batch."""
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
    """Logged values by step."""
    return {row["step"]: float(row[name]) for row in read_curves(run_dir) if row.get(name)}
