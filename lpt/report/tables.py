"""The tables of a report, and how they are written as LaTeX."""

from __future__ import annotations

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
    """A table of finished text.

    Attributes:
        name: Name of its file, without a suffix.
        caption: What it shows.
        frame: The cells.
        words: Number of leading columns that hold words; the others hold numbers.
        notes: What has to be known to read it.
        chosen: Position of the marked row.
        bold: Positions (row, column) of the cells in bold.
    """

    name: str
    caption: str
    frame: pd.DataFrame
    words: int
    notes: tuple[str, ...] = ()
    chosen: int | None = None
    bold: frozenset[tuple[int, int]] = frozenset()


def all_tables(study: Study) -> dict[str, list[Table]]:
    """The tables by section."""
    compared = [comparisons(study, task) for task in study.tasks if len(task.comparisons())]
    across = [matrix(study)] if len(study.tasks) > 1 else []
    jobs = study.collection.unfinished.sort_values(["state", "job"]).replace("", NOTHING)
    lost = Table("unfinished", "Jobs without a result", jobs, len(jobs.columns))
    return {
        "Results": [*across, *(results(study, task) for task in study.tasks)],
        "Paired comparison": compared,
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
    chosen = list(summary.index).index(task.chosen)
    return Table(
        file_name("results", task.name),
        f"Results on {task.name}",
        frame,
        len(keys),
        (
            f"Bold: chosen by its mean {measure_title(task.dev)}; test is only reported.",
            f"Mean ± sample standard deviation over n runs that differ only in their seeds. "
            f"Zero-shot and majority class: {measure_title(score)} without training. Times and "
            "memory are comparable only on the same device with the same use of the cache.",
            *study.settings.long_values,
        ),
        chosen,
        frozenset((chosen, column) for column in range(len(keys) + 1 + len(task.scores))),
    )


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
    return Table(
        file_name("comparisons", task.name),
        f"{chosen} against every other setting on {task.name}",
        frame,
        1,
        (
            f"Difference in {measure_title(str(task.test))}, {chosen} minus the other, paired by "
            "seeds; two-sided paired t-test, p adjusted by Holm's method for all rows. No "
            "p: fewer than two pairs, or the same difference in all of them.",
            *study.settings.long_values,
        ),
    )


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
    return Table(
        "tasks",
        "Scores on test by task and setting",
        frame,
        1,
        (
            "Mean ± sample standard deviation (number of runs). Bold: chosen on the dev set of the "
            "task, or by the average over all dev sets; test is only reported.",
            *study.settings.long_values,
        ),
        study.chosen,
        frozenset(bold),
    )


def _cell(task: Task, setting: int) -> str:
    if setting not in task.summary.index or task.test is None:
        return NOTHING
    found = task.summary.loc[setting, task.test]
    return f"{mean_and_sd(found, task.test)} ({int(found['count'])})"


def to_latex(table: Table) -> str:
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
    return "\n".join([packages, *(f"% {line}" for line in (table.caption, *table.notes)), text])
