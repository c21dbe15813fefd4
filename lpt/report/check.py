"""Whether the content of a metrics.json is that of a run, before anything is computed from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lpt.errors import config_error
from lpt.runs.json_records import RECORD, is_number, read_json

_NUMBER = (int, float)
_NEEDED: Mapping[str, tuple[type, ...]] = {
    "task": (str,),
    "run_dir": (str,),
    "model": (dict,),
    "model.name": (str,),
    "prompt": (dict,),
    "prompt.kind": (str,),
    "prompt.layer": (int,),
    "protocol": (dict,),
    "protocol.data_seed": (int,),
    "protocol.split_sha256": (str,),
    "protocol.origin": (dict,),
    "data": (dict,),
    "data.seed": (int,),
    "optim": (dict,),
    "trainer": (dict,),
    "seed": (int,),
    "selection": (dict,),
    "selection.metric": (str,),
    "selection.step": (int,),
    "selection.value": _NUMBER,
    "dev": (dict,),
    "test": (dict, type(None)),
    "extra": (dict,),
    "majority": (dict,),
    "zero_shot": (dict,),
    "dev_history": (list,),
    "speed": (dict,),
    "speed.train_seconds": _NUMBER,
    "speed.examples_per_second": _NUMBER,
    "speed.total_seconds": _NUMBER,
    "peak_memory_mb": (dict,),
    "peak_memory_mb.training": _NUMBER,
    "parameters": (dict,),
    "parameters.trainable": _NUMBER,
    "parameters.total": _NUMBER,
    "cache": (dict,),
    "cache.seconds": _NUMBER,
    "environment": (dict,),
    "environment.versions": (dict,),
}
_SETTINGS = ("model", "prompt", "data", "optim", "trainer")
_SHOWN = 4


def read_metrics(file: Path) -> dict[str, Any]:
    """The metrics.json of a run.

    Raises:
        ConfigError: It cannot be read, or holds something else.
    """
    try:
        metrics: Any = read_json(file, RECORD)
    except (OSError, ValueError) as error:
        hint = "remove the file, or run the job again"
        raise config_error(str(file), f"cannot be read: {error}", "JSON", hint) from error
    wrong = faults(metrics)
    if wrong:
        hint = "remove the file, or name folders without it"
        given, expected = "; ".join(wrong), "what lpt writes at the end of a run"
        raise config_error(str(file), given, expected, hint)
    checked: dict[str, Any] = metrics
    return checked


def faults(metrics: Any) -> list[str]:
    """What keeps this from being the metrics of a run; empty if nothing does."""
    if not isinstance(metrics, dict):
        return [f"{type(metrics).__name__} where an object belongs"]
    found = [fault for key, kinds in _NEEDED.items() if (fault := _fault(metrics, key, kinds))]
    found = found or _scores(metrics)
    more = len(found) - _SHOWN
    return found[:_SHOWN] + ([f"{more} more like this"] if more > 0 else [])


def _fault(metrics: dict[str, Any], key: str, kinds: tuple[type, ...]) -> str:
    at: Any = metrics
    for part in key.split("."):
        if not isinstance(at, dict):
            return ""  # told of the part above
        if part not in at:
            return f"no {key}" if part in key.split(".")[-1:] else ""
        at = at[part]
    right = isinstance(at, kinds) and not isinstance(at, bool)
    if kinds == _NUMBER:
        right = is_number(at)
    return "" if right else f"{key} is {_short(at)}"


def _scores(metrics: dict[str, Any]) -> list[str]:
    """Faults of the scores and of the history, whose keys are names of sets and metrics."""
    sets: dict[str, Any] = {"dev": metrics["dev"], "test": metrics["test"]}
    for kind in ("extra", "majority", "zero_shot"):
        sets |= {f"{kind}.{name}": scores for name, scores in metrics[kind].items()}
    found = [
        f"{name} is {_short(scores)}"
        for name, scores in sets.items()
        if scores is not None and not _all_numbers(scores)
    ]
    found += [
        f"{section}.{key} is {_short(value)}"
        for section in _SETTINGS
        for key, value in metrics[section].items()
        if isinstance(value, float) and math.isnan(value)
    ]
    metric = metrics["selection"]["metric"]
    if metric not in metrics["dev"]:
        found.append(f"no dev.{metric}, which selected the checkpoint")
    good = (_all_numbers(at) and {"step", metric} <= at.keys() for at in metrics["dev_history"])
    return found if all(good) else [*found, f"dev_history without step and {metric}"]


def _all_numbers(scores: Any) -> bool:
    return isinstance(scores, dict) and all(map(is_number, scores.values()))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
