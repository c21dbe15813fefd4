"""The runs put in order: settings, what each scored, and the best one as chosen on dev."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from lpt.errors import Problems
from lpt.report.runs import GROUPS, SEEDS, Job, Material, Run, Sweep
from lpt.report.settings import Keys, Setting, find_keys, tidy
from lpt.report.statistics import Comparison, Estimate, adjusted, compare, estimate

COSTS = ("seconds", "speed", "memory", "trainable")


@dataclass(frozen=True, eq=False)
class Row:
    """The runs of one setting on one task.

    Attributes:
        setting: What they have in common.
        runs: One for each pair of seeds.
    """

    setting: Setting
    runs: tuple[Run, ...]

    @cached_property
    def frame(self) -> Any:
        """A line for each run with its measures (`Run.measures`), indexed by its seeds."""
        index = pd.MultiIndex.from_tuples([seeds_of(run) for run in self.runs], names=SEEDS)
        return pd.DataFrame([run.measures() for run in self.runs], index=index)

    def of(self, measure: str | None) -> Estimate | None:
        """Mean and spread of a measure; None if no run has it."""
        return estimate(self.frame[measure]) if measure in self.frame else None


@dataclass(frozen=True, eq=False)
class Task:
    """All settings on one task.

    Attributes:
        name: The task.
        selection: Metric on dev that selected the checkpoints, and selects the setting.
        rows: Settings in order.
        best: The one with the highest mean of `selection` on dev.
        tied: Others with the same mean on dev; `best` is the first of all in order.
    """

    name: str
    selection: str
    rows: tuple[Row, ...]
    best: Row
    tied: tuple[Row, ...]

    @cached_property
    def scores(self) -> tuple[str, ...]:
        """Measures that are scores: dev first, then test, the selecting metric before others."""
        seen = dict.fromkeys(m for row in self.rows for m in row.frame if m not in COSTS)
        order = {"dev": 0, "test": 1}

        def place(measure: str) -> tuple[int, bool]:
            part, _, metric = measure.partition("/")
            return order.get(part, 2), metric != self.selection

        return tuple(sorted(seen, key=place))

    @property
    def dev(self) -> str:
        """The measure that chooses."""
        return f"dev/{self.selection}"

    @cached_property
    def test(self) -> str | None:
        """The measure that is reported; None where test has no labels.

        It is the selecting metric, unless test is measured otherwise.
        """
        return next((m for m in self.scores if m.startswith("test/")), None)

    @cached_property
    def models(self) -> tuple[str, ...]:
        """Names of the backbones."""
        return tuple(dict.fromkeys(str(r.config["model.name"]) for x in self.rows for r in x.runs))

    def baseline(self, kind: str, model: str) -> dict[str, Estimate | None]:
        """Scores of `zero_shot` or `majority` with a model, over the different draws of the data.

        Every run notes them, but they differ only with the data: each draw counts once.
        """
        draws: dict[object, dict[str, float]] = {}
        for run in (run for row in self.rows for run in row.runs):
            if run.config["model.name"] == model:
                protocol = run.metrics.get("protocol") or {}
                draw = protocol.get("split_sha256") or run.config["data.seed"]
                draws[draw] = {
                    f"{name}/{metric}": value
                    for name, scores in run.metrics[kind].items()
                    for metric, value in (scores or {}).items()
                }
        return {m: estimate(d[m] for d in draws.values() if m in d) for m in self.scores}

    def comparisons(self) -> list[tuple[Row, Comparison]]:
        """The best setting on dev against every other one, by score on test."""
        others = [row for row in self.rows if row is not self.best]
        test = self.test
        if test is None:
            return []
        compared = [compare(_series(self.best, test), _series(row, test)) for row in others]
        return list(zip(others, adjusted(compared), strict=True))


@dataclass(frozen=True, eq=False)
class Study:
    """Everything a report says something about.

    Attributes:
        keys: What makes a setting.
        tasks: By name.
        runs: The finished ones that count.
        repeats: Pairs of a run that was left out and the later one that counts.
        unfinished: Jobs without a result.
        sweeps: The sweeps that runs belong to.
    """

    keys: Keys
    tasks: tuple[Task, ...]
    runs: tuple[Run, ...]
    repeats: tuple[tuple[Run, Run], ...]
    unfinished: tuple[Job, ...]
    sweeps: tuple[Sweep, ...]

    @cached_property
    def settings(self) -> tuple[Setting, ...]:
        """All settings of all tasks, in order."""
        seen = dict.fromkeys(row.setting for task in self.tasks for row in task.rows)
        return tuple(sorted(seen, key=lambda setting: setting.order))

    def label(self, setting: Setting, without: Iterable[str] = ()) -> str:
        """A setting in a few words; what the prompt is where nothing varies."""
        left_out = tuple(without)
        label = self.keys.label(setting, left_out)
        if label or left_out:
            return label
        config = self.runs[0].config
        return tidy(f"{config['prompt.kind']} at layer {config['prompt.layer']}")


def seeds_of(run: Run) -> tuple[object, ...]:
    """The seeds of a run, by which runs are paired."""
    return tuple(run.config[key] for key in SEEDS)


def arrange(material: Material) -> Study:
    """Put runs in order.

    Raises:
        ConfigError: Runs of one task were selected by different metrics.
    """
    keys = find_keys(material.runs, _swept(material))
    runs, repeats = _without_repeats(material.runs, keys)
    problems = Problems()
    tasks = []
    for name in sorted({run.task for run in runs}):
        members = [run for run in runs if run.task == name]
        metrics = sorted({run.selection for run in members})
        if len(metrics) > 1:
            given = f"runs selected by {' and by '.join(metrics)}"
            problems.add(f"task {name}", given, "one metric", "report their folders apart")
        tasks.append(_task(name, members, keys))
    problems.raise_if_any()
    unfinished = sorted(material.unfinished, key=lambda job: (job.state, job.name))
    return Study(
        keys, tuple(tasks), tuple(runs), tuple(repeats), tuple(unfinished), tuple(material.sweeps)
    )


def _swept(material: Material) -> set[str]:
    """Keys that have several values among the jobs of sweeps, whatever became of them."""
    jobs = [*material.unfinished, *(run.job for run in material.runs if run.job is not None)]
    values: dict[str, set[str]] = {}
    for job in jobs:
        for key, value in job.settings.items():
            values.setdefault(GROUPS.get(key, key), set()).add(value)
    return {key for key, found in values.items() if len(found) > 1}


def _without_repeats(runs: Sequence[Run], keys: Keys) -> tuple[list[Run], list[tuple[Run, Run]]]:
    latest: dict[object, Run] = {}
    repeats = []
    for run in sorted(runs, key=lambda run: (run.finished, str(run.folder))):
        same = (run.task, keys.setting(run), seeds_of(run))
        if same in latest:
            repeats.append((latest[same], same))
        latest[same] = run
    kept = {id(run) for run in latest.values()}
    return [run for run in runs if id(run) in kept], [(r, latest[same]) for r, same in repeats]


def _task(name: str, runs: Sequence[Run], keys: Keys) -> Task:
    members: dict[Setting, list[Run]] = {}
    for run in sorted(runs, key=seeds_of):
        members.setdefault(keys.setting(run), []).append(run)
    in_order = sorted(members, key=lambda setting: setting.order)
    rows = tuple(Row(setting, tuple(members[setting])) for setting in in_order)
    selection = runs[0].selection
    # Nine digits, so that means of the same numbers in another order are equal.
    means = [round(estimate_of(row, f"dev/{selection}").mean, 9) for row in rows]
    best, *tied = [row for row, mean in zip(rows, means, strict=True) if mean == max(means)]
    return Task(name, selection, rows, best, tuple(tied))


def estimate_of(row: Row, measure: str) -> Estimate:
    """Mean and spread of a measure that every run has."""
    found = row.of(measure)
    assert found is not None
    return found


def _series(row: Row, measure: str) -> Any:
    return row.frame[measure] if measure in row.frame else pd.Series(dtype=float)
