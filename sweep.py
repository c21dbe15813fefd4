"""Run a sweep and report on it: python sweep.py sweep=layers task=sst2."""

from __future__ import annotations

from pathlib import Path

import hydra
from omegaconf import DictConfig

from lpt.cli.main import run_composed, start


@hydra.main(version_base="1.3", config_path="conf", config_name="sweep")
def main(config: DictConfig) -> None:
    """Hydra's entry point; hydra_plugins/lpt_sweep.py takes over, see lpt.sweep."""
    run_composed(config)


if __name__ == "__main__":
    start(Path(__file__).parent / "conf", sweep=True)
    main()
