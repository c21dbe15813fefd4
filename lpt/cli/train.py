"""Train one run: python train.py model=roberta-large task=sst2 prompt.layer=13."""

from __future__ import annotations

from lpt.cli.main import run_hydra


def main() -> None:
    """The console script lpt-train."""
    run_hydra("train")


if __name__ == "__main__":
    main()
