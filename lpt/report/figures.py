"""The figures of a report: scores and costs against the keys that vary, and learning curves."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator

from lpt.config.command_line import LAYERS
from lpt.report.formatting import BASELINES, file_name, measure_title, words
from lpt.report.settings import is_number
from lpt.report.study import Study, Task

INK, SOFT, FAINT = "#1f2328", "#6b7280", "#c9cdd3"
# The palette of Okabe and Ito, distinguishable with any kind of color vision.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)
MARKERS = "os^DvPX<>hd*"  # distinguish two lines of one color
_MOST_LINES, _MOST_METHODS = 6, len(MARKERS)
_KINDS = ("method.name", "prompt.kind", "model.name")  # by which costs are compared
_WIDTH = 3.9  # inches: unscaled, it fits a phone and a column of a paper
_MOST_TICKS = 8
_LONGEST_LABEL = 44  # characters in one line of the legend
_LEGEND_ROW = 0.19  # inches
logging.getLogger("fontTools.subset").setLevel(logging.WARNING)  # it logs each PDF's glyphs
STYLE = Path(__file__).with_name("page.mplstyle")


class Picture(NamedTuple):
    """One figure: name of its file without a suffix, what it shows, and how to read it."""

    name: str
    title: str
    caption: str
    figure: Figure


class _Line(NamedTuple):
    """The settings of one line; lines in `FAINT` are many, behind the others."""

    label: str
    settings: list[int]
    color: str
    marker: str


def draw(study: Study) -> dict[str, list[Picture]]:
    """All figures that the runs have data for, by section."""
    values = study.settings.values
    numeric = [key for key in values if values[key].dropna().map(is_number).all()]
    sections = {}
    with matplotlib.style.context(STYLE):
        for key in sorted(values, key=lambda key: (key != "method.name", key not in numeric)):
            draw_key = against if key in numeric else by_value
            name = f"By {words(key)}"
            sections[name] = [p for task in study.tasks for p in draw_key(study, task, key)]
        sections["Score against cost"] = [p for t in study.tasks for p in against_costs(study, t)]
        sections["Learning curves"] = [p for task in study.tasks for p in curves(study, task)]
    return {title: pictures for title, pictures in sections.items() if pictures}


def against(study: Study, task: Task, key: str) -> Iterator[Picture]:
    """Score, training time and peak memory against a numeric key, such as the insertion layer."""
    values = study.settings.values.loc[task.summary.index, key]
    x = pd.to_numeric(values).dropna().astype(float).sort_values()
    labels = {setting: study.settings.label(setting, key) for setting in x.index}
    if _has_methods(study):  # a method with one value is no line beside others
        several = x.groupby(labels).transform("nunique") > 1
        x, labels = x[several], {s: label for s, label in labels.items() if several[s]}
    if x.nunique() < 2:
        return
    lines = _lines(study, labels, study.settings.label(task.chosen, key))
    score = task.test or task.dev
    for measure in (score, "train_seconds", "peak_memory_mb"):
        axes = Figure(figsize=(_WIDTH, 2.8 if measure == score else 2.4)).subplots()
        for line in lines:
            _draw_mean(axes, line, x[line.settings], task.summary.loc[line.settings, measure])
        axes.set(xlabel=words(key), ylabel=measure_title(measure))
        _scale(axes, sorted(set(x)), linear=key in LAYERS)
        caption = "Mean over the seeds; band: one standard deviation."
        if measure == score:
            _draw_choice(axes, task, lines, x)
            _draw_baselines(axes.axhline, task, score)
            caption += f" Dashes: {measure_title(task.dev)}."
            caption += " Ring: chosen on dev." * (task.chosen in x.index)
        else:
            axes.set_ylim(bottom=0)
        what = measure_title(measure).partition(" [")[0]
        name = file_name(measure.partition("/")[0], key, task.name)
        yield _finish(axes, name, f"{what} on {task.name} by {words(key)}", caption)


def _lines(study: Study, labels: dict[int, str], chosen: str) -> list[_Line]:
    """A line for each label; of too many, the one of the chosen setting stands out."""
    most = _MOST_METHODS if _has_methods(study) else _MOST_LINES
    groups = {label: [s for s in labels if labels[s] == label] for label in labels.values()}
    if len(groups) <= most:
        order = sorted(groups, key=lambda label: min(groups[label]))
        looks = zip(order, itertools.cycle(COLORS), MARKERS, strict=False)
        return [_Line(label, groups[label], *look) for label, *look in looks]
    lines = [_Line("others", groups[g], FAINT, "") for g in groups if g != chosen]
    return [*lines, _Line(chosen, groups.get(chosen, []), COLORS[0], "o")]


def _has_methods(study: Study) -> bool:
    return "method.name" in study.settings.keys


def _draw_mean(axes: Any, line: _Line, x: Any, summary: pd.DataFrame) -> Any:
    """Means with a band of one standard deviation; an error bar where there is one point."""
    mean, sd = summary["mean"], summary["std"].fillna(0)
    style = {"color": line.color, "zorder": 2 if line.color == FAINT else 3}
    marker = line.marker if len(x) > 1 else "o"
    (drawn,) = axes.plot(x, mean, marker=marker, label=line.label, **style)
    if len(x) == 1:
        axes.errorbar(x, mean, sd, **style)
    elif line.color != FAINT:
        axes.fill_between(x, mean - sd, mean + sd, alpha=0.15, linewidth=0, **style)
    return drawn


def _draw_choice(axes: Any, task: Task, lines: list[_Line], x: pd.Series) -> None:
    """The means on dev, and a ring around the chosen setting."""
    for line in (line for line in lines if line.color != FAINT):
        dev = task.summary.loc[line.settings, (task.dev, "mean")]
        axes.plot(x[line.settings], dev, color=line.color, linewidth=0.9, linestyle=(0, (4, 2)))
    if task.chosen in x.index:
        place = x[task.chosen], task.mean(task.chosen, task.test or task.dev)
        axes.scatter(*place, 110, facecolor="none", edgecolor=INK, linewidth=1.1, zorder=5)


def _draw_baselines(draw_line: Any, task: Task, measure: str) -> None:
    """Scores without training, with the data and the model of the chosen setting."""
    for (kind, label), dashes in zip(BASELINES.items(), (":", "-."), strict=True):
        score = task.mean(task.chosen, f"{kind}/{measure}")
        if np.isfinite(score):
            draw_line(score, color=SOFT, label=label, linewidth=1.1, linestyle=dashes, zorder=1.5)


def _scale(axes: Any, values: list[float], *, linear: bool) -> None:
    """Make the x axis logarithmic where values span a decade; put ticks at the values if few."""
    if values[0] > 0 and values[-1] >= 10 * values[0] and not linear:
        axes.set_xscale("log")
    if len(values) <= _MOST_TICKS:
        axes.set_xticks(values)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()


def by_value(study: Study, task: Task, key: str) -> Iterator[Picture]:
    """Dot plot of a key that is no number: the best setting on dev with each of its values."""
    ranked = task.summary.sort_values((task.dev, "mean"), ascending=False, kind="stable").index
    best = study.settings.texts.loc[ranked, key].drop_duplicates()
    best = best if key in _KINDS else best.sort_index()  # the best method comes first
    if len(best) < 2:
        return
    score = task.test or task.dev
    axes = Figure(figsize=(_WIDTH, 0.9 + 0.42 * len(best))).subplots()
    axes.grid(visible=False, axis="y")
    axes.grid(axis="x")
    for measure, shift, color, marker in ((score, 0, COLORS[0], "o"), (task.dev, 0.22, SOFT, "D")):
        found, y = task.summary.loc[best.index, measure], np.arange(len(best)) + shift
        bars = {"xerr": found["std"].fillna(0), "fmt": marker, "color": color}
        axes.errorbar(found["mean"], y, label=measure_title(measure), **bars)
    axes.set_yticks(range(len(best)), best)
    axes.set(ylim=(len(best) - 0.5, -0.5), xlabel="score")
    axes.locator_params(axis="x", nbins=6)
    _draw_baselines(axes.axvline, task, score)
    caption = "Best setting on dev for each value: mean over the seeds ± standard deviation."
    title = f"{measure_title(score)} on {task.name} by {words(key)}"
    yield _finish(axes, file_name(score.partition("/")[0], key, task.name), title, caption)


def against_costs(study: Study, task: Task) -> Iterator[Picture]:
    """Score against training time, peak memory and trainable parameters: a point a setting."""
    score = task.test or task.dev
    key = next((key for key in _KINDS if key in study.settings.keys), "")
    kinds = {s: study.settings.texts.at[s, key] if key else "runs" for s in task.summary.index}
    for cost in ("train_seconds", "peak_memory_mb", "trainable"):
        x = task.summary[(cost, "mean")]
        if x.nunique() < 2:
            continue
        axes = Figure(figsize=(_WIDTH, 2.8)).subplots()
        for line in _lines(study, kinds, kinds[task.chosen]):
            y, spread = (task.summary.loc[line.settings, (score, part)] for part in ("mean", "std"))
            bars = {"yerr": spread.fillna(0), "fmt": line.marker or "o", "color": line.color}
            axes.errorbar(x[line.settings], y, label=line.label, elinewidth=0.8, **bars)
            for setting in line.settings if line.color == FAINT else ():
                corner: dict[str, Any] = {"textcoords": "offset points", "xytext": (3, 2)}
                place = x[setting], y[setting]
                axes.annotate(kinds[setting], place, color=SOFT, fontsize=5.5, **corner)
        place = x[task.chosen], task.mean(task.chosen, score)
        axes.scatter(*place, 110, facecolor="none", edgecolor=INK, linewidth=1.1, zorder=5)
        _draw_baselines(axes.axhline, task, score)
        axes.set(xlabel=measure_title(cost), ylabel=measure_title(score))
        if x.max() >= 10 * x.min() > 0:
            axes.set_xscale("log")
            subs = (1, 3) if x.max() < 1000 * x.min() else (1,)
            axes.xaxis.set_major_locator(LogLocator(subs=subs))
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            axes.minorticks_off()
        caption = "A point a setting: mean over the seeds ± standard deviation. "
        name = file_name("cost", cost, task.name)
        what = measure_title(cost).partition(" [")[0]
        title = f"{measure_title(score)} on {task.name} against {what}"
        yield _finish(axes, name, title, f"{caption}Ring: chosen on dev.")


def curves(study: Study, task: Task) -> Iterator[Picture]:
    """Learning curves: the selecting metric on dev by optimizer step."""
    histories = {setting: history(task, setting) for setting in task.summary.index}
    if max(map(len, histories.values())) < 2:
        return
    axes = Figure(figsize=(_WIDTH, 2.8)).subplots()
    labels = {setting: study.settings.label(setting) for setting in histories}
    for line in _lines(study, labels, study.settings.label(task.chosen)):
        found = histories[line.settings[0]]
        drawn = _draw_mean(axes, line, found.index, found)
        drawn.set_markevery(max(1, len(found) // 8))
    axes.set(xlabel="optimizer steps", ylabel=measure_title(task.dev))
    caption = "Mean over the seeds up to the end of the shortest run; band: one standard deviation."
    yield _finish(axes, file_name("curves", task.name), f"Learning curves on {task.name}", caption)


def history(task: Task, setting: int) -> pd.DataFrame:
    """Mean and std on dev at each step at which all runs of a setting were evaluated."""
    tables = map(pd.DataFrame, task.runs_of(setting)["dev_history"])
    scores = [table.set_index("step")[task.metric] for table in tables]
    return pd.concat(scores, axis=1, join="inner").sort_index().agg(["mean", "std"], axis=1)


def _finish(axes: Any, name: str, title: str, caption: str) -> Picture:
    """Add the legend, with each label once."""
    figure, (handles, labels) = axes.figure, axes.get_legend_handles_labels()
    legend = dict(zip(labels, handles, strict=True))
    if legend:
        short = [label[:_LONGEST_LABEL] for label in legend]
        columns = 2 if max(map(len, short)) <= _LONGEST_LABEL // 2 - 2 else 1
        figure.legend(legend.values(), short, loc="outside lower center", ncols=columns)
        rows = -(-len(short) // columns)
        figure.set_figheight(figure.get_figheight() + rows * _LEGEND_ROW)
    return Picture(name, f"{title[0].upper()}{title[1:]}", caption, figure)
