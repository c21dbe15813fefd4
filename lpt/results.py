"""What a run leaves behind: metrics.json, predictions.tsv, and the table at its end."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lpt.data.tasks import UNKNOWN, Examples
from lpt.metrics import Predictions, score

FINISHED = "metrics.json"
PREDICTIONS = "predictions.tsv"
_LIBRARIES = ("torch", "lightning", "transformers", "datasets", "torchmetrics", "hydra-core")


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that it is there complete or not at all."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


def write_predictions(path: Path, predictions: Predictions, labels: Sequence[str]) -> None:
    """Write index, prediction and, where any are known, label of a set as TSV."""
    known = bool((predictions.labels != UNKNOWN).any())
    lines = ["\t".join(["index", "prediction", *(["label"] if known else [])])]
    columns = (predictions.index, predictions.predicted, predictions.labels)
    for index, predicted, label in zip(*(c.tolist() for c in columns), strict=True):
        truth = labels[label] if label != UNKNOWN else ""
        cells = [str(index), labels[predicted], *([truth] if known else [])]
        lines.append("\t".join(cells))
    write_atomically(path, "\n".join(lines) + "\n")


def majority_scores(
    train: Examples, part: Examples, metrics: tuple[str, ...], count: int
) -> dict[str, float] | None:
    """Scores of always answering the most frequent training label; None without labels."""
    if not part.labelled:
        return None
    most = Counter(train.labels).most_common(1)[0][0]
    labels = torch.tensor(part.labels)
    return score(torch.full_like(labels, most), labels, metrics, count)


def prediction_scores(
    predictions: Predictions, metrics: tuple[str, ...], count: int
) -> dict[str, float] | None:
    """Scores of a set's predictions; None where its labels are unknown."""
    if UNKNOWN in predictions.labels.tolist():
        return None
    predicted: Tensor = predictions.predicted
    return score(predicted, predictions.labels, metrics, count)


def environment() -> dict[str, Any]:
    """Versions, machine and git revision."""
    libraries = {"lpt": "lpt", **{name: name for name in _LIBRARIES}}
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "versions": {"python": platform.python_version()}
        | {name: version(package) for name, package in libraries.items()},
        "device": gpu or platform.processor() or platform.machine(),
        "git_revision": _git_revision(),
    }


def _git_revision() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def write_metrics(path: Path, metrics: Mapping[str, Any]) -> None:
    """Write metrics.json; its presence marks a finished run."""
    write_atomically(path, json.dumps(metrics, indent=2) + "\n")


def print_table(metrics: Mapping[str, Any], console: Console) -> None:
    """The table at the end of a run."""
    table = Table(
        title=f"{metrics['task']} · {metrics['model']['name']} · {describe_prompt(metrics)}"
    )
    table.add_column("")
    for split in ("dev", "test"):
        for name in metrics["metrics"]:
            table.add_column(f"{split} {name}", justify="right")
    rows = {
        "majority class": metrics["majority"],
        "zero-shot": metrics["zero_shot"],
        "late prompt": {split: metrics[split] for split in ("dev", "test")},
    }
    for row, scores in rows.items():
        cells = [
            "not labelled" if scores[split] is None else f"{scores[split][name]:.3f}"
            for split in ("dev", "test")
            for name in metrics["metrics"]
        ]
        table.add_row(row, *cells, style="bold" if row == "late prompt" else None)
    console.print(table)
    trainable, total = metrics["parameters"]["trainable"], metrics["parameters"]["total"]
    speed = metrics["speed"]
    console.print(
        f"trained {trainable:,} of {total:,} parameters ({100 * trainable / total:.2f} %) in "
        f"{speed['train_seconds']:.0f} s, {speed['examples_per_second']:.1f} examples/s; "
        f"best dev {metrics['selection']['metric']} at step {metrics['selection']['step']}"
    )
    origin = metrics["protocol"]["origin"]
    console.print("; ".join(f"{split}: {origin[split]}" for split in ("train", "dev", "test")))
    console.print(f"everything is in {metrics['run_dir']}")


def describe_prompt(metrics: Mapping[str, Any]) -> str:
    """The prompt in a few words."""
    prompt = metrics["prompt"]
    return f"{prompt['kind']} at layer {prompt['layer']}"
