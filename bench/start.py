"""Time until the command line answers: python -m bench.start [--model FOLDER].

User CPU seconds and wall seconds of a refused key, a refused value, a dry run and a two-step run.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

COMMANDS = {
    "refused key": ["modle=x"],
    "refused value": ["task.labels=[a]"],
    "dry run": ["dry_run=true"],
    "two steps": ["debug=fast"],
}
LIMITS = {"refused key": 0.6, "refused value": 0.6, "dry run": 4.0, "two steps": 6.0}  # seconds


def measure(arguments: Sequence[str], folder: str) -> tuple[float, float]:
    """User CPU and wall seconds of `lpt-train` with these arguments."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime, time.perf_counter()
    subprocess.run(  # noqa: S603  # the commands above
        [sys.executable, "-m", "lpt.cli.train", *arguments],
        cwd=folder,
        env={"PYTHONPATH": os.getcwd(), **os.environ},
        capture_output=True,
    )
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    return used, time.perf_counter() - start


def main() -> None:
    """Print a line for each command."""
    parser = argparse.ArgumentParser(prog="python -m bench.start", description=__doc__)
    parser.add_argument("--model", help="folder of a model; default: the demo's")
    model = parser.parse_args().model
    chosen = ["model=local", f"model.path={os.path.abspath(model)}"] if model else []
    print(f"{'':14} {'user s':>7} {'wall s':>7} {'limit':>6}")
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments in COMMANDS.items():
            used, wall = measure([*chosen, *arguments], folder)
            print(f"{name:14} {used:7.2f} {wall:7.2f} {LIMITS[name]:6.1f}")


if __name__ == "__main__":
    main()
