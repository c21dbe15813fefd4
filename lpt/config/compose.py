"""Configurations of many runs, composed from overrides."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lpt.config.command_line import (
    check_overrides,
    config_folders,
    config_groups,
    parse_value,
)
from lpt.config.schema import CONF_DIR, Config, composition_error, register, typed
from lpt.errors import config_error


class RunComposer:
    """Composes configurations of runs; Hydra composes each choice of groups only once.

    Args:
        fixed: Overrides that all runs share.
        config_name: Name of the primary config.
        config_dir: Folder of the user's own config groups.
    """

    def __init__(
        self, fixed: Sequence[str], config_name: str = "train", config_dir: Path | None = None
    ) -> None:
        searchpath = [] if config_dir is None else [f"hydra.searchpath=[file://{config_dir}]"]
        self.fixed = [*searchpath, *fixed]
        self.config_name = config_name
        self.groups = config_groups(*config_folders(config_dir))
        self._compose_choices: Callable[..., DictConfig] = cache(self._compose)

    def compose(self, settings: Mapping[str, str]) -> Config:
        """The configuration with these further overrides, by key or group.

        Raises:
            ConfigError: A value is missing or cannot be resolved.
        """
        choices = [f"{key}={value}" for key, value in settings.items() if key in self.groups]
        composed = copy.deepcopy(self._compose_choices(*choices))
        for key, value in settings.items():
            try:
                if key not in self.groups:
                    OmegaConf.update(composed, key, parse_value(value))
            except OmegaConfBaseException as error:
                reason = str(error).splitlines()[0]
                schema = "see lpt/config/schema.py and lpt/config/task_schema.py"
                raise config_error(key, f"{value}: {reason}", schema) from error
        return typed(composed)

    def _compose(self, *choices: str) -> DictConfig:
        register()
        try:
            with ExitStack() as stack:
                if not GlobalHydra.instance().is_initialized():  # outside of hydra.main
                    stack.enter_context(initialize_config_dir(str(CONF_DIR), version_base="1.3"))
                return compose(self.config_name, overrides=[*self.fixed, *choices])
        except HydraException as error:
            raise composition_error(error) from error


def compose_grid(overrides: Sequence[str], config_dir: Path | None = None) -> list[Config]:
    """One configuration for each combination of comma-separated values.

    Args:
        overrides: Overrides as for train.py, e.g. `task=rte,sst2 data.seed=13,21`.
        config_dir: Folder of the user's own config groups.

    Raises:
        ConfigError: An override is invalid, or a value is missing.
    """
    check_overrides(overrides, *config_folders(config_dir))
    fixed: list[str] = []
    axes: dict[str, list[str]] = {}
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if override.is_sweep_override():
            axes[override.get_key_element()] = list(override.sweep_string_iterator())
        else:
            fixed.append(str(override.input_line))
    composer = RunComposer(fixed, config_dir=config_dir)
    return [
        composer.compose(dict(zip(axes, values, strict=True)))
        for values in itertools.product(*axes.values())
    ]
