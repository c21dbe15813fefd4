"""Pages about the errors of single runs: of one that is named, or of those that a study chose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lpt.errors import ConfigError, Problems
from lpt.report.errors import compare_outcomes, describe, errors
from lpt.report.formatting import file_name
from lpt.report.outcomes import Outcome, aligned, read_outcome
from lpt.report.page import Section, write_sections
from lpt.report.study import Study, Task


def analyze(
    runs: Sequence[Path],
    out: Path,
    *,
    set_name: str = "test",
    prompts: bool = True,
    model: str | None = None,
) -> tuple[Path, list[str]]:
    """Write the page about the errors of one run, or of two on the same examples.

    Args:
        runs: Folders of one or two finished runs.
        out: Folder of the page and its figures.
        set_name: The predictions to look at: those for `dev`, `test` or an extra set.
        prompts: Whether to load the model of each run with a late prompt, to look at its prompts.
        model: Folder or hub id of the backbone, if it is not where the run had it.

    Returns:
        The page, and a sentence about each run.

    Raises:
        ConfigError: A run is not finished, the two are not on the same examples, or a model cannot
            be loaded; nothing was written.
    """
    problems, outcomes = Problems(), list[Outcome]()
    for folder in runs:
        with problems.collect():
            name = folder.resolve().name
            if name in (outcome.name for outcome in outcomes):
                name = str(folder)
            outcomes.append(read_outcome(folder, set_name, name))
    problems.raise_if_any()
    sections = [section for outcome in outcomes for section in errors(outcome)]
    if len(outcomes) == 2:
        second = aligned(*outcomes)
        sections = [*compare_outcomes(outcomes[0], second), *sections]
    for outcome in outcomes if prompts else ():
        sections += _of_prompt(outcome, model)
    findings = list(map(describe, outcomes))
    title = f"Errors of {' and '.join(outcome.name for outcome in outcomes)}"
    page = write_sections(out / "index.html", title, findings, _details(outcomes), sections)
    return page, findings


def _of_prompt(outcome: Outcome, model: str | None) -> Iterator[Section]:
    from lpt.report.prompt_sections import prompt_sections  # needs the model: slow to import
    from lpt.report.prompts import read_prompts

    states = read_prompts(outcome, model)
    if states is not None:
        classes = outcome.task_type != "regression"
        yield from prompt_sections(outcome.name, states, classes=classes)


def _details(outcomes: Sequence[Outcome]) -> dict[str, str]:
    first = outcomes[0]
    details = {
        "Task": f"{first.task['name']}, {first.set_name}",
        "Examples": f"{len(first.frame)} with a label",
    }
    for outcome in outcomes:
        config = outcome.record.config
        prompt = config.get("prompt")
        method = config["method"] if prompt is None else prompt
        kind = method["name"] if prompt is None else method["kind"]
        model = config["model"]["name"]
        details[outcome.name] = f"{model}, {kind} at layer {method['layer']}, seed {config['seed']}"
    return details


def error_pages(study: Study, out: Path) -> dict[str, str]:
    """Write a page about the errors of the chosen setting of each task; returns task -> file.

    It is about the first run of the setting, beside that of the next best setting on dev with the
    same seeds. A task whose runs have no probabilities, or no labels in test, has no page.
    """
    pages = {}
    for task in study.tasks:
        outcomes = _outcomes(study, task)
        if not outcomes:
            continue
        sections = [section for outcome in outcomes for section in errors(outcome)]
        if len(outcomes) == 2:
            sections = [*compare_outcomes(*outcomes), *sections]
        file = f"{file_name('errors', task.name)}.html"
        findings = list(map(describe, outcomes))
        title = f"Errors on {task.name}"
        write_sections(out / file, title, findings, _details(outcomes), sections)
        pages[task.name] = file
    return pages


def _outcomes(study: Study, task: Task) -> list[Outcome]:
    ranked = task.summary[(task.dev, "mean")].sort_values(ascending=False, kind="stable").index
    others = [setting for setting in ranked if setting != task.chosen]
    found: list[Outcome] = []
    for setting in [task.chosen, *others[:1]]:
        runs = task.runs_of(setting)
        try:
            seeds = runs.index[0] if not found else _seeds(found[0])
            name = study.settings.label(setting) or task.name
            slug = f"{task.name}-{'next' if found else 'chosen'}"
            outcome = read_outcome(runs.loc[[seeds], "path"].iloc[0], "test", name, slug)
            found.append(aligned(found[0], outcome) if found else outcome)
        except (ConfigError, KeyError):  # predictions of an earlier version, or other examples
            break
    return found


def _seeds(outcome: Outcome) -> tuple[int, int]:
    config = outcome.record.config
    return config["seed"], config["data"]["seed"]
