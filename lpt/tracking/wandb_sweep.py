"""Weights & Biases: the summary run of a sweep."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from lpt.config.schema import WandbConfig
from lpt.tracking.wandb import staging_in, start_run, warn_on_error

SWEEP_SUMMARY = "sweep-summary"
_LAYER = "prompt.layer"


def log_sweep(
    config: WandbConfig,
    folder: Path,
    name: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    score: str,
    figures: Sequence[Path] = (),
    resolved: Mapping[str, Any] | None = None,
) -> None:
    """Log the results of a sweep as one W&B run; a resumed sweep updates the same run.

    The run has the table `sweep/results`; with a column `prompt.layer`, the mean score of each
    layer as `sweep/layer_curve`; and each figure as `sweep/NAME`. An error is only a warning.

    Args:
        config: The W&B settings; nothing happens if it is off.
        folder: Folder of the sweep; W&B's files go there.
        name: Name of the sweep, and the group of its runs unless the settings name one.
        rows: Results by column, one row per setting or job.
        score: Column with the score of the layer curve.
        figures: PNG files.
        resolved: Settings that all jobs share, as plain types.
    """
    if not config.enabled:
        return
    with warn_on_error("the summary of the sweep"):
        import wandb

        config = replace(config, group=config.group or name, job_type=SWEEP_SUMMARY)
        run = start_run(config, folder, name, resolved or {})
        columns = list(dict.fromkeys(column for row in rows for column in row))
        data = [[row.get(column) for column in columns] for row in rows]
        with run, staging_in(folder):
            table = wandb.Table(columns=columns, data=data, allow_mixed_types=True)
            logged: dict[str, Any] = {"sweep/results": table}
            if curve := _layer_curve(rows, score):
                points = wandb.Table(columns=[_LAYER, score], data=curve)
                title = f"{score} by layer"
                logged["sweep/layer_curve"] = wandb.plot.line(points, _LAYER, score, title=title)
            logged |= {f"sweep/{figure.stem}": wandb.Image(str(figure)) for figure in figures}
            run.log(logged)


def _layer_curve(rows: Sequence[Mapping[str, Any]], score: str) -> list[list[float]]:
    """Mean score of each layer, in order; rows that lack one of the two are left out."""
    scores: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        if row.get(_LAYER) is not None and row.get(score) is not None:
            scores[int(row[_LAYER])].append(float(row[score]))
    return [[layer, fmean(scores[layer])] for layer in sorted(scores)]
