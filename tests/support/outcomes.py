"""Results of a run, to be compared with those of another one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tests.support.csv_curves import read_curves


def outcome(run_dir: Path) -> dict[str, Any]:
    """Everything that must not depend on interruptions."""
    metrics = json.loads((run_dir / "metrics.json").read_text())
    for name in ("environment", "cache", "run_dir", "command"):
        metrics.pop(name)
    cost = metrics.pop("cost")
    for name in ("run_dir", "resume", "overwrite", "logger", "cache"):
        metrics["config"].pop(name)
    return {
        "metrics": metrics,
        "cost": (cost["steps"], cost["padding_share"]),
        "predictions": (run_dir / "predictions.tsv").read_text(),
        "split": (run_dir / "split.json").read_text(),
    }


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    """Tensors of the adapter and of the last checkpoint."""
    tensors = load_file(run_dir / "adapter" / "adapter.safetensors")
    last = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    return tensors | {f"last.{name}": tensor for name, tensor in last["state_dict"].items()}


def curves(run_dir: Path) -> list[tuple[str, str]]:
    """The dev accuracy by step, as the CSV logger wrote it."""
    rows = read_curves(run_dir)
    return [(row["step"], row["dev/accuracy"]) for row in rows if row.get("dev/accuracy")]


def assert_same(
    found: Path,
    expected: Path,
    *,
    in_curves: bool = True,
    in_last: bool = True,
    in_settings: bool = True,
) -> None:
    """Assert that two runs are equal bit for bit.

    Args:
        found: Folder of a run.
        expected: Folder of another one.
        in_curves: False: the curves may have been lost.
        in_last: False: the run may have been killed between writing its two checkpoints.
        in_settings: False: settings of trainer and data may differ.
    """
    outcomes = outcome(found), outcome(expected)
    for name in () if in_settings else ("trainer", "data"):
        for one in outcomes:
            one["metrics"]["config"].pop(name)
    assert outcomes[0] == outcomes[1]
    if in_curves:
        assert curves(found) == curves(expected)
    here, there = weights(found), weights(expected)
    assert here.keys() == there.keys()
    for name in here:
        assert torch.equal(here[name], there[name]) or (not in_last and name.startswith("last."))
