"""Made-up files of runs, jobs and sweeps: shaped like the real ones, without training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

LAYERS = 6
_BACKBONE = {
    "name": "roberta-base",
    "model_type": "roberta",
    "fingerprint": "0" * 16,
    "commit": None,
}
_ENVIRONMENT = {
    "python": "3.11.7",
    "versions": {"lpt": "0.1.0", "torch": "2.13.0"},
    "git_revision": "ecbbc17f00",
    "git_dirty": False,
}


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
    """Content of a run's metrics.json: accuracies (no test labels: None), seconds, memory in MB.

    `overrides` are values by key of the record or of its configuration, with __ for the dot:
    `prompt__layer=3`, `split__origin={}`.
    """
    name = "accuracy"
    content: dict[str, Any] = {
        "format": 1,
        "run_dir": "runs/made-up",
        "command": [f"task={task}", f"seed={seed}"],
        "config": _config(task, seed),
        "backbone": dict(_BACKBONE),
        "split": {
            "origin": {"test": "official test set"},
            "sizes": {"train": 32, "dev": 32, "test": 872},
            "groups": {},
            "truncated": {"train": 0, "dev": 0, "test": 0},
            "sha256": sha256(f"{task}{seed}".encode()).hexdigest(),
        },
        "metrics": [name],
        "selection": {"metric": name, "step": 50, "value": dev},
        "dev": {name: dev},
        "test": None if test is None else {name: test},
        "extra": {},
        "majority": {"dev": {name: 0.5}, "test": None if test is None else {name: 0.51}},
        "zero_shot": {"dev": {name: 0.6}, "test": None if test is None else {name: 0.62}},
        "dev_history": [
            {"step": step, name: 0.5 + (dev - 0.5) * (1 - 0.9 ** (step / 5))}
            for step in range(10, 101, 10)
        ],
        "parameters": {"trainable": 296960, "total": 23042236},
        "cost": {
            "starts": 1,
            "steps": 100,
            "train_seconds": seconds,
            "total_seconds": 2 * seconds,
            "cache_seconds": 0.8,
            "examples_per_second": 100 * 32 / seconds,
            "padding_share": 0.1,
            "peak_memory_mb": memory,
            "peak_memory_mb_before_training": 600.0,
        },
        "cache": {"sets": ["train"], "reason": None},
        "environment": dict(_ENVIRONMENT, device=device),
    }
    for key, value in overrides.items():
        _set(content, key.split("__"), value)
    return content


def _set(content: dict[str, Any], path: list[str], value: Any) -> None:
    *sections, last = path
    at = content if _holds(content, sections, last) else content["config"]
    for section in sections:
        at = at[section]
    at[last] = value


def _holds(record: dict[str, Any], sections: list[str], last: str) -> bool:
    """Whether a key is one of the record itself; all others are keys of its configuration."""
    top = record.get(sections[0], {}) if sections else record
    return sections[:1] == ["config"] or (len(sections) < 2 and last in top)


def _config(task: str, seed: int) -> dict[str, Any]:
    return {
        "model": {
            "name": "roberta-base",
            "path": "models/roberta-base",
            "layers": LAYERS,
            "dropout": "above",
        },
        "task": {
            "name": task,
            "task_type": "classification",
            "template": "{text} It was <mask>.",
            "labels": ["0", "1"],
            "label_words": ["terrible", "great"],
        },
        "method": {"name": "late_prompt", "layer": None, "lr": 0.003},
        "prompt": {"kind": "npg", "layer": 4, "length": 5, "bottleneck": 128, "lr": 0.003},
        "data": {"protocol": "kshot", "path": None, "root": "data", "k": 16, "seed": seed},
        "cache": {"mode": "auto", "dir": None, "layers": []},
        "optim": {"lr": 0.003, "weight_decay": 0.1, "schedule": "linear"},
        "trainer": {"max_steps": 100, "precision": "32-true"},
        "strategy": {"name": "single", "devices": 1},
        "loss": "vocabulary",
        "seed": seed,
        "run_dir": f"runs/{task}-{seed}",
    }


def write_run(
    folder: Path, content: Mapping[str, Any], job: Mapping[str, Any] | None = None
) -> Path:
    """A finished run in a folder, and its job.json if `job` is given."""
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(content))
    if job is not None:
        write_job(folder, **job)
    return folder


def write_job(folder: Path, **content: Any) -> Path:
    """job.json in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    known = {"name": folder.name, "settings": {}, "overrides": [], "state": "finished"}
    (folder / "job.json").write_text(json.dumps(known | content))
    return folder


def write_sweep(folder: Path, name: str = "layers", **space: list[Any]) -> Path:
    """sweep.json in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"name": name, "command": f"python sweep.py sweep={name} task=sst2", "fixed": []}
    (folder / "sweep.json").write_text(json.dumps({**content, "space": space, "search": False}))
    return folder
