"""What the runs say in plain words, and what has to be known to read them; from the rows alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from lpt.report.contents import score_name
from lpt.report.matrix import average, best_average
from lpt.report.numbers import (
    SCORE,
    Unit,
    amount,
    memory_unit,
    number,
    percent,
    plain,
    signed,
    time_unit,
)
from lpt.report.settings import order_of, tidy
from lpt.report.statistics import Estimate
from lpt.report.study import Row, Study, Task, estimate_of

_LAYER = "prompt.layer"
_ENOUGH = 3  # runs of a setting, to say in a sentence what it costs


def finding(study: Study) -> str:
    """What came out, in one sentence: of the one task, or on average over all."""
    if len(study.tasks) == 1:
        return _score(study, study.tasks[0])
    best = best_average(study)
    if best is None:
        return "No setting has a result on every task, so that there is no average to compare."
    label, dev = study.label(best), number(average(study, best, "dev"), SCORE)
    test = average(study, best, "test")
    scored = (
        f"scores {number(test, SCORE)} on test" if test is not None else "is not scored on test"
    )
    count = len(study.tasks)
    only = len(study.settings) == 1
    chosen = "is the only setting with a result" if only else f"is best on dev ({dev})"
    return f"On average over {count} tasks, {label} {chosen} and {scored}."


def details(study: Study) -> list[str]:
    """What each task adds to that: its own best setting, and what a later layer costs or saves."""
    if len(study.tasks) == 1:
        return [cost for cost in [_cost(study.tasks[0])] if cost]
    return [f"{_score(study, task)} {_cost(task)}".rstrip() for task in study.tasks]


def _score(study: Study, task: Task) -> str:
    best = study.label(task.best.setting)
    dev = number(estimate_of(task.best, task.dev).mean, SCORE)
    only = len(task.rows) == 1
    chosen = (
        f"{best}, the only setting with a result," if only else f"{best} is best on dev ({dev}) and"
    )
    found = task.best.of(task.test)
    if task.test is None or found is None:
        return f"On {tidy(task.name)}, {chosen} is not scored on test, which has no labels."
    scored = f"On {tidy(task.name)}, {chosen} scores {plain(found)} in {score_name(task.test)}"
    against = [
        f"{signed(found.mean - baseline.mean)} against {title} ({number(baseline.mean, SCORE)})"
        for kind, title in (("zero_shot", "zero-shot"), ("majority", "the majority class"))
        if (baseline := _baseline(task, kind, found)) is not None
    ]
    return f"{scored}{': ' if against else ''}{' and '.join(against)}."


def _baseline(task: Task, kind: str, found: Estimate) -> Estimate | None:
    model = str(task.best.runs[0].config["model.name"])
    return task.baseline(kind, model)[task.test or ""]


def _cost(task: Task) -> str:
    """What a later layer than the earliest one costs or saves, all else the same."""
    pair = _early_and_late(task)
    if pair is None:
        return ""
    early, late = pair
    if devices(early) != devices(late) or min(len(early.runs), len(late.runs)) < _ENOUGH:
        return ""
    layers = f"at layer {late.setting[_LAYER]} instead of {early.setting[_LAYER]}"
    time = _change(early, late, "seconds", time_unit)
    memory = _change(early, late, "memory", memory_unit)
    before, after = early.of(task.test), late.of(task.test)
    score = ""
    if before is not None and after is not None:
        score = f"; its score on test changes by {signed(after.mean - before.mean)}"
    return f"Inserted {layers}, a run trains in {time} and needs {memory} at its peak{score}."


def _early_and_late(task: Task) -> tuple[Row, Row] | None:
    """The earliest layer and the best one, or the latest where the earliest is best."""
    if all(key != _LAYER for key, _ in task.best.setting.values):
        return None
    like = task.best.setting.without(_LAYER)
    alike = [row for row in task.rows if row.setting.without(_LAYER) == like]
    alike.sort(key=lambda row: order_of(row.setting[_LAYER]))
    late = alike[-1] if alike[0] is task.best else task.best
    return (alike[0], late) if late is not alike[0] else None


def _change(early: Row, late: Row, measure: str, fitting: Callable[[list[float]], Unit]) -> str:
    before, after = estimate_of(early, measure).mean, estimate_of(late, measure).mean
    unit = fitting([before, after])
    share = after / before - 1 if before else 0.0
    change = f"{percent(abs(share))} {'less' if share < 0 else 'more'}"
    return f"{amount(after, unit)} instead of {amount(before, unit)} ({change})"


def devices(row: Row) -> set[str]:
    """What the runs of a row ran on."""
    return {str(run.metrics["environment"].get("device")) for run in row.runs}


def notes(study: Study, where: Callable[[Path], str]) -> list[str]:
    """What has to be known to read the numbers.

    Args:
        study: The runs.
        where: How a folder is named to the reader.
    """
    repeats = _of_repeats(study, where)
    return [*_of_keys(study), *_of_choice(study), *repeats, *_of_machines(study)]


def _of_keys(study: Study) -> Iterator[str]:
    grouped: dict[tuple[str, ...], list[str]] = {}
    for key, others in study.keys.follows.items():
        grouped.setdefault(others, []).append(key)
    for others, keys in grouped.items():
        yield (
            f"Without columns of their own, because they vary only together with "
            f"{', '.join(others)}: {', '.join(keys)}. Their effects cannot be told apart."
        )


def _of_choice(study: Study) -> Iterator[str]:
    for task in study.tasks:
        best, most = len(task.best.runs), max(len(row.runs) for row in task.rows)
        where = f"On {tidy(task.name)}, {study.label(task.best.setting)}"
        if task.tied:
            others = "; ".join(study.label(row.setting) for row in task.tied)
            yield f"{where} has the same mean on dev as {others}; it comes first in order."
        if best < most:
            yield f"{where} was chosen with n = {best} where others have n = {most}."


def _of_repeats(study: Study, where: Callable[[Path], str]) -> Iterator[str]:
    for left_out, kept in study.repeats:
        yield (
            f"{where(left_out.folder)} repeats the setting and the seeds of "
            f"{where(kept.folder)}, which is later: it was left out."
        )


def _of_machines(study: Study) -> Iterator[str]:
    ran_on = {device for task in study.tasks for row in task.rows for device in devices(row)}
    if len(ran_on) > 1:
        yield (
            f"The runs had different devices ({', '.join(map(tidy, sorted(ran_on)))}): times "
            "and memory compare only within one."
        )
    cached = sum(bool((run.metrics.get("cache") or {}).get("sets")) for run in study.runs)
    if 0 < cached < len(study.runs):
        yield (
            f"{cached} of {len(study.runs)} runs read cached hidden states, which makes them "
            "faster: training times compare only among those alike."
        )
