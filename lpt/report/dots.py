"""A dot plot of the scores by a key whose values are words, such as the kind of prompt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lpt.report.contents import score_name
from lpt.report.drawing import COLOURS, SOFT, Picture, draw_baselines, new_plot
from lpt.report.naming import file_name
from lpt.report.runs import Value
from lpt.report.settings import order_of, show, tidy
from lpt.report.study import Row, Study, Task, estimate_of


def dots(study: Study, key: str, folder: Path) -> Iterator[Picture]:
    """For each task, the score on test of each value's best setting on dev."""
    for task in study.tasks:
        chosen = _chosen(task, key)
        if len(chosen) > 1 and task.test is not None:
            yield _plot(study, task, task.test, key, chosen, folder)


def _chosen(task: Task, key: str) -> dict[Value, Row]:
    """The best row on dev among those with each value."""
    rows: dict[Value, list[Row]] = {}
    for row in task.rows:
        rows.setdefault(row.setting[key], []).append(row)
    return {
        value: max(rows[value], key=lambda row: estimate_of(row, task.dev).mean)
        for value in sorted(rows, key=order_of)
    }


def _plot(
    study: Study, task: Task, test: str, key: str, chosen: dict[Value, Row], folder: Path
) -> Picture:
    plot = new_plot(1.5 + 0.42 * len(chosen))
    for at, row in enumerate(chosen.values()):
        for measure, shift, marker, colour in (
            (test, 0.0, "o", COLOURS[0]),
            (task.dev, 0.22, "D", SOFT),
        ):
            found = row.of(measure)
            if found is None:
                continue
            drawn = plot.axes.errorbar(
                [found.mean], [at + shift], xerr=[found.sd or 0.0], fmt=marker, color=colour,
                capsize=2.5, markersize=6 if measure == test else 4, linewidth=1.1,
            )  # fmt: skip
            plot.note(drawn, score_name(measure))
    others = [other for other in study.keys.shown if other != key]
    labels = [_label(study, value, row, key) for value, row in chosen.items()]
    plot.axes.set_yticks(range(len(chosen)), labels)
    plot.axes.set_ylim(len(chosen) - 0.5, -0.5)
    plot.axes.grid(visible=False, axis="y")
    plot.axes.set_xlabel("score")
    plot.axes.locator_params(axis="x", nbins=6)
    draw_baselines(plot.axes.axvline, plot, task)
    picked = f", each at its best setting on dev of {', '.join(others)}" if others else ""
    return plot.finish(
        folder,
        file_name("score", key, task.name),
        f"{score_name(test, start=True)} on {tidy(task.name)} by {key}",
        f"Mean over the seeds{picked}; bars: one standard deviation.",
    )


def _label(study: Study, value: Value, row: Row, key: str) -> str:
    """The value, and below it the other keys at which it was best."""
    rest = study.label(row.setting, without=[key])
    return f"{show(value)[:24]}\n{rest[:24]}" if rest else show(value)[:24]
