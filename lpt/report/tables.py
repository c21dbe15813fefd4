"""The tables of a report; `lpt.report.latex` writes them for papers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from functools import partial
from math import isnan
from statistics import fmean

import numpy as np
import pandas as pd

from lpt.report.formatting import (
    BASELINES,
    CHOSEN,
    COST_TITLES,
    NOTHING,
    file_name,
    mean_and_sd,
    measure_title,
    number,
    p_value,
)
from lpt.report.outcomes import PredictionsOfRuns
from lpt.report.settings import title
from lpt.report.study import DIGITS, Study, Task


@dataclass(frozen=True)
class Table:
    """A table of finished text."""

    name: str
    """Name of its file, without a suffix."""
    caption: str
    frame: pd.DataFrame
    words: int
    """Number of leading columns that hold words; the others hold numbers."""
    best: Set[tuple[int, int]] = frozenset()
    """Positions (row, column) of the best score of each column."""
    chosen: int | None = None
    """The row that was chosen on dev; cells so chosen end in a dagger."""


def all_tables(study: Study, *, percent: bool) -> dict[str, list[Table]]:
    """The tables by section; scores are shares of 1, or in percent."""
    across = [matrix(study, percent=percent)] if len(study.tasks) > 1 else []
    compared = [t for t in study.tasks if len(t.comparisons())]
    jobs = study.collection.unfinished.sort_values(["state", "job"]).replace("", NOTHING)
    lost = Table("unfinished", "Jobs without a result", jobs, len(jobs.columns))
    return {
        "Results": [*across, *(results(study, task, percent=percent) for task in study.tasks)],
        "Costs": [costs(study, task) for task in study.tasks],
        "Paired comparison": [comparisons(study, task, percent=percent) for task in compared],
        "Not finished": [] if jobs.empty else [lost],
    }


def results(study: Study, task: Task, *, percent: bool) -> Table:
    """Scores of every setting on a task, below the baselines."""
    summary, keys = task.summary, study.settings.keys
    frame = _keys(study, task)
    frame["n"] = summary[(task.dev, "count")].map(str)
    for measure in task.scores:
        scores = summary[measure].apply(mean_and_sd, axis=1, args=(measure,), percent=percent)
        frame[measure_title(measure)] = scores
    place = summary.index.get_loc(task.chosen)
    if keys:
        frame.iloc[place, 0] += CHOSEN
    above, beside = _baselines(study, task, percent=percent)
    above = [[*row, *[NOTHING] * len(beside)] for row in above]
    for name, column in beside.items():
        frame[name] = column
    frame = pd.concat([pd.DataFrame(above, columns=frame.columns), frame], ignore_index=True)
    means = [summary[(measure, "mean")] for measure in task.scores]
    best = {
        (len(above) + row, len(keys) + 1 + column)
        for column, scores in enumerate(means)
        for row in best_of(scores)
    }
    name, caption = file_name("results", task.name), f"Results on {task.name}"
    return Table(name, caption, frame, len(keys), best, len(above) + place)


def _keys(study: Study, task: Task) -> pd.DataFrame:
    """What tells the settings of a task apart: a row for each, a column for each key."""
    keys = study.settings.keys
    texts = study.settings.texts.loc[task.summary.index]
    return texts.set_axis([title(key, keys) for key in keys], axis=1)


def best_of(scores: pd.Series) -> list[int]:
    """Places of the highest of several means, unless there is just one."""
    rounded = scores.round(DIGITS).to_numpy()
    highest = np.nanmax(rounded) if np.isfinite(rounded).sum() > 1 else np.inf
    return np.flatnonzero(rounded == highest).tolist()


def _baselines(
    study: Study, task: Task, *, percent: bool
) -> tuple[list[list[str]], dict[str, list[str]]]:
    """Rows with the scores without training, or columns where they differ by setting."""
    score, count = task.test or task.dev, len(study.settings.keys)
    rows, columns = [], {}
    for kind, name in BASELINES.items():
        found = {
            measure: [
                number(task.mean(setting, f"{kind}/{measure}"), percent=percent)
                for setting in task.summary.index
            ]
            for measure in task.scores
        }
        if count == 0 or len(set(found[score])) > 1:
            columns[name] = found[score]
        elif found[score][0] != NOTHING:
            scores = [texts[0] if len(set(texts)) == 1 else NOTHING for texts in found.values()]
            rows.append([name, *[NOTHING] * count, *scores])
    return rows, columns


def costs(study: Study, task: Task) -> Table:
    """Time, memory and parameters of every setting on a task."""
    frame = _keys(study, task)
    for measure, column in COST_TITLES.items():
        frame[column] = NOTHING
        if measure in task.summary:
            frame[column] = task.summary[measure].apply(mean_and_sd, axis=1, args=(measure,))
    chosen = task.summary.index.get_loc(task.chosen)
    if study.settings.keys:
        frame.iloc[chosen, 0] += CHOSEN
    name, caption = file_name("costs", task.name), f"Costs on {task.name}"
    return Table(name, caption, frame, len(study.settings.keys), chosen=chosen)


def comparisons(study: Study, task: Task, *, percent: bool) -> Table:
    """The chosen setting against each other one, on test."""
    found, signed_number = task.comparisons(), partial(number, sign="+", percent=percent)
    signed = found[["difference", "low", "high"]].map(signed_number)
    interval = (signed["low"] + " to " + signed["high"]).where(found["p"].notna(), NOTHING)
    over_examples = _over_examples(task, found.index, signed_number)
    frame = pd.DataFrame(
        {
            "compared with": found.index.map(study.settings.label),
            "pairs": found["pairs"].map("{:.0f}".format),
            "difference": signed["difference"],
            "95 % over seeds": interval,
            "95 % over examples": over_examples,
            "p": found["p"].map(p_value),
            "p (Holm)": found["adjusted"].map(p_value),
        }
    )
    chosen = study.settings.label(task.chosen)
    caption = f"{chosen} against every other setting on {task.name}"
    caption += f" in {measure_title(str(task.test))}"
    return Table(file_name("comparisons", task.name), caption, frame, 1)


def _over_examples(task: Task, others: Iterable[int], show: Callable[..., str]) -> list[str]:
    """Intervals of the difference to the chosen setting over resampled test examples."""
    predictions, ours = PredictionsOfRuns(), task.runs_of(task.chosen)["path"]
    intervals = []
    for setting in others:
        pairs = pd.concat([ours, task.runs_of(setting)["path"]], axis=1, join="inner").to_numpy()
        low, high = predictions.interval(*(pairs.T.tolist()))
        intervals.append(NOTHING if isnan(low) else f"{show(low)} to {show(high)}")
    return intervals


def matrix(study: Study, *, percent: bool) -> Table:
    """Test scores of the baselines and of every setting on every task, and their averages."""
    keys, settings = study.settings.keys, study.settings.values.index
    frame = study.settings.texts.set_axis([title(key, keys) for key in keys], axis=1)
    if not keys:
        frame = pd.DataFrame({"setting": ["all"] * len(settings)}, index=settings)
    words, best = len(frame.columns), set()
    for task in study.tasks:
        cells = pd.Series([_cell(task, setting, percent=percent) for setting in settings], settings)
        cells[task.chosen] += CHOSEN
        frame[f"{task.name} [{measure_title(task.metric)}]"] = cells
        best |= {(row, len(frame.columns) - 1) for row in best_of(_means(study, task))}
    averages = pd.Series({setting: study.average(setting, "test") for setting in settings})
    frame["average"] = averages.map(partial(number, percent=percent))
    best |= {(row, len(frame.columns) - 1) for row in best_of(averages)}
    if study.chosen is not None:
        frame.loc[study.chosen, [frame.columns[0], "average"]] += CHOSEN
    above = []
    for kind, name in BASELINES.items():
        scores = [task.mean(task.chosen, f"{kind}/{task.test}") for task in study.tasks]
        if not np.isnan(scores).all():
            texts = [number(score, percent=percent) for score in (*scores, fmean(scores))]
            above.append([name, *[NOTHING] * (words - 1), *texts])
    chosen = None if study.chosen is None else len(above) + settings.get_loc(study.chosen)
    frame = pd.concat([pd.DataFrame(above, columns=frame.columns), frame], ignore_index=True)
    best = {(row + len(above), column) for row, column in best}
    caption = f"Scores on test by task and setting, {_counts(study)}"
    return Table("tasks", caption, frame, words, best, chosen)


def _means(study: Study, task: Task) -> pd.Series:
    return pd.Series([task.mean(setting, task.test) for setting in study.settings.values.index])


def _cell(task: Task, setting: int, *, percent: bool) -> str:
    if setting not in task.summary.index or task.test is None:
        return NOTHING
    return mean_and_sd(task.summary.loc[setting, task.test], task.test, percent=percent)


def _counts(study: Study) -> str:
    """Over how many seeds the means are."""
    counts = {int(n) for task in study.tasks for n in task.summary[(task.dev, "count")]}
    least, most = min(counts), max(counts)
    seeds = f"{least}" if least == most else f"{least} to {most}"
    return f"mean over {seeds} {'seed' if most == 1 else 'seeds'}"
