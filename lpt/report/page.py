"""The report as a page: what page.html.jinja and page.md.jinja are filled with."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from lpt.report import contents, tables
from lpt.report.figures import Gallery
from lpt.report.findings import details, finding, notes
from lpt.report.matrix import matrix
from lpt.report.numbers import SCORE, number
from lpt.report.runs import SEEDS, Run, Sweep
from lpt.report.settings import tidy
from lpt.report.study import Study

_STATES = ("failed", "interrupted", "pruned", "running")


@dataclass(frozen=True)
class Command:
    """A run as it is listed at the end: what it is, where it lies and how it was started."""

    title: str
    href: str
    text: str


@dataclass(frozen=True)
class Page:
    """Everything that both forms of the report show, in order."""

    title: str
    facts: tuple[tuple[str, str], ...]
    finding: str
    details: tuple[str, ...]
    notes: tuple[str, ...]
    results: tuple[tables.Table, ...]
    galleries: tuple[Gallery, ...]
    pairs: tuple[tables.Table, ...]
    unfinished: tables.Table | None
    sweeps: tuple[Sweep, ...]
    commands: tuple[Command, ...]

    @property
    def tables(self) -> tuple[tables.Table, ...]:
        """The ones that are written as LaTeX, too."""
        return (*self.results, *self.pairs)


def make_page(study: Study, galleries: Iterable[Gallery], out: Path, title: str) -> Page:
    """Put a report together that is going to lie in `out`."""
    across = [matrix(study)] if len(study.tasks) > 1 else []
    compared = [contents.pairs(study, task) for task in study.tasks]
    return Page(
        title=tidy(title),
        facts=tuple(_facts(study)),
        finding=finding(study),
        details=tuple(details(study)),
        notes=tuple(notes(study, lambda folder: tidy(relative(folder, out)))),
        results=(*across, *(contents.results(study, task) for task in study.tasks)),
        galleries=tuple(galleries),
        pairs=tuple(table for table in compared if table is not None),
        unfinished=contents.unfinished(study.unfinished),
        sweeps=study.sweeps,
        commands=tuple(_command(study, run, out) for run in study.runs),
    )


def relative(folder: Path, out: Path) -> str:
    """A folder as seen from the report."""
    return Path(os.path.relpath(folder, out.resolve())).as_posix()


def render(page: Page, template: str) -> str:
    """Fill page.html.jinja, where all text is escaped, or page.md.jinja."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lpt.report", "."),
        autoescape=jinja2.select_autoescape(("html.jinja",), default=False),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # The figures are made here and hold no text that is not escaped already.
    environment.filters |= {
        "drawn": Markup,
        "md": tables.markdown,
        "code": tables.code,
        "table": tables.to_markdown,
    }
    return environment.get_template(template).render(page=page)


def _facts(study: Study) -> Iterable[tuple[str, str]]:
    newest = max(run.finished for run in study.runs)
    yield "Newest run", f"{newest:%Y-%m-%d %H:%M}"
    yield _named("Task", [task.name for task in study.tasks])
    yield _named("Model", [model for task in study.tasks for model in task.models])
    states = Counter(tidy(job.state) for job in study.unfinished)
    others = dict.fromkeys((*_STATES[:3], *sorted(states)))
    counts = (f"{states[state]} {state}" for state in others)
    yield "Runs", f"{len(study.runs)} finished, {', '.join(counts)}"
    machines = [run.metrics["environment"] for run in study.runs]
    yield _named("Device", [str(machine.get("device")) for machine in machines])
    revisions = [machine.get("git_revision") for machine in machines]
    yield _named("Git revision", [str(r) if r else "unknown" for r in revisions])
    versions: dict[str, list[str]] = {}
    for machine in machines:
        for library, version in (machine.get("versions") or {}).items():
            versions.setdefault(str(library), []).append(str(version))
    told = (f"{name} {' / '.join(dict.fromkeys(found))}" for name, found in versions.items())
    yield "Versions", tidy(", ".join(told)) or "unknown"


def _named(name: str, values: Sequence[str]) -> tuple[str, str]:
    different = sorted({tidy(value) for value in values})
    return (name if len(different) == 1 else f"{name}s"), ", ".join(different)


def _command(study: Study, run: Run, out: Path) -> Command:
    row = next(r for t in study.tasks if t.name == run.task for r in t.rows if run in r.runs)
    task = next(t for t in study.tasks if t.name == run.task)
    scores = run.measures()
    parts = [
        run.task,
        study.label(row.setting),
        *(f"{key} {run.config[key]}" for key in SEEDS),
        *(
            f"{contents.score_name(measure)} {number(scores.get(measure), SCORE)}"
            for measure in (task.dev, task.test)
            if measure is not None
        ),
    ]
    text = run.job.command if run.job is not None else ""
    return Command(tidy(" · ".join(parts)), quote(relative(run.folder, out)), tidy(text))
