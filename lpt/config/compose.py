"""Configurations composed by Hydra from conf/ and overrides or settings, and made typed."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lpt.config.command_line import (
    check_overrides,
    check_settings,
    config_folders,
    config_groups,
    parse_value,
)
from lpt.config.label_text import read_label_texts
from lpt.config.method_checks import check_prompt_keys
from lpt.config.schema import CONF_DIR, PACKAGE_DIR, Config, with_model_name
from lpt.config.task_schema import OF_THE_DATA
from lpt.errors import ConfigError, Problems, config_error


def register() -> None:
    """Register the schema and the `lpt.package` resolver with Hydra.

    `${lpt.package:data/demo}` is the absolute path of a folder inside the lpt package.
    """
    schema = OmegaConf.structured(Config)
    for free in (schema.task.label_aliases, schema.method.config, schema.prompt.args):
        OmegaConf.set_struct(free, False)  # new keys without Hydra's `+`
    ConfigStore.instance().store(name="schema", node=schema)
    OmegaConf.register_new_resolver(
        "lpt.package", lambda relative: str(PACKAGE_DIR / relative), replace=True
    )


def typed(composed: DictConfig) -> Config:
    """The configuration that Hydra composed, as dataclasses.

    Raises:
        ConfigError: A value is missing or cannot be resolved.
    """
    if OmegaConf.get_type(composed) is not Config:
        hint = "begin its defaults list with `- train`, which includes `- schema`"
        raise config_error("defaults", "a configuration without lpt's schema", "", hint)
    problems = Problems()
    missing = OmegaConf.missing_keys(composed)
    if missing:
        missing |= {key for key in OF_THE_DATA if OmegaConf.select(composed, key) == []}
    for key in sorted(missing):
        problems.add(key, "no value", "", f"set it: {key}=...")
    problems.raise_if_any()
    try:
        config = OmegaConf.to_object(composed)
    except OmegaConfBaseException as error:
        key = str(getattr(error, "full_key", None) or "configuration")
        raise config_error(key, str(error).splitlines()[0], "a value that resolves") from error
    assert isinstance(config, Config)
    read_label_texts(config.task, problems)
    problems.raise_if_any()
    return with_model_name(config)


def composition_error(error: Exception) -> ConfigError:
    """What Hydra or the YAML reader found wrong with a config file or override."""
    lines = str(error).splitlines()
    if isinstance(error.__cause__, OmegaConfBaseException):
        lines += str(error.__cause__).splitlines()
    details = ("full_key:", "reference_type=", "object_type=")
    kept = [line for line in lines if line.strip() and not line.strip().startswith(details)]
    return config_error("configuration", "\n".join(dict.fromkeys(kept)))


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
        self.compose_choices: Callable[..., DictConfig] = cache(self._compose)

    def compose(self, settings: Mapping[str, str]) -> Config:
        """The configuration with these further overrides, by key or group.

        Raises:
            ConfigError: A value is missing or cannot be resolved.
        """
        choices = [f"{key}={value}" for key, value in settings.items() if key in self.groups]
        values = {k: parse_value(value) for k, value in settings.items() if k not in self.groups}
        return self.with_values(values, *choices)

    def with_values(self, values: Mapping[str, Any], *choices: str) -> Config:
        """The configuration with these choices of groups and these values of keys.

        Raises:
            ConfigError: A value is missing or cannot be resolved.
        """
        composed = copy.deepcopy(self.compose_choices(*choices))
        for key, value in values.items():
            try:
                OmegaConf.update(composed, key, value)
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


def compose_settings(settings: Mapping[str, Any]) -> Config:
    """See `Config.compose`."""
    check_settings(settings, CONF_DIR)
    composer = RunComposer([])
    choices, values = [], {}
    for key, value in settings.items():
        if key in composer.groups:
            several = isinstance(value, list | tuple)
            text = f"[{','.join(value)}]" if several else "null" if value is None else value
            choices.append(f"{key}={text}")
        else:
            values[key] = value
    config = composer.with_values(values, *choices)
    problems = Problems()
    check_prompt_keys(config, settings, problems)
    problems.raise_if_any()
    return config
