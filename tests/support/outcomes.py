"""What a run came to, to be compared with another one."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file


def outcome(run_dir: Path) -> dict[str, Any]:
    """What must not depend on interruptions."""
    metrics = json.loads((run_dir / "metrics.json").read_text())
    for name in ("environment", "cache", "peak_memory_mb", "run_dir"):
        metrics.pop(name)
    speed = metrics.pop("speed")
    return {
        "metrics": metrics,
        "speed": (speed["steps"], speed["padding_share"]),
        "predictions": (run_dir / "predictions.tsv").read_text(),
        "split": (run_dir / "split.json").read_text(),
    }


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    """Of the adapter and of the last checkpoint."""
    tensors = load_file(run_dir / "adapter" / "adapter.safetensors")
    last = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    return tensors | {f"last.{name}": of for name, of in last["state_dict"].items()}


def curves(run_dir: Path) -> list[tuple[str, str]]:
    """The dev accuracy by step, as the CSV logger wrote it."""
    with (run_dir / "csv" / "metrics.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    return [(row["step"], row["dev/accuracy"]) for row in rows if row.get("dev/accuracy")]


def assert_same(
    found: Path, expected: Path, *, in_curves: bool = True, in_settings: bool = True
) -> None:
    """Bit for bit.

    Args:
        found: Folder of a run.
        expected: Folder of another one.
        in_curves: False: the curves may have been lost.
        in_settings: False: settings of trainer and data may differ.
    """
    outcomes = outcome(found), outcome(expected)
    for name in () if in_settings else ("trainer", "data"):
        for one in outcomes:
            one["metrics"].pop(name)
    assert outcomes[0] == outcomes[1]
    if in_curves:
        assert curves(found) == curves(expected)
    here, there = weights(found), weights(expected)
    assert here.keys() == there.keys()
    assert all(torch.equal(here[name], there[name]) for name in here)
