"""What a job of a sweep costs besides its training: forked off a server, or started afresh.

python -m bench.sweeping model=... task=... seed=1,2,3,4
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from lpt.config.schema import PACKAGE_DIR

SWEEP = PACKAGE_DIR.parent / "sweep.py"
# Both run one job after the other; basic is Hydra's own, with a process for each job.
LAUNCHERS = {"pool": "forked", "basic": "started afresh"}


def seconds_of_jobs(launcher: str, overrides: list[str], folder: Path) -> list[float]:
    """Seconds of each job but the first, which fills the cache and starts the server."""
    given = [f"hydra/launcher={launcher}", f"sweep.dir={folder}", "sweep.report=false", *overrides]
    subprocess.run([sys.executable, str(SWEEP), *given], check=True)  # noqa: S603
    lines = (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["job_seconds"] for line in lines][1:]


def main() -> None:
    """Print the median of each way."""
    with tempfile.TemporaryDirectory() as folder:
        for launcher, name in LAUNCHERS.items():
            seconds = seconds_of_jobs(launcher, sys.argv[1:], Path(folder) / launcher)
            print(f"{name}: {median(seconds):.1f} s a job (median of {len(seconds)})", flush=True)


if __name__ == "__main__":
    main()
