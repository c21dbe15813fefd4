"""Test scores of several tasks in one table, as papers show them."""

from __future__ import annotations

from collections import Counter

from lpt.report.contents import score_name
from lpt.report.missing import why_missing
from lpt.report.numbers import SCORE, cell, number
from lpt.report.settings import Setting, tidy
from lpt.report.statistics import estimate
from lpt.report.study import Row, Study, Task
from lpt.report.tables import CHOSEN, NOTHING, Cell, Line, Table

_Rows = dict[tuple[str, Setting], Row]


def matrix(study: Study) -> Table:
    """Settings by tasks; averages are over the settings that have every task."""
    rows = rows_of(study)
    chosen = best_average(study)
    most = Counter(len(row.runs) for row in rows.values()).most_common(1)[0][0]
    lines = []
    for setting in study.settings:
        cells = [_cell(task, rows.get((task.name, setting)), most) for task in study.tasks]
        best = setting == chosen
        mean = Cell(number(average(study, setting, "test"), SCORE), strong=best)
        mark, label = Cell(CHOSEN if best else ""), Cell(study.label(setting), strong=best)
        lines.append(Line((mark, label, *cells, mean), "best" if best else ""))
    names = {score_name(task.test) for task in study.tasks if task.test is not None}
    (what,) = names if len(names) == 1 else ("test score",)
    caption = f"{what[0].upper()}{what[1:]} by task and setting"
    heads = (
        tidy(t.name) if len(names) == 1 or t.test is None else f"{tidy(t.name)} ({_metric(t.test)})"
        for t in study.tasks
    )
    head = ("", "setting", *heads, "average")
    return Table("tasks", caption, head, 2, tuple(lines), tuple(_notes(study, rows, most)))


def rows_of(study: Study) -> _Rows:
    """The row of each task and setting that there is."""
    return {(task.name, row.setting): row for task in study.tasks for row in task.rows}


def average(study: Study, setting: Setting, part: str) -> float | None:
    """Mean score over all tasks on `dev` or `test`; None unless every task has one."""
    rows = rows_of(study)
    means = []
    for task in study.tasks:
        row = rows.get((task.name, setting))
        found = row.of(task.dev if part == "dev" else task.test) if row is not None else None
        if found is None:
            return None
        means.append(found.mean)
    whole = estimate(means)
    return whole.mean if whole is not None else None


def best_average(study: Study) -> Setting | None:
    """The setting with the highest average on dev, of those that have every task."""
    means = {setting: average(study, setting, "dev") for setting in study.settings}
    whole = {setting: round(mean, 9) for setting, mean in means.items() if mean is not None}
    return max(whole, key=lambda setting: whole[setting], default=None)


def _cell(task: Task, row: Row | None, most: int) -> Cell:
    if row is None:
        return Cell(NOTHING)
    shown = cell(row.of(task.test), SCORE, strong=row is task.best)
    if shown.text == NOTHING or len(row.runs) == most:
        return shown
    return Cell(shown.text, f"{shown.spread} (n = {len(row.runs)})".lstrip(), shown.strong)


def _notes(study: Study, rows: _Rows, most: int) -> list[str]:
    reasons = []
    for setting in study.settings:
        for task in study.tasks:
            row = rows.get((task.name, setting))
            if row is None or row.of(task.test) is None:
                why = "no labels" if row is not None else why_missing(study, task.name, setting)
                reasons.append(f"{tidy(task.name)} with {study.label(setting)}: {why}.")
    notes = [
        f"Mean ± sample standard deviation, n = {most} unless given. Bold in a task's column: "
        "the setting chosen on its dev set. The average is over tasks, of settings that have all.",
    ]
    if best_average(study) is not None:
        notes.append(f"{CHOSEN} highest average on dev; test chose nothing.")
    return notes + ([f"{NOTHING} no score. {' '.join(reasons)}"] if reasons else [])


def _metric(measure: str) -> str:
    return score_name(measure).removeprefix("test ")
