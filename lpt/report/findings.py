"""What the runs show in plain sentences, and what has to be known to read the numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator

from lpt.report.formatting import BASELINES, mean_and_sd, measure_title, number
from lpt.report.study import Study, Task


def findings(study: Study) -> list[str]:
    """The result in one sentence; for several tasks, that of their average and one for each."""
    sentences = [_of_task(task, study.settings.label(task.chosen)) for task in study.tasks]
    if len(sentences) == 1:
        return sentences
    if study.chosen is None:
        return ["No setting has a result on every task: there is no average.", *sentences]
    dev, test = (number(study.average(study.chosen, part)) for part in ("dev", "test"))
    average = (
        f"On average over {len(study.tasks)} tasks, {study.settings.label(study.chosen)} is best "
        f"on dev ({dev}) and scores {test} on test."
    )
    return [average, *sentences]


def _of_task(task: Task, label: str) -> str:
    best = f"On {task.name}, {label} is best on dev ({number(task.mean(task.chosen, task.dev))})"
    if task.test is None or math.isnan(task.mean(task.chosen, task.test)):
        return f"{best}; its test set has no labels."
    found = task.summary.loc[task.chosen, task.test]
    score = f"{mean_and_sd(found, task.test)} (n = {int(found['count'])})".replace(" ", "\u00a0")
    versus = " and ".join(
        f"{number(found['mean'] - baseline, sign='+')} against {name} ({number(baseline)})"
        for kind, name in BASELINES.items()
        if not math.isnan(baseline := task.mean(task.chosen, f"{kind}/{task.test}"))
    )
    return f"{best} and scores {score} in {measure_title(task.test)}: {versus}."


def notes(study: Study) -> Iterator[str]:
    """What has to be known to read the numbers."""
    if study.settings.confounded:
        yield (
            "Not shown, because they vary only together with the task, the model, the method "
            f"or another such choice: {', '.join(study.settings.confounded)}. "
            "Their effects cannot be separated."
        )
    for task in study.tasks:
        if task.runs.groupby("data.seed")["split"].nunique().max() > 1:
            yield (
                f"On {task.name}, runs with the same data seed had different data: they are "
                "separate settings, and their scores compare the data as well."
            )
        if task.runs.groupby("setting")["device"].nunique().max() > 1:
            devices = ", ".join(sorted(task.runs["device"].unique()))
            yield (
                f"On {task.name}, runs of one setting ran on different devices ({devices}): its "
                "times and memory are averages over these."
            )
        if len(task.best) > 1:
            equals = "; ".join(map(study.settings.label, task.best))
            yield f"On {task.name}, the best settings on dev tie; the first was chosen: {equals}."
    for left_out, kept in study.repeats.items():
        yield f"{left_out} was left out: {kept} is later and has the same setting and seeds."
