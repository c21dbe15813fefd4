"""Runs arranged for comparison: tasks, the setting chosen on dev, pairing, baselines."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import stats

from lpt.errors import Problems
from lpt.report.collect import SEEDS, Collection
from lpt.report.formatting import BASELINES
from lpt.report.settings import Settings, find_settings

DIGITS = 9  # means of the same numbers in another order are equal up to rounding


@dataclass(frozen=True, eq=False)
class Task:
    """All settings on one task.

    Attributes:
        metric: Metric that selected the checkpoints on dev, and chooses the setting.
        runs: Its rows of `Study.runs`.
        summary: A row for each setting, in order; columns (measure, mean | std | count), std with
            n - 1.
    """

    name: str
    metric: str
    runs: pd.DataFrame
    summary: pd.DataFrame

    @property
    def dev(self) -> str:
        """The measure that chooses."""
        return f"dev/{self.metric}"

    @property
    def test(self) -> str | None:
        """The measure that is reported; None where test has no labels."""
        return f"test/{self.metric}" if f"test/{self.metric}" in self.summary else None

    @property
    def scores(self) -> list[str]:
        """Measures that are scores: on dev, test and further sets."""
        names = self.summary.columns.unique(0)
        return [n for n in names if "/" in n and n.partition("/")[0] not in BASELINES]

    @cached_property
    def best(self) -> list[int]:
        """Settings with the highest mean on dev, in order; the first one is chosen."""
        means = self.summary[(self.dev, "mean")].round(DIGITS)
        return [int(setting) for setting in means.index[means == means.max()]]

    @property
    def chosen(self) -> int:
        """The chosen setting."""
        return self.best[0]

    def mean(self, setting: int, measure: str | None) -> float:
        """Mean of a measure over the runs of a setting; NaN if none has it."""
        means = self.summary.get((measure, "mean"), pd.Series(dtype=float))
        return float(means.get(setting, float("nan")))

    def runs_of(self, setting: int) -> pd.DataFrame:
        """The runs of a setting, indexed by their seeds."""
        return self.runs[self.runs["setting"] == setting].set_index([*SEEDS])

    def comparisons(self) -> pd.DataFrame:
        """The chosen setting against each other one on test.

        Returns:
            A row for each other setting: what `compare` returns, and adjusted: p after Holm.
        """
        if self.test is None or len(self.summary) == 1:
            return pd.DataFrame()
        scores = {s: self.runs_of(s)[self.test] for s in self.summary.index}
        ours = scores.pop(self.chosen)
        found = pd.DataFrame({s: compare(ours, theirs) for s, theirs in scores.items()}).T
        return found.assign(adjusted=holm(found["p"]))


@dataclass(frozen=True, eq=False)
class Study:
    """Everything a report is about.

    Attributes:
        settings: What differs between the runs.
        tasks: The tasks, by name.
        runs: The runs that count: `Collection.runs` with their setting.
        repeats: Folder of a run that was left out -> folder of the later one that counts.
        collection: What the study was made of.
    """

    settings: Settings
    tasks: list[Task]
    runs: pd.DataFrame
    repeats: dict[str, str]
    collection: Collection

    def average(self, setting: int, part: str) -> float:
        """Mean score over all tasks on dev or test; NaN unless every task has one."""
        measures = [(task, task.dev if part == "dev" else task.test) for task in self.tasks]
        return sum(task.mean(setting, measure) for task, measure in measures) / len(measures)

    @cached_property
    def chosen(self) -> int | None:
        """Setting with the highest average on dev, if one has a result on every task."""
        averages = pd.Series({s: self.average(s, "dev") for s in self.settings.values.index})
        return None if averages.isna().all() else int(averages.round(DIGITS).idxmax())


def arrange(collection: Collection) -> Study:
    """Group runs into settings and choose the best one of each task on dev.

    Raises:
        ConfigError: Runs of one task were selected by different metrics.
    """
    settings, identity = find_settings(collection), ["task.name", "setting", *SEEDS]
    runs = collection.runs.assign(setting=settings.number).sort_values(["finished", "folder"])
    latest = runs.groupby(identity)["folder"].transform("last")
    repeated = runs["folder"] != latest
    repeats = dict(zip(runs["folder"][repeated], latest[repeated], strict=True))
    runs = runs[~repeated].sort_values(identity)
    problems, tasks = Problems(), []
    for name, members in runs.groupby("task.name"):
        metric, *others = sorted(members["metric"].unique())
        if others:
            found = f"runs selected by {' and by '.join([metric, *others])}"
            problems.add(f"task {name}", found, "one metric", "report their folders separately")
        measured = members[collection.measures].dropna(axis=1, how="all")
        summary = measured.groupby(members["setting"]).agg(["mean", "std", "count"])
        tasks.append(Task(str(name), metric, members, summary))
    problems.raise_if_any()
    return Study(settings, tasks, runs, repeats, collection)


def compare(first: pd.Series, second: pd.Series) -> dict[str, float]:
    """Two-sided paired t-test of two series of scores, each indexed by the seeds of its runs.

    Returns:
        pairs: number of seeds that both have; difference: mean of first minus second; low and
        high: its 95 % confidence interval (Student's t); p. What cannot be computed is NaN:
        interval and p need two pairs, and differences that are not all the same.
    """
    pairs = pd.concat([first, second], axis=1, join="inner", keys=["first", "second"]).dropna()
    difference = pairs["first"] - pairs["second"]
    low = high = p = np.nan
    if len(pairs) > 1 and difference.std() > 10**-DIGITS:
        test = stats.ttest_rel(pairs["first"], pairs["second"])
        low, high = test.confidence_interval(0.95)
        p = test.pvalue
    mean = difference.mean()
    return {"pairs": len(pairs), "difference": mean, "low": low, "high": high, "p": p}


def holm(p_values: pd.Series) -> pd.Series:
    """p-values adjusted for multiple comparisons (Holm, 1979); NaN stays and does not count.

    The i-th smallest of m is multiplied by m - i + 1; the results never fall and are at most 1.
    """
    tested = p_values.dropna().sort_values()
    adjusted = (tested * np.arange(len(tested), 0, -1)).cummax().clip(upper=1.0)
    return adjusted.reindex(p_values.index)
