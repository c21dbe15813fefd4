"""Around a run on the command line: checks before Hydra, clean messages, quiet libraries."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from lpt.config.command_line import MULTIRUN, check_overrides, several
from lpt.config.schema import register, typed
from lpt.errors import CTRL_C, PREEMPTED, USAGE_ERROR, ConfigError, RunError, config_error

PARENT = "LPT_SWEEP_PROCESS"  # id of the process that watches over a job of a sweep
_PR_SET_PDEATHSIG = 1
_MULTIRUN_FLAGS = {"-m", "--multirun", "hydra.mode=MULTIRUN"}


def start(conf: Path, *, sweep: bool = False) -> None:
    """To be called before Hydra's main: make the schema known and check the command line.

    Exits with status 2 after printing every problem.

    Args:
        conf: Folder of the configuration groups.
        sweep: Whether keys may have several values without `-m`.
    """
    if PARENT in os.environ:
        _end_with(int(os.environ.pop(PARENT)))
    register()
    try:
        multirun = sweep or not _MULTIRUN_FLAGS.isdisjoint(sys.argv)
        check_overrides(sys.argv[1:], conf, multirun=multirun)
    except ConfigError as error:
        _exit_with(error)
    sys.argv[1:] = map(several, sys.argv[1:])


def run_composed(composed: DictConfig) -> None:
    """Run what Hydra composed; on a problem, print it and exit with status 2.

    As a job of a multirun, which one of Hydra's launchers has brought here, wherever that is, start
    a process for it.
    """
    hydra = HydraConfig.get()
    if hydra.mode == RunMode.MULTIRUN:
        from lpt.sweep.job import JOB, run_job

        cwd = Path(hydra.runtime.cwd)
        folder = cwd / (composed.run_dir or "")
        if not (folder / JOB).is_file():
            _exit_with(
                config_error("hydra/sweeper", "another one", "lpt, which gives each job its folder")
            )
        run_job(folder, cwd=cwd)
        return
    try:
        for given in hydra.overrides.task:
            if given.startswith(("sweep=", "sweep.")):
                raise config_error("sweep", f"{given} for a single run", "a multirun", MULTIRUN)
        config = typed(composed)
        from lpt.experiment import run  # slow to import: a wrong command line fails before

        _quiet_libraries()
        run(config)
    except ConfigError as error:
        _exit_with(error)
    except RunError as error:
        sys.stderr.write(f"\n{error}\n")  # on a line of its own, after a progress bar
        raise SystemExit(1) from error


def run_swept(
    composed: DictConfig,
    arguments: Sequence[str],
    launch: Callable[[Sequence[Sequence[str]]], None],
) -> NoReturn:
    """Run a sweep, and exit with its status; see lpt.sweep.sweep.run_sweep."""
    try:
        from lpt.sweep.sweep import run_sweep

        _quiet_libraries()
        raise SystemExit(run_sweep(composed, arguments, launch))
    except ConfigError as error:
        _exit_with(error)
    except KeyboardInterrupt as stop:  # before the first job, or after the last one
        raise SystemExit(CTRL_C) from stop


def _end_with(parent: int) -> None:
    """Have this process asked to end (SIGTERM) when the one that watches over it is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it is gone already
        raise SystemExit(PREEMPTED)


def _exit_with(error: ConfigError) -> NoReturn:
    sys.stderr.write(f"{error}\n")
    raise SystemExit(USAGE_ERROR)


def _quiet_libraries() -> None:
    from lpt.runs.run_dir import is_global_zero  # slow to import

    console = logging.StreamHandler()
    # The log file of a run has more. What all ranks say, the first one says for them.
    console.setLevel(logging.INFO if is_global_zero() else logging.ERROR)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[console])
    for name in ("lightning.pytorch", "httpx", "httpx2", "wandb"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Batches are small and ready-made: workers would cost more than they save.
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", ".*predict returned None.*")
    warnings.filterwarnings("ignore", ".*across ranks is zero.*")  # all was cached
    warnings.filterwarnings("ignore", ".*sync_dist=True.*")  # what is logged is of all ranks
    # Frozen layers are in eval mode on purpose, and steps are few.
    warnings.filterwarnings("ignore", ".*module.s. in eval mode at the start of training.*")
    warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")
