"""Results of a run, to be compared with those of another one."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file


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
        "predictions": [file.read_text() for file in sorted(run_dir.glob("predictions*.tsv"))],
        "split": (run_dir / "split.json").read_text(),
    }


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    """Tensors of the adapter and of the last checkpoint."""
    tensors = load_file(run_dir / "adapter" / "adapter_model.safetensors")
    last = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    return tensors | {f"last.{name}": tensor for name, tensor in last["state_dict"].items()}


def read_curves(run_dir: Path) -> list[dict[str, str]]:
    """Rows of all starts of a run, without those that a resumed run has logged again.

    Each start writes a `version_N` of its own; the steps after the checkpoint that it resumes from
    are in the one before as well.
    """
    rows: list[dict[str, str]] = []
    starts = sorted((run_dir / "csv").iterdir(), key=lambda path: int(path.name.partition("_")[2]))
    for start in starts:
        file = start / "metrics.csv"
        if not file.exists():  # stopped before anything was logged
            continue
        with file.open(newline="") as lines:
            again = [row for row in csv.DictReader(lines) if (row["step"] or "").isdecimal()]
        # A start with nothing left to train only tests, under the step of its checkpoint.
        trained = [row for row in again if row.get("train/loss") or row.get("dev/accuracy")]
        first = min((int(row["step"]) for row in trained), default=sys.maxsize)
        rows = [row for row in rows if int(row["step"]) < first] + again
    return rows


def curve(run_dir: Path, name: str) -> dict[str, float]:
    """Logged values by step."""
    return {row["step"]: float(row[name]) for row in read_curves(run_dir) if row.get(name)}


def assert_same(
    found: Path,
    expected: Path,
    *,
    in_curves: bool = True,
    in_last: bool = True,
    in_settings: bool = True,
) -> None:
    """Assert that the runs in two folders are equal bit for bit.

    Except for their curves, which may have been lost; for the last checkpoint, if the run may have
    been killed between writing its two; or for the settings of trainer and data.
    """
    outcomes = outcome(found), outcome(expected)
    for name in () if in_settings else ("trainer", "data"):
        for one in outcomes:
            one["metrics"]["config"].pop(name)
    assert outcomes[0] == outcomes[1]
    if in_curves:
        assert curve(found, "dev/accuracy") == curve(expected, "dev/accuracy")
    here, there = weights(found), weights(expected)
    assert here.keys() == there.keys()
    for name in here:
        assert torch.equal(here[name], there[name]) or (not in_last and name.startswith("last."))


def assert_alike(found: Path, expected: Path) -> None:
    """Assert that a run with several ranks equals one with one rank and the same global batch."""
    metrics, others = (json.loads((d / "metrics.json").read_text()) for d in (found, expected))
    for part in ("zero_shot", "majority"):
        assert metrics[part].keys() == others[part].keys()
        for name, scores in others[part].items():
            assert metrics[part][name] == pytest.approx(scores, abs=1e-5)
    for part in ("dev", "test"):
        assert metrics[part] == pytest.approx(others[part], abs=1e-5)
    assert metrics["selection"]["step"] == others["selection"]["step"]
    for name in metrics["metrics"]:
        points = curve(found, f"dev/{name}")
        assert len(points) == len(metrics["dev_history"]) > 1
        assert points == pytest.approx(curve(expected, f"dev/{name}"), abs=1e-5)
    losses = curve(found, "train/loss")
    assert len(losses) > 1
    assert losses == pytest.approx(curve(expected, "train/loss"), abs=1e-5)
    weights, same = (
        torch.load(d / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for d in (found, expected)
    )
    torch.testing.assert_close(weights, same, atol=1e-5, rtol=0)
