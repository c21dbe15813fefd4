"""Run a sweep and report on it: python sweep.py sweep=layers task=sst2."""

from __future__ import annotations

from lpt.cli.main import run_hydra


def main() -> None:
    """The console script lpt-sweep."""
    run_hydra("sweep")


if __name__ == "__main__":
    main()
