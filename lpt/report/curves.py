"""Learning curves: the selecting metric on dev by optimizer step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from lpt.report.contents import score_name
from lpt.report.drawing import Picture, Plot, draw_curve, new_plot
from lpt.report.naming import file_name
from lpt.report.settings import order_of, tidy
from lpt.report.statistics import Estimate, estimate
from lpt.report.study import Row, Study, Task

_MOST = 6
_LAYER = "prompt.layer"


def learning_curves(study: Study, folder: Path) -> Iterator[Picture]:
    """One figure for each task whose runs were evaluated while they trained."""
    for task in study.tasks:
        curves = {row.setting: history(row, task.selection) for row in task.rows}
        if not any(len(curve) > 1 for curve in curves.values()):
            continue
        plot = new_plot(3.4)
        told = _told_apart(task)
        faint = [row for row in task.rows if row not in told]
        for row in (*told, *faint):
            number = told.index(row) if row in told else None
            label = study.label(row.setting) if row in told else "other settings"
            _draw(plot, curves[row.setting], number, label)
        plot.axes.set_xlabel("optimizer steps")
        plot.axes.set_ylabel(score_name(task.dev))
        plot.axes.grid(visible=False, axis="x")
        yield plot.finish(
            folder,
            file_name("curves", task.name),
            f"Learning curves on {tidy(task.name)}",
            "Mean over the seeds as far as all of them ran; band: one standard deviation.",
        )


def history(row: Row, metric: str) -> dict[int, Estimate]:
    """Mean of a metric on dev at each step that all runs of a setting were evaluated at."""
    series = [
        pd.Series({int(at["step"]): float(at[metric]) for at in run.metrics["dev_history"]})
        for run in row.runs
    ]
    table = pd.concat(series, axis=1, join="inner").sort_index()
    found = {int(step): estimate(values) for step, values in table.iterrows()}
    return {step: value for step, value in found.items() if value is not None}


def _told_apart(task: Task) -> list[Row]:
    """The rows drawn in colour: all if they are few, else the best and the ends of its layers."""
    if len(task.rows) <= _MOST:
        return list(task.rows)
    best = task.best
    told = [best]
    if any(key == _LAYER for key, _ in best.setting.values):
        like = best.setting.without(_LAYER)
        alike = [row for row in task.rows if row.setting.without(_LAYER) == like]
        alike.sort(key=lambda row: order_of(row.setting[_LAYER]))
        told += [row for row in (alike[0], alike[-1]) if row is not best]
    return list(dict.fromkeys(told))


def _draw(plot: Plot, curve: dict[int, Estimate], number: int | None, label: str) -> None:
    if curve:
        plot.note(draw_curve(plot, list(curve), list(curve.values()), number), label)
