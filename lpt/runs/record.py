"""What a run leaves behind: metrics.json, predictions.tsv, and the table at its end."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from lpt.data.candidates import ANSWER, GROUP, ID
from lpt.data.tasks import UNKNOWN, Task
from lpt.errors import literal_text
from lpt.files import write_atomically
from lpt.training.metrics import EvalOutput

FINISHED = "metrics.json"
CONFIG = "config.yaml"
PROGRESS = "progress.json"
ADAPTER = "adapter"
_LIBRARIES = ("torch", "lightning", "transformers", "datasets", "torchmetrics", "hydra-core")


def predictions_file(name: str) -> str:
    """File with the answers to a set."""
    return "predictions.tsv" if name == "test" else f"predictions-{name}.tsv"


def prediction_columns(answers: EvalOutput, task: Task) -> dict[str, list[str]]:
    """The answers to a set by column, as they are shown.

    Columns: index (the row in the source), those of id, group and answer that there are,
    prediction, and, where any are known, label.
    """
    part = answers.part
    columns: dict[str, list[str]] = {"index": [str(row) for row in part.row_ids]}
    columns |= {note: part.notes[note] for note in (ID, GROUP, ANSWER) if note in part.notes}
    columns["prediction"] = [task.shown(answer) for answer in answers.predicted.tolist()]
    if any(label != UNKNOWN for label in part.labels):
        columns["label"] = [task.shown(y) if y != UNKNOWN else "" for y in part.labels]
    return columns


def write_predictions(path: Path, answers: EvalOutput, task: Task) -> None:
    """Write the answers to a set as TSV, a line an example; columns: `prediction_columns`."""
    columns = prediction_columns(answers, task)
    rows = zip(*columns.values(), strict=True)
    lines = ["\t".join(columns), *("\t".join(map(_one_line, row)) for row in rows)]
    write_atomically(path, "\n".join(lines) + "\n")


def _one_line(cell: str) -> str:
    """Free text as it fits into a cell."""
    return " ".join(cell.split()) if not cell.isprintable() else cell


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
    title = f"{metrics['task']} · {metrics['model']['name']} · {describe_prompt(metrics)}"
    table = Table(title=literal_text(title, "table.title"))
    table.add_column("")
    trained = {"dev": metrics["dev"], "test": metrics["test"], **metrics["extra"]}
    # Without labels, a set was answered, but not scored.
    shown = [(split, name) for split, scores in trained.items() for name in scores or ()]
    for split, name in shown:
        table.add_column(literal_text(f"{split} {name}"), justify="right")
    rows = {
        "majority class": metrics["majority"],
        "zero-shot": metrics["zero_shot"],
        "late prompt": trained,
    }
    for row, scores in rows.items():
        cells = [_score(scores.get(split), name) for split, name in shown]
        table.add_row(row, *cells, style="bold" if row == "late prompt" else None)
    console.print(table)
    trainable, total = metrics["parameters"]["trainable"], metrics["parameters"]["total"]
    speed = metrics["speed"]
    told = (
        f"trained {trainable:,} of {total:,} parameters ({100 * trainable / total:.2f} %) in "
        f"{speed['train_seconds']:.0f} s, {speed['examples_per_second']:.1f} examples/s; "
        f"best dev {metrics['selection']['metric']} at step {metrics['selection']['step']}"
    )
    origin = metrics["protocol"]["origin"]
    origins = "; ".join(f"{split}: {where}" for split, where in origin.items())
    for line in (told, origins, f"everything is in {metrics['run_dir']}"):
        console.print(literal_text(line), soft_wrap=True)


def _score(scores: Mapping[str, float] | None, name: str) -> str:
    return f"{scores[name]:.3f}" if scores and name in scores else ""


def describe_prompt(metrics: Mapping[str, Any]) -> str:
    """The prompt in a few words."""
    prompt = metrics["prompt"]
    return f"{prompt['kind']} at layer {prompt['layer']}"


def summary(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Final scores under the names that every tracker shows."""
    summary: dict[str, float] = {}
    for kind in ("majority", "zero_shot"):
        for split, scores in metrics[kind].items():
            summary |= {f"{kind}/{split}/{k}": v for k, v in (scores or {}).items()}
    for split, scores in {**{s: metrics[s] for s in ("dev", "test")}, **metrics["extra"]}.items():
        summary |= {f"final/{split}/{k}": v for k, v in (scores or {}).items()}
    return summary
