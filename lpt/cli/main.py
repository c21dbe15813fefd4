"""A run or sweep on the command line: checks before Hydra, error messages, exit codes, logging."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from yaml import YAMLError

from lpt.config.command_line import check_overrides, expand_all_keyword, key_of
from lpt.config.compose import RunComposer, composition_error, register, typed
from lpt.config.method_checks import check_prompt_keys
from lpt.config.schema import CONF_DIR, PACKAGE_DIR, Config
from lpt.config.validation import validate
from lpt.errors import CTRL_C, FAILURE, USAGE_ERROR, ConfigError, RunError, config_error

_MULTIRUN = "python sweep.py ..., or python train.py -m ..."
_USAGE = """usage: lpt-{} [group=choice ...] [key=value ...]

dry_run=true checks everything and prints the resolved configuration; `--cfg job` prints it
unchecked; `--config-dir FOLDER` adds groups of your own; `--hydra-help` lists Hydra's flags.

"""
_FULL_ERROR = "HYDRA_FULL_ERROR"


def run_hydra(config_name: str) -> None:
    """Check the command line, compose its configuration and run it.

    Args:
        config_name: Primary config, in conf/.

    Raises:
        SystemExit: With 2 on a faulty configuration; otherwise as in lpt.errors.
    """
    register()
    _share_import_path()
    traceback_wanted = _FULL_ERROR in os.environ
    compose = hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name=config_name)
    try:
        sys.argv[1:] = map(expand_all_keyword, sys.argv[1:])
        flags = _parse_arguments(sys.argv[1:])
        if flags.help:
            _print_help(config_name, flags)
            return
        os.environ[_FULL_ERROR] = "1"  # Hydra raises its errors instead of printing them
        compose(run_composed)()
    except (ConfigError, RunError) as error:
        _exit_with(error)
    except (HydraException, YAMLError) as error:
        if traceback_wanted:
            raise
        _exit_with(composition_error(error))
    except KeyboardInterrupt as stop:  # while nothing ran that has to be saved
        raise SystemExit(CTRL_C) from stop
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
    """Hydra's task function: run the configuration; on a problem, print it and exit.

    A job of lpt's sweeper, which a launcher of Hydra may have sent to another machine, runs in a
    process of its own.

    Returns:
        The dev score of the selected checkpoint, for Hydra's own sweepers.
    """
    given = HydraConfig.get()
    multirun = given.mode == RunMode.MULTIRUN
    if multirun and composed.run_dir is not None:
        from lpt.runs.job_record import JOB
        from lpt.sweep.jobs import run_job

        cwd = Path(given.runtime.cwd)
        if (cwd / composed.run_dir / JOB).is_file():
            run_job(cwd / composed.run_dir, cwd=cwd)
            return None
    try:
        swept = [o for o in given.overrides.task if o.startswith(("sweep=", "sweep."))]
        if swept and not multirun:
            raise config_error("sweep", f"{swept[0]} for a single run", "a multirun", _MULTIRUN)
        config = typed(composed)
        problems = validate(config)
        check_prompt_keys(config, map(key_of, given.overrides.task), problems)
        if config.task.labels and config.task.label_words:  # or else the data suggest them
            problems.raise_if_any()  # before the slow imports
        return _run(config, given.overrides.task if multirun else sys.argv[1:])
    except (ConfigError, RunError) as error:
        if multirun:
            raise  # Hydra's launcher runs the other jobs first
        _exit_with(error)  # before Hydra adds a line of its own


def _run(config: Config, command: Sequence[str]) -> float | None:
    gc.disable()  # garbage collection would take two of the five seconds of these imports
    if config.dry_run:
        from lpt.training.plan import dry_run  # does not import Lightning
    else:
        from lpt.experiment import run
        from lpt.training.launcher import in_rank
    gc.freeze()  # what was imported stays until the process ends
    gc.enable()
    configure_logging()
    if config.dry_run:
        dry_run(config)
        return None
    record = in_rank(run)(config, command)
    return record.selection.value if record is not None else None


def _parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Hydra's flags, after a check of the overrides, unless only Hydra knows all names.

    That is so in tab completion, in a rerun, and with search paths besides `--config-dir`.
    """
    # Hydra has no public function for this; pyproject.toml keeps its version below 1.4.
    from hydra._internal.utils import get_args_parser

    flags: argparse.Namespace = get_args_parser().parse_args(list(arguments))
    if flags.shell_completion or flags.experimental_rerun or flags.config_path:
        return flags
    folders = [Path(flags.config_dir)] if flags.config_dir else []
    files = [folder / f"{flags.config_name}.yaml" for folder in folders]
    texts = [file.read_text(encoding="utf-8") for file in files if file.is_file()]
    if not any("searchpath" in text for text in (*flags.overrides, *texts)):
        check_overrides(flags.overrides, CONF_DIR, *folders)
    overrides = OverridesParser.create().parse_overrides(flags.overrides)
    swept = [str(override.input_line) for override in overrides if override.is_sweep_override()]
    if flags.cfg and (flags.multirun or swept):
        found = f"with {', '.join(['--multirun'] * flags.multirun + swept)}"
        hint = "leave that out; dry_run=true instead of --cfg lists the jobs of a sweep"
        raise config_error("--cfg", found, "a single run", hint)
    return flags


def _print_help(config_name: str, flags: argparse.Namespace) -> None:
    """Print all groups and keys, with values as these arguments set them."""
    from lpt.config.reference import help_text

    parsed = OverridesParser.create().parse_overrides(flags.overrides)
    single = [str(given.input_line) for given in parsed if not given.is_sweep_override()]
    folder = Path(flags.config_dir).absolute() if flags.config_dir else None
    composer = RunComposer(single, flags.config_name or config_name, folder)
    sys.stdout.write(
        f"{_USAGE.format(config_name)}{help_text(composer.compose_choices(), composer.groups)}\n"
    )


def _exit_with(error: ConfigError | RunError) -> NoReturn:
    if isinstance(error, ConfigError):
        sys.stderr.write(f"{error.not_started}\n")
        raise SystemExit(USAGE_ERROR)
    sys.stderr.write(f"\n{error}\n")  # on a line of its own, after a progress bar
    raise SystemExit(FAILURE)


def configure_logging() -> None:
    """Print what lpt logs, and no warnings that lpt has dealt with."""
    from lpt.runs.run_dir import is_global_zero  # slow to import
    from lpt.training.silence import silence_libraries

    console = logging.StreamHandler()
    # The log file of a run has more. What concerns all ranks, rank 0 prints.
    console.setLevel(logging.INFO if is_global_zero() else logging.ERROR)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[console])
    silence_libraries(bars=sys.stderr.isatty())  # no bars in a file
