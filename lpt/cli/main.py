"""A run or sweep on the command line: checks before Hydra, error messages, exit codes, logging."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from yaml import YAMLError

from lpt.config.command_line import check_overrides, expand_all_keyword
from lpt.config.schema import CONF_DIR, PACKAGE_DIR, Config, composition_error, register, typed
from lpt.config.validation import validate
from lpt.errors import CTRL_C, FAILURE, USAGE_ERROR, ConfigError, RunError, config_error

_MULTIRUN = "python sweep.py ..., or python train.py -m ..."
_FULL_ERROR = "HYDRA_FULL_ERROR"


def run_hydra(application: Callable[[], None]) -> None:
    """Check the command line and start a Hydra application; exit with 2 on a faulty configuration.

    Args:
        application: A function decorated with `@hydra.main`.
    """
    register()
    _share_import_path()
    traceback_wanted = _FULL_ERROR in os.environ
    try:
        _check_arguments(sys.argv[1:])
        sys.argv[1:] = map(expand_all_keyword, sys.argv[1:])
        os.environ[_FULL_ERROR] = "1"  # Hydra raises its errors instead of printing them
        application()
    except (ConfigError, RunError) as error:
        _exit_with(error)
    except (HydraException, YAMLError) as error:
        if traceback_wanted:
            raise
        _exit_with(composition_error(error))
    finally:
        if not traceback_wanted:
            os.environ.pop(_FULL_ERROR, None)


def _share_import_path() -> None:
    """Make ranks and jobs of a sweep import this clone, whatever else is installed."""
    clone = CONF_DIR.parent
    if clone == PACKAGE_DIR.parent:
        paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if paths[0] != str(clone):
            os.environ["PYTHONPATH"] = os.pathsep.join([str(clone), *filter(None, paths)])


def run_composed(composed: DictConfig) -> float | None:
    """Run the configuration that Hydra composed; on a problem, print it and exit.

    A job of a sweep, which a launcher of Hydra may have sent to another machine, runs in a process
    of its own.

    Returns:
        The dev score of the selected checkpoint, for Hydra's own sweepers.
    """
    hydra = HydraConfig.get()
    multirun = hydra.mode == RunMode.MULTIRUN
    if multirun and _run_job(composed):
        return None
    try:
        swept = [o for o in hydra.overrides.task if o.startswith(("sweep=", "sweep."))]
        if swept and not multirun:
            raise config_error("sweep", f"{swept[0]} for a single run", "a multirun", _MULTIRUN)
        config = typed(composed)
        validate(config).raise_if_any()  # before the slow imports
        return _run(config, hydra.overrides.task if multirun else sys.argv[1:])
    except (ConfigError, RunError) as error:
        if multirun:
            raise  # Hydra's launcher runs the other jobs first
        _exit_with(error)


def _run(config: Config, command: Sequence[str]) -> float | None:
    gc.disable()  # garbage collection would take two of the five seconds of these imports
    if config.dry_run:
        from lpt.training.plan import dry_run  # does not import Lightning
    else:
        from lpt.experiment import run
        from lpt.training.rank_process import in_rank
    gc.freeze()  # what was imported stays until the process ends
    gc.enable()
    _configure_logging()
    if config.dry_run:
        dry_run(config)
        return None
    record = in_rank(run)(config, command)
    return record.selection.value if record is not None else None


def _run_job(composed: DictConfig) -> bool:
    """Run a job of lpt's sweeper; False if another sweeper is in use."""
    from lpt.runs.job_record import JOB
    from lpt.sweep.jobs import run_job

    cwd = Path(HydraConfig.get().runtime.cwd)
    folder = cwd / (composed.run_dir or "")
    if not (folder / JOB).is_file():
        return False
    run_job(folder, cwd=cwd)
    return True


def run_swept(
    composed: DictConfig,
    arguments: Sequence[str],
    launch: Callable[[Sequence[Sequence[str]]], None],
) -> NoReturn:
    """Run a sweep, and exit with its status; see lpt.sweep.main.run_sweep."""
    try:
        from lpt.sweep.main import run_sweep

        _configure_logging()
        raise SystemExit(run_sweep(composed, arguments, launch))
    except ConfigError as error:
        _exit_with(error)
    except KeyboardInterrupt as stop:  # before the first job, or after the last one
        raise SystemExit(CTRL_C) from stop


def _check_arguments(arguments: Sequence[str]) -> None:
    """Check the overrides, unless only Hydra knows all names.

    That is so in tab completion, in a rerun, and with search paths besides `--config-dir`.
    """
    flags = _hydra_flags(arguments)
    if flags.shell_completion or flags.experimental_rerun or flags.config_path:
        return
    folders = [Path(flags.config_dir)] if flags.config_dir else []
    files = [folder / f"{flags.config_name}.yaml" for folder in folders]
    texts = [file.read_text(encoding="utf-8") for file in files if file.is_file()]
    if not any("searchpath" in text for text in (*flags.overrides, *texts)):
        check_overrides(flags.overrides, CONF_DIR, *folders)


def _hydra_flags(arguments: Sequence[str]) -> argparse.Namespace:
    """The arguments as Hydra reads them.

    Hydra has no public function for this; pyproject.toml keeps its version below 1.4.
    """
    from hydra._internal.utils import get_args_parser

    return get_args_parser().parse_args(list(arguments))


def _exit_with(error: ConfigError | RunError) -> NoReturn:
    if isinstance(error, ConfigError):
        sys.stderr.write(f"{error}\n")
        raise SystemExit(USAGE_ERROR)
    sys.stderr.write(f"\n{error}\n")  # on a line of its own, after a progress bar
    raise SystemExit(FAILURE)


def _configure_logging() -> None:
    from lpt.runs.run_dir import is_global_zero  # slow to import

    console = logging.StreamHandler()
    # The log file of a run has more. What concerns all ranks, rank 0 prints.
    console.setLevel(logging.INFO if is_global_zero() else logging.ERROR)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[console])
    for name in ("lightning.pytorch", "httpx", "httpx2", "wandb"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        "does not have many workers",  # batches are small and ready-made
        "isinstance.treespec, LeafSpec",  # Lightning 2.6 with torch 2.13
        "sync_dist=True",  # logged values are already global
        "in eval mode at the start of training",  # frozen layers are, on purpose
        "smaller than the logging interval",  # few-shot runs have few steps
    ):
        warnings.filterwarnings("ignore", f".*{message}.*")
    # A resumed run: its folder is not empty, and the data module knows its place in the epoch.
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
    warnings.filterwarnings("ignore", ".*your dataloader is not resumable.*")
