"""The tables of a report: results of each task, the matrix over tasks, pairs, unfinished jobs."""

from __future__ import annotations

from collections.abc import Sequence

from lpt.report.missing import without_result
from lpt.report.naming import file_name
from lpt.report.numbers import (
    COUNT,
    SCORE,
    SPEED,
    Unit,
    cell,
    fixed,
    memory_unit,
    p_value,
    signed,
    time_unit,
)
from lpt.report.runs import Job
from lpt.report.settings import show, tidy
from lpt.report.statistics import Comparison
from lpt.report.study import Row, Study, Task, estimate_of
from lpt.report.tables import CHOSEN, NOTHING, Cell, Line, Table

_BASELINES = {"zero_shot": "zero-shot", "majority": "majority class"}


def score_name(measure: str, *, start: bool = False) -> str:
    """`test/macro_f1` in words, with a capital at the start of a sentence."""
    part, _, metric = measure.partition("/")
    name = tidy(f"{part} {metric.replace('_', ' ')}")
    return name[:1].upper() + name[1:] if start else name


def results(study: Study, task: Task) -> Table:
    """Every setting's scores and costs, with the baselines."""
    units = _cost_units(task)
    named = {
        "seconds": f"training [{units['seconds'].name}]",
        "speed": "examples/s",
        "memory": f"peak memory [{units['memory'].name}]",
        "trainable": "trainable",
    }
    keys = study.keys.shown or ("setting",)
    first = tuple(study.keys.word(key) for key in keys)
    head = ("", *first, "n", *map(score_name, task.scores), *named.values())
    lines = [_result(study, task, row, units) for row in task.rows]
    for kind, title in _BASELINES.items():
        lines += [_baseline(task, kind, title, model, len(head)) for model in task.models]
    metric = score_name(task.dev)
    notes = (
        f"{CHOSEN} chosen by the highest mean {metric}; test chose nothing and is only reported.",
        "Mean ± sample standard deviation over n runs, which differ in their seeds alone; of the "
        "baselines, over the draws of the data. Trainable: parameters. Times are by the clock: "
        "whatever else ran on the machine is in them.",
        *without_result(study, task),
    )
    name = tidy(task.name)
    return Table(
        file_name("results", task.name),
        f"Results on {name}",
        head,
        len(first) + 1,
        tuple(lines),
        notes,
    )


def _cost_units(task: Task) -> dict[str, Unit]:
    def means(measure: str) -> list[float]:
        return [estimate_of(row, measure).mean for row in task.rows]

    return {
        "seconds": time_unit(means("seconds")),
        "speed": SPEED,
        "memory": memory_unit(means("memory")),
        "trainable": COUNT,
    }


def _result(study: Study, task: Task, row: Row, units: dict[str, Unit]) -> Line:
    best = row is task.best
    values = [value for _, value in row.setting.values]
    words = [show(value) for value in values] or [study.label(row.setting)]
    costs = [cell(row.of(measure), unit) for measure, unit in units.items()]
    costs[-1] = fixed(row.of("trainable"), COUNT)
    return Line(
        (
            Cell(CHOSEN if best else ""),
            *(Cell(word, strong=best) for word in words),
            Cell(str(len(row.runs))),
            *(cell(row.of(measure), SCORE, strong=best) for measure in task.scores),
            *costs,
        ),
        "best" if best else "",
    )


def _baseline(task: Task, kind: str, title: str, model: str, width: int) -> Line:
    scores = task.baseline(kind, model)
    draws = max((found.n for found in scores.values() if found is not None), default=0)
    title = f"{title}, {tidy(model)}" if len(task.models) > 1 else title
    keys = width - len(scores) - 4 - 3  # the costs, the mark, the title and n
    cells = [Cell(), Cell(title), *[Cell()] * keys, Cell(str(draws))]
    cells += [fixed(found, SCORE) for found in scores.values()]
    return Line(tuple(cells + [Cell()] * (width - len(cells))), "baseline")


def pairs(study: Study, task: Task) -> Table | None:
    """The best setting on dev against each other one; None if there is nothing to compare."""
    compared = task.comparisons()
    if not compared or task.test is None:
        return None
    best = study.label(task.best.setting)
    head: tuple[str, ...] = ("against", "pairs", "difference", "95 % interval", "p", "p (Holm)")
    lines = tuple(Line(_pair(study.label(row.setting), found)) for row, found in compared)
    if any(found.why_not for _, found in compared):
        head = (*head, "remark")
    else:
        lines = tuple(Line(line.cells[:-1]) for line in lines)
    notes = (
        f"Difference in {score_name(task.test)}, {best} less the other, at the same seeds; paired "
        "two-sided t-test, p adjusted after Holm for all comparisons of this table.",
        "With few seeds such a test finds large differences only; and seeds do not tell how "
        "another test set would turn out.",
    )
    name = tidy(task.name)
    caption = f"{best} against every other setting on {name}"
    return Table(file_name("pairs", task.name), caption, head, 1, lines, notes)


def _pair(label: str, found: Comparison) -> tuple[Cell, ...]:
    interval = NOTHING
    if found.interval is not None:
        interval = " to ".join(signed(end) for end in found.interval)
    difference = NOTHING if found.difference is None else signed(found.difference)
    return (
        Cell(label),
        Cell(str(found.pairs)),
        Cell(difference),
        Cell(interval),
        Cell(p_value(found.p)),
        Cell(p_value(found.holm)),
        Cell(found.why_not),
    )


def unfinished(jobs: Sequence[Job]) -> Table | None:
    """Jobs without a result; None if there is none."""
    if not jobs:
        return None
    lines = tuple(
        Line(
            (
                Cell(tidy(job.name)),
                Cell(tidy(job.state)),
                Cell(tidy(job.reason) or NOTHING),
                Cell(tidy(job.command) or NOTHING),
            )
        )
        for job in jobs
    )
    head = ("job", "state", "reason", "command")
    return Table("unfinished", "Jobs without a result", head, 4, lines)
