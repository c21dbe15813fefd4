"""Run a sweep and report on it: python sweep.py sweep=layers task=sst2."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from lpt.cli.main import run_composed, run_hydra
from lpt.config.schema import CONF_DIR


@hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="sweep")
def sweep(config: DictConfig) -> None:
    """Hydra's task function; hydra_plugins/lpt_sweep.py runs the sweep, see `lpt.sweep`."""
    run_composed(config)


def main() -> None:
    """The console script lpt-sweep."""
    run_hydra(sweep)


if __name__ == "__main__":
    main()
