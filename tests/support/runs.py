"""Runs and sweeps as they lie on disk, made up: shaped like the real ones, without training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LAYERS = 6


def metrics(
    *,
    task: str = "sst2",
    dev: float = 0.8,
    test: float | None = 0.75,
    seed: int = 13,
    seconds: float = 30.0,
    memory: float = 700.0,
    device: str = "x86_64",
    **overrides: Any,
) -> dict[str, Any]:
    """What metrics.json of a run holds; `overrides` by config key, with __ for the dot."""
    name = "accuracy"
    content: dict[str, Any] = {
        "task": task,
        "model": {"name": "roberta-base", "path": "models/roberta-base", "dropout": "above"},
        "prompt": {"kind": "npg", "layer": 4, "length": 5, "bottleneck": 128, "lr": 0.003},
        "run_dir": "runs/made-up",
        "protocol": {
            "name": "kshot",
            "data_seed": seed,
            "split_sha256": f"{task}{seed}",
            "origin": {"test": "official test set"},
        },
        "data": {"protocol": "kshot", "k": 16, "seed": seed, "root": "data", "num_workers": 0},
        "optim": {"lr": 0.003, "weight_decay": 0.1, "schedule": "linear"},
        "trainer": {"max_steps": 100, "precision": "32-true"},
        "seed": seed,
        "loss": "vocabulary",
        "metrics": [name],
        "selection": {"metric": name, "step": 50, "value": dev},
        "dev": {name: dev},
        "majority": {"dev": {name: 0.5}, "test": {name: 0.51}},
        "speed": {
            "train_seconds": seconds,
            "examples_per_second": 100 * 32 / seconds,
            "total_seconds": 2 * seconds,
        },
        "peak_memory_mb": {"before_training": 600.0, "training": memory},
        "environment": {
            "versions": {"python": "3.11.7", "lpt": "0.1.0", "torch": "2.13.0"},
            "device": device,
            "git_revision": "ecbbc17",
        },
        "test": None if test is None else {name: test},
        "extra": {},
        "zero_shot": {"dev": {name: 0.6}, "test": None if test is None else {name: 0.62}},
        "dev_history": [
            {"step": step, name: 0.5 + (dev - 0.5) * (1 - 0.9 ** (step / 5))}
            for step in range(10, 101, 10)
        ],
        "parameters": {"trainable": 296960, "total": 23042236},
        "cache": {"sets": ["train"], "seconds": 0.8, "why_not": None},
    }
    for key, value in overrides.items():
        at = content
        *sections, last = key.split("__")
        for section in sections:
            at = at[section]
        at[last] = value
    return content


def write_run(
    folder: Path, content: Mapping[str, Any], job: Mapping[str, Any] | None = None
) -> Path:
    """A finished run in a folder."""
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(content))
    if job is not None:
        write_job(folder, **job)
    return folder


def write_job(folder: Path, **content: Any) -> Path:
    """A job's own note."""
    folder.mkdir(parents=True, exist_ok=True)
    known = {"name": folder.name, "settings": {}, "state": "finished", "reason": None}
    known |= {"command": "python train.py", "attempts": 1, "exit_status": 0}
    (folder / "job.json").write_text(json.dumps(known | content))
    return folder


def write_sweep(folder: Path, name: str = "layers", **space: list[str]) -> Path:
    """The note of a sweep."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"name": name, "command": f"python sweep.py sweep={name} task=sst2", "space": space}
    (folder / "sweep.json").write_text(json.dumps(content))
    return folder
