"""results.csv and results.jsonl: one row for each job of a sweep."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lpt.files import write_atomically
from lpt.runs.job_record import JobRecord
from lpt.runs.record import RunRecord
from lpt.sweep.jobs import JobResult

JOBS, REPORT = "jobs", "report"
CSV, JSONL = "results.csv", "results.jsonl"


def write_results(folder: Path, jobs: Sequence[JobResult]) -> list[dict[str, Any]]:
    """Write results.csv and results.jsonl of a sweep; returns their rows.

    Raises:
        OSError: They cannot be written.
    """
    rows = [_row(job, folder / JOBS / job.name, result) for job, result in jobs]
    # The row of a failed job has fewer columns: the longest one gives their order.
    longest = max(rows, key=len, default={})
    columns = list(dict.fromkeys([*longest, *(name for row in rows for name in row)]))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(folder / CSV, text.getvalue())
    write_atomically(folder / JSONL, "".join(json.dumps(row) + "\n" for row in rows))
    return rows


def _row(job: JobRecord, run_dir: Path, result: RunRecord | None) -> dict[str, Any]:
    """Settings, state and, once the run has finished, scores and costs of a job."""
    row: dict[str, Any] = {"job": job.name, **job.settings}
    row |= {"state": job.state.value, "reason": job.reason}
    if result is not None:
        config, cost = result.config, result.cost
        row |= {
            "task": config["task"]["name"],
            "model": result.backbone.name,
            "method": config["method"]["name"],
            "prompt": config["prompt"] and config["prompt"]["kind"],
            "layer": (config["prompt"] or config["method"])["layer"],
            "data_seed": config["data"]["seed"],
            "seed": config["seed"],
            **result.summary(),
            "selected_step": result.selection.step,
            "trainable_parameters": result.parameters.trainable,
            "train_seconds": cost.train_seconds,
            "examples_per_second": cost.examples_per_second,
            "cache_seconds": cost.cache_seconds,
            "total_seconds": cost.total_seconds,
            "peak_memory_mb": cost.peak_memory_mb,
            "split_sha256": result.split.sha256,
        }
    row |= {"job_seconds": job.seconds, "attempts": job.attempts}
    return row | {"run_dir": str(run_dir), "command": job.command}
