"""Why a task has no result for a setting: what became of the jobs that should have made it."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable

from lpt.report.runs import GROUPS, SEEDS, Job, Value
from lpt.report.settings import Setting, is_number, show, tidy
from lpt.report.study import Study, Task
from lpt.report.tables import NOTHING


def why_missing(study: Study, task: str, setting: Setting) -> str:
    """In a few words, from the jobs without a result whose overrides fit."""
    wanted: dict[str, Value] = {"task": task, **dict(setting.values)}
    return _told(job for job in study.unfinished if _fits(job, wanted)) or "no run"


def without_result(study: Study, task: Task) -> list[str]:
    """Settings that jobs of the task were started with, but none of which finished."""
    configs = [run.config for row in task.rows for run in row.runs]
    lost: dict[str, list[Job]] = {}
    for job in study.unfinished:
        given = {key: value for key, value in _given(job).items() if key not in SEEDS}
        if given.get("task", task.name) != task.name or any(
            all(_same(value, config[key]) for key, value in given.items() if key in config)
            for config in configs
        ):
            continue
        named = {GROUPS.get(key, key) for key in job.settings} or configs[0].keys()
        words = (f"{k} {tidy(v)}" for k, v in given.items() if k in named and k != "task")
        lost.setdefault(", ".join(words), []).append(job)
    return [f"{NOTHING} {setting}: no result, {_told(jobs)}." for setting, jobs in lost.items()]


def _told(jobs: Iterable[Job]) -> str:
    states = Counter((tidy(job.state), tidy(job.reason)) for job in jobs)
    told = (
        f"{count} {state} ({reason})" if reason else f"{count} {state}"
        for (state, reason), count in states.items()
    )
    return ", ".join(told)


def _fits(job: Job, wanted: dict[str, Value]) -> bool:
    """Whether a job says one of the wanted values at least, and contradicts none."""
    given = _given(job)
    shared = given.keys() & wanted.keys()
    return bool(shared) and all(_same(given[key], wanted[key]) for key in shared)


def _given(job: Job) -> dict[str, str]:
    overrides = _of_command(job.command) | dict(job.settings)
    return {GROUPS.get(key, key): value for key, value in overrides.items()}


def _of_command(command: str) -> dict[str, str]:
    """Overrides as they stand in a command, which has those of the whole sweep as well."""
    try:
        words = shlex.split(command)
    except ValueError:
        return {}
    return {key: value for key, equals, value in (w.partition("=") for w in words) if equals}


def _same(text: str, value: Value) -> bool:
    if is_number(value):
        try:
            return float(text) == float(value or 0)
        except ValueError:
            return False
    return text in {show(value), str(value)} or (value is None and text == "null")
