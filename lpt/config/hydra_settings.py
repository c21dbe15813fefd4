"""What the command line may say to Hydra itself: where jobs run, and nothing that runs code.

Hydra makes objects of what stands below `hydra` (callbacks, handlers of logs, plugins), imports the
packages of its search path, and reads a pickle to run an experiment again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override

from lpt.errors import Problems, did_you_mean

_LAUNCHERS = ("basic", "joblib", "pool", "ray")  # besides those of conf/hydra/launcher
# What a job is given on a cluster. Neither commands to run before it (setup) nor the folder that
# submitit's pickles are read from.
_OF_LAUNCHERS = (
    *("n_jobs", "partition", "account", "qos", "constraint", "exclude", "gres", "comment", "name"),
    *("nodes", "tasks_per_node", "gpus_per_node", "gpus_per_task", "cpus_per_task", "cpus_per_gpu"),
    *("mem_gb", "mem_per_cpu", "mem_per_gpu", "timeout_min", "signal_delay_s", "max_num_timeout"),
    *("array_parallelism", "ray.init.address"),
    *("ray.remote.num_gpus", "ray.remote.num_cpus", "ray.remote.max_retries"),
)
_MODE, _VERBOSE, _OUTPUT = "hydra.mode", "hydra.verbose", "hydra.output_subdir"
_OF_RANKS = ("hydra.run.dir", "hydra.job.name", _OUTPUT)  # Lightning gives them to further ranks
_KEYS = (*(f"hydra.launcher.{key}" for key in _OF_LAUNCHERS), _MODE, _VERBOSE, *_OF_RANKS)
_ALLOWED = f"hydra/launcher, hydra.launcher.KEY (docs/sweeps.md), {_MODE}, {_VERBOSE}"

_FLAGS = (
    *("-m", "--multirun", "-r", "--run", "-h", "--help", "--hydra-help", "--version"),
    *("--resolve", "-sc", "--shell-completion"),
)
_FLAGS_WITH_VALUE = ("-c", "--cfg", "-p", "--package", "-i", "--info", "-cn", "--config-name")
_CONFIGS = ("train", "sweep")


def is_hydras(override: Override) -> bool:
    """Whether an override is of Hydra itself, and no key or group of lpt."""
    return override.key_or_group.replace("/", ".").split(".")[0] == "hydra"


def check_hydras(override: Override, conf: Path, problems: Problems) -> None:
    """Check an override of Hydra itself.

    Args:
        override: As Hydra's parser takes it.
        conf: Folder of the configuration groups.
        problems: Every fault is noted there.
    """
    name = override.key_or_group
    groups = {
        "hydra/launcher": [
            *_LAUNCHERS,
            *(f.stem for f in (conf / "hydra/launcher").glob("*.yaml")),
        ],
        "hydra/sweeper": ["lpt"],
    }
    if name not in groups and name not in _KEYS:
        hint = did_you_mean(name, [*groups, *_KEYS]) or "put it into a file of conf/, if need be"
        problems.add(name, "Hydra's own, and not for the command line", _ALLOWED, hint)
    elif override.package is not None or override.is_delete() or override.is_sweep_override():
        problems.add(name, str(override.input_line), f"{name}=VALUE")
    elif name in groups and override.value() not in groups[name]:
        given, choices = str(override.value()), sorted(groups[name])
        problems.add(f"{name}={given}", "no such choice", ", ".join(choices))
    elif name in _KEYS:
        _check_value(name, override.value(), problems)


def _check_value(name: str, value: Any, problems: Problems) -> None:
    expected, fits = "a number or a line of text", value is None or _is_plain(value)
    if name == _MODE:
        expected, fits = "RUN, MULTIRUN", value in ("RUN", "MULTIRUN")
    elif name == _OUTPUT:
        expected, fits = "null", value is None
    elif name == _VERBOSE and isinstance(value, list):
        expected, fits = "true, false, or names of loggers", all(map(_is_plain, value))
    if not fits:
        problems.add(name, repr(value), expected)


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):  # a second line would be a command in a script of Slurm
        return value.isprintable() and "${" not in value
    return isinstance(value, int | float)


def without_flags(arguments: Sequence[str], problems: Problems) -> Iterator[str]:
    """The overrides among the arguments; Hydra's flags are checked.

    Args:
        arguments: Command line without the program's name.
        problems: Every flag that is not allowed is noted there.
    """
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        flag, equals, value = argument.partition("=")
        if not argument.startswith("-"):
            yield argument
        elif flag in _FLAGS_WITH_VALUE:
            if not equals and rest and not rest[0].startswith("-"):
                value = rest.pop(0)
            if flag in ("-cn", "--config-name") and value not in _CONFIGS:
                problems.add(flag, value or "nothing", ", ".join(_CONFIGS))
        elif argument not in _FLAGS:  # Hydra would take the beginning of a flag for it, too
            expected = ", ".join(f for f in (*_FLAGS, *_FLAGS_WITH_VALUE) if f.startswith("--"))
            problems.add(flag, "no such flag", expected, _INSTEAD.get(flag, ""))


_INSTEAD = dict.fromkeys(
    ("-cd", "--config-dir", "-cp", "--config-path"),
    "put the file into a group of conf/: all of the configuration is there",
) | {"--experimental-rerun": "the same command again: what it reads is a pickle, which is code"}
