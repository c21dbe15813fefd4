"""Whether a sweep of many runs slows down or leaks: seconds per job, memory and open files.

    python -m bench.long_sweep 1000 model=... task=... data=kshot data.k=16

Runs a sweep over that many seeds and compares its first tenth with its last one. Each job is a
process; what could leak are the sweep and the fork server that starts the jobs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from lpt.config.schema import PACKAGE_DIR
from lpt.files import MB

SWEEP = PACKAGE_DIR.parent / "sweep.py"
_EVERY = 2.0  # seconds between samples


class Sample(NamedTuple):
    """Resources of the sweep and its fork server.

    Attributes:
        megabytes: Resident memory.
        files: Open files.
    """

    megabytes: float
    files: int


def sample(process: int) -> Sample:
    """Resources of a process and its children; the jobs are grandchildren."""
    folders = [Path(f"/proc/{process}")]
    for task in (folders[0] / "task").iterdir():
        folders += [Path(f"/proc/{child}") for child in (task / "children").read_text().split()]
    kilobytes = files = 0
    for folder in folders:
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        kilobytes += int(status["VmRSS"].split()[0])
        files += len(list((folder / "fd").iterdir()))
    return Sample(kilobytes * 1024 / MB, files)


def run_long_sweep(
    runs: int, overrides: list[str], folder: Path
) -> tuple[list[float], list[Sample]]:
    """Seconds of each job, in planned order, and samples of the resources."""
    space = ["sweep=seeds", f"seed=range(1,{runs + 1})", f"sweep.dir={folder}"]
    command = [sys.executable, str(SWEEP), *space, "sweep.report=false", *overrides]
    samples: list[Sample] = []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:  # noqa: S603
        while process.poll() is None:
            time.sleep(_EVERY)
            try:
                now = sample(process.pid)
            except (OSError, KeyError):  # a process is ending
                continue
            if len(list((folder / "jobs").glob("*/metrics.json"))) > runs // 20:  # warmed up
                samples.append(now)
    if process.returncode:
        raise SystemExit(process.returncode)
    lines = (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["job_seconds"] for line in lines], samples


def main() -> None:
    """Print medians of the first and the last tenth."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        seconds, samples = run_long_sweep(int(sys.argv[1]), sys.argv[2:], Path(folder) / "sweep")
        minutes = (time.monotonic() - started) / 60
    tenth, few = len(seconds) // 10, max(1, len(samples) // 10)
    print(f"{len(seconds)} runs in {minutes:.1f} min; medians of the first and the last tenth:")
    print(f"seconds per job: {median(seconds[1:tenth]):.2f}, {median(seconds[-tenth:]):.2f}")
    for name in Sample._fields:
        values = [float(getattr(entry, name)) for entry in samples]
        print(f"{name}: {median(values[:few]):.1f}, {median(values[-few:]):.1f}", flush=True)


if __name__ == "__main__":
    main()
