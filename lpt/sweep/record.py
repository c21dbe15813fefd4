"""results.csv and results.jsonl: one row a job, complete without any tracker."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lpt.files import write_atomically
from lpt.runs.record import summary
from lpt.sweep.job import Job

CSV, JSONL = "results.csv", "results.jsonl"


def row(job: Job) -> dict[str, Any]:
    """A job as a row: what was asked, what became of it, and what metrics.json says."""
    head = {"job": job.name, **job.settings, "state": job.state, "reason": job.reason}
    tail = {"attempts": job.attempts, "run_dir": str(job.folder), "command": job.command}
    metrics = job.metrics
    if metrics is None:
        return {**head, "job_seconds": job.seconds, **tail}
    protocol, speed, memory = metrics["protocol"], metrics["speed"], metrics["peak_memory_mb"]
    return {
        **head,
        "task": metrics["task"],
        "model": metrics["model"]["name"],
        "prompt": metrics["prompt"]["kind"],
        "layer": metrics["prompt"]["layer"],
        "data_seed": protocol["data_seed"],
        "seed": metrics["seed"],
        **summary(metrics),
        "selected_step": metrics["selection"]["step"],
        "trainable_parameters": metrics["parameters"]["trainable"],
        "train_seconds": speed["train_seconds"],
        "examples_per_second": speed["examples_per_second"],
        "cache_seconds": metrics["cache"]["seconds"],
        "total_seconds": speed["total_seconds"],
        "peak_memory_mb": memory["training"],
        "split_sha256": protocol["split_sha256"],
        "job_seconds": job.seconds,
        **tail,
    }


def write_record(folder: Path, jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Write both files; returns the rows."""
    rows = [row(job) for job in jobs]
    write_atomically(folder / JSONL, "".join(json.dumps(one) + "\n" for one in rows))
    write_atomically(folder / CSV, _csv(rows))
    return rows


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    # A row of a failed job has fewer columns: the widest one gives the order.
    widest = max(rows, key=len, default={})
    columns = list(dict.fromkeys([*widest, *(name for one in rows for name in one)]))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
