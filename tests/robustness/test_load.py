"""Many runs, and one with much data: nothing leaks, nothing grows beyond what it should."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

from bench.long_sweep import run_long_sweep, sample
from lpt.experiment import run
from lpt.files import MB
from tests.conftest import MakeConfig, toy_overrides
from tests.support.processes import TRAIN

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc"),
]
_ROWS = 100_000
KSHOT = ("data=kshot", "data.k=16")


def test_many_runs_in_one_sweep(
    checkpoints: dict[str, Path], toy_data: Path, tmp_path: Path
) -> None:
    given = toy_overrides(checkpoints, toy_data, "masked", *KSHOT)
    seconds, samples = run_long_sweep(30, given, tmp_path / "sweep")
    assert len(seconds) == 30
    assert len(samples) > 9
    few = len(samples) // 3
    first, last = samples[:few], samples[-few:]
    assert median(s.files for s in last) <= median(s.files for s in first) + 2
    assert median(s.megabytes for s in last) <= 1.01 * median(s.megabytes for s in first)


def test_many_runs_in_one_process(toy: MakeConfig, tmp_path: Path) -> None:
    samples = []
    for number in range(30):
        run(toy("masked", *KSHOT, f"seed={number}", f"run_dir={tmp_path / str(number)}"))
        samples.append(sample(os.getpid()))
    assert samples[-1].files <= samples[10].files
    assert samples[-1].megabytes < samples[10].megabytes + 20  # less than 1 MB per run


def peak_megabytes(command: list[str], folder: Path) -> float:
    """Peak memory of a process that must succeed."""
    with (folder / "output.txt").open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, (folder / "output.txt").read_text()[-2000:]
    return usage.ru_maxrss * 1024 / MB


def test_the_memory_for_a_large_file_is_proportional_to_its_rows(
    checkpoints: dict[str, Path], toy_data: Path, tmp_path: Path
) -> None:
    """At this rate, two million rows fit into 4 GB."""
    lines = (toy_data / "train.tsv").read_text().splitlines()
    peaks = []
    for count in (len(lines), _ROWS):
        folder = tmp_path / str(count)
        folder.mkdir()
        for name in ("dev.tsv", "test.tsv"):
            (folder / name).write_bytes((toy_data / name).read_bytes())
        with (folder / "train.tsv").open("w") as file:
            file.writelines(f"{lines[i % len(lines)]} and {i}\n" for i in range(count))
        given = toy_overrides(checkpoints, folder, "masked", "run_dir=run")
        peaks.append(peak_megabytes([sys.executable, *TRAIN, *given], folder))
    assert peaks[1] - peaks[0] < _ROWS * 1500 / MB
