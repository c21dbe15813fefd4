"""Train one late prompt: python train.py model=roberta-large task=sst2 prompt.layer=13."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from lpt.cli.main import run_composed, run_hydra
from lpt.config.schema import CONF_DIR


@hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="train")
def train(config: DictConfig) -> None:
    """Hydra's task function; `lpt.experiment.run` is what a run does."""
    run_composed(config)


def main() -> None:
    """The console script lpt-train."""
    run_hydra(train)


if __name__ == "__main__":
    main()
