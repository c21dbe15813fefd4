"""Hydra plugins: the sweeper that plans the jobs of a sweep, and the launcher for this machine.

Hydra imports this file whenever it starts, so `lpt.sweep` is imported only when a sweep runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class LptSweeper(Sweeper):
    """Plans jobs, has a launcher run them, and reports; see `lpt.sweep.main`."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Create the launcher."""
        self.composed = config
        HydraConfig.instance().set_config(config)  # as Hydra does for a single run
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run the sweep and exit with its status."""
        from lpt.cli.main import configure_logging
        from lpt.sweep.main import run_sweep

        launched = 0

        def launch(batch: Sequence[Sequence[str]]) -> None:
            nonlocal launched
            self.launcher.launch(batch, initial_job_idx=launched)
            launched += len(batch)

        configure_logging()
        raise SystemExit(run_sweep(self.composed, arguments, launch))


class LptPool(Launcher):
    """Runs jobs on this machine, `sweep.jobs` at a time; see `lpt.sweep.pool`."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep the number of jobs that run at the same time."""
        self.jobs = config.sweep.jobs

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run these jobs; their results are in their folders, nothing is returned."""
        from lpt.config.command_line import parse_value
        from lpt.sweep.pool import run_pool

        texts = [text for overrides in job_overrides for text in overrides]
        values = [text.partition("=")[2] for text in texts if text.startswith("run_dir=")]
        if len(values) < len(job_overrides):
            raise SystemExit("hydra/launcher=pool only runs the jobs of hydra/sweeper=lpt.")
        run_pool([Path(str(parse_value(value))) for value in values], self.jobs)
        return []


store = ConfigStore.instance().store
store("lpt", {"_target_": "hydra_plugins.lpt_sweep.LptSweeper"}, group="hydra/sweeper")
store("pool", {"_target_": "hydra_plugins.lpt_sweep.LptPool"}, group="hydra/launcher")
