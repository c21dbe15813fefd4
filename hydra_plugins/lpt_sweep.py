"""Hydra's view of a sweep: the sweeper that plans, and the launcher for this machine.

The work is done in lpt.sweep, which is imported when a sweep starts: Hydra reads this file at the
start of every program.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class LptSweeper(Sweeper):
    """Plans the jobs of a sweep, has a launcher run them, and reports."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what is needed, and make the launcher."""
        self.composed = config
        self.through: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run it; ends the program with its exit status."""
        from lpt.cli.main import run_swept

        started = 0

        def launch(batch: Sequence[Sequence[str]]) -> None:
            nonlocal started
            self.through.launch(batch, initial_job_idx=started)
            started += len(batch)

        run_swept(self.composed, arguments, launch)


class LptPool(Launcher):
    """Runs jobs on this machine, `sweep.jobs` at a time."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what is needed."""
        self.at_a_time = config.sweep.jobs

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run these jobs; what became of them is in their folders."""
        from lpt.sweep.pool import run_pool

        run_pool([_run_dir(overrides) for overrides in job_overrides], self.at_a_time)
        returns = [JobReturn(overrides=overrides) for overrides in job_overrides]
        for one in returns:
            one.status, one.return_value = JobStatus.COMPLETED, None
        return returns


def _run_dir(overrides: Sequence[str]) -> Path:
    from lpt.sweep.space import parsed_value

    given = [o.partition("=")[2] for o in overrides if o.startswith("run_dir=")]
    if not given:
        raise SystemExit("hydra/launcher=pool runs the jobs of hydra/sweeper=lpt only.")
    return Path(str(parsed_value(given[-1])))


store = ConfigStore.instance().store
store("lpt", {"_target_": "hydra_plugins.lpt_sweep.LptSweeper"}, group="hydra/sweeper")
store("pool", {"_target_": "hydra_plugins.lpt_sweep.LptPool"}, group="hydra/launcher")
