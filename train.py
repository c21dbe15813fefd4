"""Train one late prompt: python train.py model=roberta-large task=sst2 prompt.layer=13."""

from __future__ import annotations

from pathlib import Path

import hydra
from omegaconf import DictConfig

from lpt.cli.main import run_composed, start


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(config: DictConfig) -> None:
    """Hydra's entry point; see lpt.experiment for what a run does."""
    run_composed(config)


if __name__ == "__main__":
    start(Path(__file__).parent / "conf")
    main()
