"""The command line, checked before Hydra composes it: all unknown names, each with near ones."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lpt.config.hydra_settings import check_hydras, is_hydras, without_flags
from lpt.config.schema import Config
from lpt.errors import Problems, did_you_mean


def check_overrides(arguments: Sequence[str], conf: Path, *, multirun: bool = True) -> None:
    """Check group choices, keys and value types of the command line.

    Args:
        arguments: Command line without the program's name.
        conf: Folder of the configuration groups.
        multirun: Whether keys may have several values.

    Raises:
        ConfigError: An unknown choice, key or flag, or a value of the wrong type.
    """
    problems = Problems()
    groups, keys = config_groups(conf), schema_keys(Config)
    schema = OmegaConf.structured(Config)
    for argument in without_flags(arguments, problems):
        try:
            override = OverridesParser.create().parse_override(several(argument))
        except HydraException as error:
            problems.add(argument, str(error).splitlines()[0], "key=value", _QUOTING)
            continue
        name = override.key_or_group
        if _CLASS in argument:
            hint = "leave it out: groups choose what a run is made of, as prompt=npg does"
            problems.add(argument, f"names a class ({_CLASS})", "settings", hint)
        elif is_hydras(override):
            check_hydras(override, conf, problems)
        elif override.package is not None:
            problems.add(name, argument, f"{name}=VALUE", "leave out what is behind @")
        elif override.is_sweep_override() and not multirun:
            given = argument.partition("=")[2]
            problems.add(name, f"{given} for a single run", "one value", f"for several: {MULTIRUN}")
        elif name in groups:
            _check_choices(name, override, groups[name], problems)
        else:
            _check_key(name, override, keys, list(groups), schema, problems)
    problems.raise_if_any()


def several(argument: str) -> str:
    """An override as Hydra takes it: `prompt.layer=all` stands for several values."""
    return f"{LAYER}=choice({ALL})" if argument == f"{LAYER}={ALL}" else argument


def config_groups(conf: Path) -> dict[str, list[str]]:
    """The groups in a folder of configurations and their choices; Hydra's own are left out."""
    folders = [d for d in conf.iterdir() if d.is_dir() and d.name != "hydra"]
    return {d.name: sorted(f.stem for f in d.glob("*.yaml")) for d in folders}


_CLASS = "_target_"  # by which Hydra makes whatever object is named
# Groups whose choices combine; of any other, one is chosen.
_SEVERAL = ("logger",)
MULTIRUN = "python sweep.py ..., or python train.py -m ..."
LAYER, ALL = "prompt.layer", "all"
_QUOTING = "quote values with spaces, braces or colons twice: 'task.template=\"{text} ...\"'"


def schema_keys(schema: type, prefix: str = "") -> dict[str, Any]:
    """Every dotted key of a dataclass schema and its type."""
    keys: dict[str, Any] = {}
    types = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        name, kind = f"{prefix}{field.name}", types[field.name]
        keys[name] = kind
        if dataclasses.is_dataclass(kind):
            keys |= schema_keys(typing.cast(type, kind), f"{name}.")
    return keys


def _check_choices(
    group: str, override: Override, options: Sequence[str], problems: Problems
) -> None:
    if override.is_delete() or override.is_add():
        given = str(override.input_line)
        problems.add(given, "a group has a choice already", f"{group}={'|'.join(options)}")
        return
    for choice in _values(override):
        if isinstance(choice, list) and group not in _SEVERAL:
            problems.add(f"{group}={choice}", "several choices", f"one of {', '.join(options)}")
            continue
        for one in choice if isinstance(choice, list) else [choice]:
            if str(one) not in options:
                hint = did_you_mean(str(one), options)
                problems.add(f"{group}={one}", "no such choice", ", ".join(options), hint)


def _check_key(
    name: str,
    override: Override,
    keys: dict[str, Any],
    groups: list[str],
    schema: DictConfig,
    problems: Problems,
) -> None:
    parent = name
    while parent not in keys and "." in parent:
        parent = parent.rpartition(".")[0]
    inside_mapping = parent != name and typing.get_origin(keys.get(parent)) is dict
    if name not in keys and not inside_mapping:
        hint = did_you_mean(name, [*keys, *groups]) or did_you_mean(name.split(".")[-1], groups)
        problems.add(
            name,
            "no such key",
            "the keys of lpt/config/schema.py and lpt/config/task_schema.py",
            hint,
        )
        return
    if override.is_delete() or inside_mapping:
        return
    for value in _values(override):
        if name == LAYER and value == ALL and override.is_sweep_override():
            continue  # a sweep puts the model's layers here
        try:
            OmegaConf.update(schema, name, value)
        except OmegaConfBaseException as error:
            kind = getattr(keys[name], "__name__", str(keys[name]))
            problems.add(name, str(error).splitlines()[0], kind)


def _values(override: Override) -> list[Any]:
    if override.is_sweep_override():
        if override.value_type not in (ValueType.CHOICE_SWEEP, ValueType.SIMPLE_CHOICE_SWEEP):
            return []  # ranges, intervals and globs: each job checks its own
        # Each one as it will arrive in a job.
        choices = list(override.sweep_string_iterator())
        parser = OverridesParser.create()
        return [parser.parse_override(f"key={choice}").value() for choice in choices]
    return [override.value()]
