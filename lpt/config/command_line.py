"""Names and values on the command line, checked before Hydra composes them.

Hydra stops at the first unknown name; here all of them are reported together, with close matches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigIndexError,
    ConfigKeyError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from lpt.config.label_text import spellings
from lpt.config.resolve import flatten
from lpt.config.schema import CONF_DIR, Config
from lpt.errors import Problems, did_you_mean

LAYERS, ALL = ("prompt.layer", "method.layer"), "all"
_QUOTING = "quote values with spaces, braces or colons twice: 'task.template=\"{text} ...\"'"
_MEANINGLESS = {  # lpt chooses the folders of runs
    "hydra.run.dir": "use run_dir=FOLDER",
    "hydra.sweep.dir": "use sweep.dir=FOLDER",
    "hydra.sweep.subdir": "a job's folder is named after its settings",
}
_COMBINING = ("logger", "experiment", "debug")  # lpt's groups of which several may be chosen


def check_overrides(overrides: Sequence[str], *folders: Path) -> None:
    """Check the names of groups, choices and keys, and the types of values.

    Args:
        overrides: As on the command line: `group=choice`, `key=value`.
        folders: Where Hydra finds config files: conf/, and that of `--config-dir`.

    Raises:
        ConfigError: An unknown name, or a value of the wrong type.
    """
    problems = Problems()
    groups, schema = config_groups(*folders), OmegaConf.structured(Config)
    for argument in overrides:
        try:
            override = OverridesParser.create().parse_override(expand_all_keyword(argument))
        except HydraException as error:
            problems.add(argument, str(error).splitlines()[0], "key=value", _QUOTING)
            continue
        name = override.key_or_group
        if name in groups or name in _MEANINGLESS or not override.is_hydra_override():
            _check_setting(name, _values(override), groups, schema, problems)
    problems.raise_if_any()


def check_settings(settings: Mapping[str, Any], *folders: Path) -> None:
    """As `check_overrides`, of keys and groups with their values in Python.

    Raises:
        ConfigError: An unknown name, or a value of the wrong type.
    """
    problems = Problems()
    groups, schema = config_groups(*folders), OmegaConf.structured(Config)
    for name, value in settings.items():
        _check_setting(name, [value], groups, schema, problems)
    problems.raise_if_any()


def expand_all_keyword(argument: str) -> str:
    """`prompt.layer=all` as Hydra accepts it; any other override is returned unchanged."""
    key, _, value = argument.partition("=")
    return f"{key}=choice({ALL})" if key in LAYERS and value == ALL else argument


def key_of(argument: str) -> str:
    """Key or group that an override sets, adds (`+`) or removes (`~`)."""
    return argument.lstrip("+~").partition("=")[0]


def config_groups(*folders: Path) -> dict[str, list[str]]:
    """The config groups below the folders and their choices, but for those of Hydra itself."""
    groups: dict[str, set[str]] = {}
    for folder in folders:
        for file in folder.glob("*/**/*.yaml"):
            parts = file.relative_to(folder).with_suffix("").parts
            for depth in range(1, len(parts)) if parts[0] != "hydra" else ():
                groups.setdefault("/".join(parts[:depth]), set()).add("/".join(parts[depth:]))
    return {group: sorted(choices) for group, choices in groups.items()}


def config_folders(config_dir: Path | None = None) -> list[Path]:
    """The folders with config files: those that Hydra found, by default conf/, and `config_dir`."""
    folders = [CONF_DIR]
    if HydraConfig.initialized():
        sources = HydraConfig.get().runtime.config_sources
        folders = [Path(source.path) for source in sources if source.schema == "file"]
    return folders if config_dir is None else [*folders, config_dir]


def _check_setting(
    name: str,
    values: Sequence[Any],
    groups: Mapping[str, Sequence[str]],
    schema: Any,
    problems: Problems,
) -> None:
    if name in _MEANINGLESS:
        problems.add(name, "has no effect", "", _MEANINGLESS[name])
    elif name in groups:
        _check_choices(name, values, groups[name], name in schema, problems)
    else:
        _check_key(name, values, schema, list(groups), problems)


def _check_choices(
    name: str, values: Sequence[Any], options: Sequence[str], single: bool, problems: Problems
) -> None:
    for value in values:
        choices = value if isinstance(value, list) else [value]
        if len(choices) > 1 and single and name not in _COMBINING:
            problems.add(f"{name}={value}", "several choices", "one")
        for choice in choices:
            if choice is not None and str(choice) not in options:
                hint = did_you_mean(str(choice), options)
                problems.add(f"{name}={choice}", "no such choice", ", ".join(options), hint)


def _check_key(
    name: str, values: Sequence[Any], schema: Any, groups: list[str], problems: Problems
) -> None:
    for value in values:
        try:
            if name not in LAYERS or value != ALL:
                OmegaConf.update(schema, name, value)
        except (ConfigAttributeError, ConfigKeyError):
            names = [*flatten(dataclasses.asdict(Config())), *groups]
            hint = did_you_mean(name, names) or did_you_mean(name.split(".")[-1], groups)
            problems.add(name, "no such key", "a key that --help lists", hint)
            return
        except (MissingMandatoryValue, ConfigIndexError):
            pass  # an item of a list that a config file has
        except OmegaConfBaseException as error:
            problems.add(name, str(error).splitlines()[0])


def _values(override: Override) -> list[Any]:
    """The values that an override gives a key, as far as they are known before Hydra runs."""
    if override.is_delete():
        return []
    if not override.is_sweep_override():
        return [override.value()]
    if override.value_type not in (ValueType.CHOICE_SWEEP, ValueType.SIMPLE_CHOICE_SWEEP):
        return []  # a range or a glob
    return [parse_value(text) for text in override.sweep_string_iterator()]


def parse_value(text: str) -> Any:
    """The value that an override with this text sets."""
    return OverridesParser.create().parse_override(f"key={text}").value()


def label_aliases_setting(aliases: Mapping[str, str]) -> str:
    """How to set label aliases: an override, or YAML where Hydra's grammar has no such key."""
    override = ",".join(f"{key}:{quoted(label)}" for key, label in aliases.items())
    try:
        typed = {spelling for key in parse_value(f"{{{override}}}") for spelling in spellings(key)}
    except HydraException:
        typed = set()
    if set(aliases) <= typed:
        return f'"task.label_aliases={{{override}}}"'
    listed = ", ".join(f"{key!r}: {label!r}" for key, label in aliases.items())
    return f"label_aliases: {{{listed}}} in the YAML file of the task"


def quoted(label: str) -> str:
    """A label as Hydra's grammar takes it in a list."""
    bare = label.isascii() and label.isidentifier() and parse_value(label) == label
    return label if bare else f"'{label}'"
