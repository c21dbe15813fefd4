"""Score, training time and peak memory against a numeric key, such as the insertion layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.lines import Line2D

from lpt.report.contents import score_name
from lpt.report.drawing import (
    COLOURS,
    FAINT,
    INK,
    Picture,
    Plot,
    draw_baselines,
    draw_line,
    new_plot,
    scale,
)
from lpt.report.naming import file_name
from lpt.report.numbers import SCORE, Unit, memory_unit, time_unit
from lpt.report.settings import Setting, is_number, tidy
from lpt.report.study import Row, Study, Task, estimate_of

MOST_LINES = 6
_LAYER = "prompt.layer"  # depth is counted, not scaled


@dataclass(frozen=True)
class _Curve:
    """Settings that differ in the key alone, or, as `dots`, in others as well.

    Too many to be told apart are `faint`.
    """

    label: str
    rows: tuple[Row, ...]
    number: int = 0
    faint: bool = False
    dots: bool = False


def against(study: Study, key: str, folder: Path) -> Iterator[Picture]:
    """Three figures for each task in which the key varies."""
    for task in study.tasks:
        rows = [row for row in task.rows if is_number(row.setting[key])]
        places = sorted({_place(row, key) for row in rows})
        if len(places) < 2:
            continue
        curves = _curves(study, task, rows, key)
        if task.test is not None:
            yield _score(study, task, key, curves, places, folder)
        for measure, title, unit in (
            ("seconds", "Training time", time_unit(_means(rows, "seconds"))),
            ("memory", "Peak memory", memory_unit(_means(rows, "memory"))),
        ):
            plot = new_plot(2.6 if len(curves) == 1 else 2.9)
            for curve in curves:
                _draw(plot, curve, key, measure, unit)
            plot.axes.set_ylim(0, 1.08 * plot.axes.get_ylim()[1])
            plot.axes.set_ylabel(f"{title.lower()} [{unit.name}]")
            _finish_axes(plot, key, places)
            yield plot.finish(
                folder,
                file_name(measure, key, task.name),
                f"{title} on {tidy(task.name)} against {key}",
                f"{_how(curves)}.",
            )


def _curves(study: Study, task: Task, rows: Sequence[Row], key: str) -> list[_Curve]:
    """One for each combination of the other keys; of too many, the one of the best stands out."""
    groups: dict[Setting, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.setting.without(key), []).append(row)
    others = dict.fromkeys(setting.without(key) for setting in study.settings)
    number = {setting: at for at, setting in enumerate(others)}
    best = task.best.setting.without(key)
    if len(groups) > 2 and all(len(members) == 1 for members in groups.values()):
        return [_Curve("each setting", tuple(rows), dots=True)]
    crowded = len(groups) > MOST_LINES
    return [
        _Curve(
            study.label(setting, without=[key]) if not (crowded and setting != best) else "others",
            tuple(members),
            0 if crowded else number[setting],
            crowded and setting != best,
        )
        for setting, members in groups.items()
    ]


def _score(
    study: Study,
    task: Task,
    key: str,
    curves: Sequence[_Curve],
    places: Sequence[float],
    folder: Path,
) -> Picture:
    assert task.test is not None
    plot = new_plot(3.4 if len(curves) == 1 else 3.7)
    for curve in curves:
        _draw(plot, curve, key, task.test, SCORE)
    for curve in curves:
        if not curve.faint and not curve.dots:
            _draw_runs_and_dev(plot, curve, key, task)
    best = task.best.of(task.test)
    if best is not None and is_number(task.best.setting[key]):
        _ring(plot, _place(task.best, key), best.mean)
    draw_baselines(plot.axes.axhline, plot, task)
    plot.axes.set_ylabel(score_name(task.test))
    _finish_axes(plot, key, places)
    return plot.finish(
        folder,
        file_name("score", key, task.name),
        f"{score_name(task.test, start=True)} on {tidy(task.name)} against {key}",
        f"{_how(curves)}; small dots: single runs. "
        f"The ring marks the setting chosen on dev, {study.label(task.best.setting)}.",
    )


def _draw(plot: Plot, curve: _Curve, key: str, measure: str, unit: Unit) -> None:
    """The mean line of a measure with its band."""
    found = [(row, row.of(measure)) for row in curve.rows]
    known = [(_place(row, key), value) for row, value in found if value is not None]
    if not known:
        return
    places, values = zip(*sorted(known, key=lambda item: item[0]), strict=True)
    line = draw_line(
        plot, places, values, unit.size, curve.number, faint=curve.faint, dots=curve.dots
    )
    label = curve.label or ("test" if measure.startswith("test/") else "")
    if label:
        plot.note(line, label)


def _draw_runs_and_dev(plot: Plot, curve: _Curve, key: str, task: Task) -> None:
    colour = COLOURS[curve.number % len(COLOURS)]
    rows = sorted(curve.rows, key=lambda row: _place(row, key))
    for row in rows:
        if len(row.runs) > 1 and task.test in row.frame:
            scores = row.frame[task.test].dropna()
            at = [_place(row, key)] * len(scores)
            plot.axes.scatter(at, scores, s=7, color=colour, alpha=0.45, linewidth=0, zorder=2.5)
    dev = [estimate_of(row, task.dev).mean for row in rows]
    plot.axes.plot([_place(row, key) for row in rows], dev, color=colour, lw=0.9, ls=(0, (4, 2)))
    plot.note(Line2D([], [], color=INK, lw=0.9, ls=(0, (4, 2))), score_name(task.dev))


def _how(curves: Sequence[_Curve]) -> str:
    """How the figure is to be read."""
    if any(curve.dots for curve in curves):
        return "A point for each setting: mean over the seeds; bar: one standard deviation"
    return "Mean over the seeds; band: one standard deviation"


def _ring(plot: Plot, place: float, value: float) -> None:
    style = {"s": 110, "facecolor": "none", "edgecolor": INK, "linewidth": 1.1, "zorder": 5}
    plot.note(plot.axes.scatter([place], [value], **style), "chosen on dev")


def _finish_axes(plot: Plot, key: str, places: Sequence[float]) -> None:
    scale(plot.axes, places, linear=key == _LAYER)
    plot.axes.set_xlabel(key)
    plot.axes.grid(visible=False, axis="x")
    plot.axes.spines["bottom"].set_color(FAINT)


def _place(row: Row, key: str) -> float:
    value = row.setting[key]
    assert isinstance(value, int | float)
    return float(value)


def _means(rows: Sequence[Row], measure: str) -> list[float]:
    return [estimate_of(row, measure).mean for row in rows]
