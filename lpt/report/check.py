"""Whether the content of a metrics.json is that of a run, before anything is computed from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_NUMBER = (int, float)
_NEEDED: Mapping[str, tuple[type, ...]] = {
    "task": (str,),
    "model": (dict,),
    "model.name": (str,),
    "prompt": (dict,),
    "prompt.kind": (str,),
    "prompt.layer": (int,),
    "data": (dict,),
    "data.seed": (int,),
    "optim": (dict,),
    "trainer": (dict,),
    "seed": (int,),
    "selection": (dict,),
    "selection.metric": (str,),
    "dev": (dict,),
    "test": (dict, type(None)),
    "extra": (dict,),
    "majority": (dict,),
    "zero_shot": (dict,),
    "dev_history": (list,),
    "speed": (dict,),
    "speed.train_seconds": _NUMBER,
    "speed.examples_per_second": _NUMBER,
    "peak_memory_mb": (dict,),
    "peak_memory_mb.training": _NUMBER,
    "parameters": (dict,),
    "parameters.trainable": _NUMBER,
    "environment": (dict,),
}
_SHOWN = 4


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
    if right and kinds == _NUMBER and not math.isfinite(at):
        right = False
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
    metric = metrics["selection"]["metric"]
    if metric not in metrics["dev"]:
        found.append(f"no dev.{metric}, which selected the checkpoint")
    good = (_all_numbers(at) and {"step", metric} <= at.keys() for at in metrics["dev_history"])
    return found if all(good) else [*found, f"dev_history without step and {metric}"]


def _all_numbers(scores: Any) -> bool:
    return isinstance(scores, dict) and all(
        isinstance(value, _NUMBER) and math.isfinite(value) for value in scores.values()
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
