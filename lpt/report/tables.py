"""The tables of a report, and how they are written as LaTeX."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass

import pandas as pd

from lpt.report.formatting import (
    BASELINES,
    COST_TITLES,
    NOTHING,
    file_name,
    mean_and_sd,
    measure_title,
    number,
    p_value,
)
from lpt.report.settings import title
from lpt.report.study import Study, Task


@dataclass(frozen=True)
class Table:
    """A table of finished text."""

    name: str
    """Name of its file, without a suffix."""
    caption: str
    frame: pd.DataFrame
    words: int
    """Number of leading columns that hold words; the others hold numbers."""
    bold: Set[tuple[int, int]] = frozenset()
    """Positions (row, column) of the cells in bold; the first one of the chosen row is."""


def all_tables(study: Study) -> dict[str, list[Table]]:
    """The tables by section."""
    across = [matrix(study)] if len(study.tasks) > 1 else []
    jobs = study.collection.unfinished.sort_values(["state", "job"]).replace("", NOTHING)
    lost = Table("unfinished", "Jobs without a result", jobs, len(jobs.columns))
    return {
        "Results": [*across, *(results(study, task) for task in study.tasks)],
        "Paired comparison": [comparisons(study, t) for t in study.tasks if len(t.comparisons())],
        "Not finished": [] if jobs.empty else [lost],
    }


def results(study: Study, task: Task) -> Table:
    """Scores and costs of every setting on a task, with the baselines."""
    keys = study.settings.keys
    score = task.test or task.dev
    columns = {measure: measure_title(measure) for measure in task.scores}
    columns |= {f"{kind}/{score}": name for kind, name in BASELINES.items()} | COST_TITLES
    summary = task.summary
    frame = study.settings.texts.loc[summary.index].set_axis([title(k, keys) for k in keys], axis=1)
    frame["n"] = summary[(task.dev, "count")].map(str)
    for measure, column in columns.items():
        frame[column] = NOTHING
        if measure in summary:
            frame[column] = summary[measure].apply(mean_and_sd, axis=1, args=(measure,))
    chosen = summary.index.get_loc(task.chosen)
    bold = {(chosen, column) for column in range(len(keys) + 1 + len(task.scores))}
    name, caption = file_name("results", task.name), f"Results on {task.name}"
    return Table(name, caption, frame, len(keys), bold)


def comparisons(study: Study, task: Task) -> Table:
    """The chosen setting against each other one, on test."""
    found = task.comparisons()
    signed = found[["difference", "low", "high"]].map(lambda value: number(value, sign="+"))
    interval = (signed["low"] + " to " + signed["high"]).where(found["p"].notna(), NOTHING)
    frame = pd.DataFrame(
        {
            "compared with": found.index.map(study.settings.label),
            "pairs": found["pairs"].map("{:.0f}".format),
            "difference": signed["difference"],
            "95 % interval": interval,
            "p": found["p"].map(p_value),
            "p (Holm)": found["adjusted"].map(p_value),
        }
    )
    chosen = study.settings.label(task.chosen)
    caption = f"{chosen} against every other setting on {task.name}"
    caption += f" in {measure_title(str(task.test))}"
    return Table(file_name("comparisons", task.name), caption, frame, 1)


def matrix(study: Study) -> Table:
    """Test scores of every setting on every task, with the average over tasks."""
    settings = list(study.settings.values.index)
    columns = {f"{t.name} [{t.metric}]": [_cell(t, s) for s in settings] for t in study.tasks}
    averages = [number(study.average(setting, "test")) for setting in settings]
    labels = map(study.settings.label, settings)
    frame = pd.DataFrame({"setting": labels, **columns, "average over tasks": averages})
    bold = {(task.chosen, place) for place, task in enumerate(study.tasks, 1)}
    if study.chosen is not None:
        bold |= {(study.chosen, 0), (study.chosen, len(study.tasks) + 1)}
    return Table("tasks", "Scores on test by task and setting", frame, 1, bold)


def _cell(task: Task, setting: int) -> str:
    if setting not in task.summary.index or task.test is None:
        return NOTHING
    found = task.summary.loc[setting, task.test]
    return f"{mean_and_sd(found, task.test)} ({int(found['count'])})"


def to_latex(table: Table, notes: Iterable[str]) -> str:
    """A tabular with booktabs rules; caption and notes are comments."""
    style = table.frame.style.hide(axis="index").format(escape="latex")
    style = style.format_index(escape="latex", axis=1)
    for row, column in table.bold:
        cell = ([table.frame.index[row]], [table.frame.columns[column]])
        style = style.set_properties(subset=cell, textbf="--rwrap")
    align = "l" * table.words + "r" * (len(table.frame.columns) - table.words)
    text = style.to_latex(hrules=True, column_format=align)
    text = text.replace("\n[", "\n{[}")  # a bracket after \\\\ would be its argument
    packages = r"% needs \usepackage{booktabs} and \usepackage[T1]{fontenc}"
    return "\n".join([packages, *(f"% {line}" for line in (table.caption, *notes)), text])
