"""The files of a report: page, figures, LaTeX tables and the runs as CSV."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

import jinja2
import matplotlib.style

from lpt.report.collect import SEEDS
from lpt.report.figures import STYLE, Picture, draw
from lpt.report.findings import findings, notes
from lpt.report.formatting import COST_TITLES
from lpt.report.study import Study
from lpt.report.tables import all_tables, to_latex


def write_files(study: Study, folder: Path, out: Path, title: str) -> None:
    """Write all files of a report.

    Args:
        study: The runs.
        folder: Where the files are written.
        out: Where they will lie in the end, which links to the runs start from.
        title: Title of the page.
    """
    tables, pictures = all_tables(study), draw(study)
    for table in [*tables["Results"], *tables["Paired comparison"]]:
        (folder / f"{table.name}.tex").write_text(to_latex(table), encoding="utf-8")
    _write_csv(study, folder / "runs.csv", out)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lpt.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html.jinja").render(
        title=title,
        findings=findings(study),
        facts=_facts(study),
        notes=list(notes(study, lambda path: _relative(path, out))),
        tables=tables,
        pictures=pictures,
        images={p.name: _save(p, folder) for group in pictures.values() for p in group},
        sweeps=study.collection.sweeps,
        runs=list(_run_list(study, out)),
    )
    (folder / "index.html").write_text(page, encoding="utf-8")


def _save(picture: Picture, folder: Path) -> str:
    """Write the PNG; returns the SVG as a data URI."""
    svg = io.BytesIO()
    with matplotlib.style.context(STYLE):
        picture.figure.savefig(folder / f"{picture.name}.png", dpi=200)
        picture.figure.savefig(svg, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.getvalue()).decode()}"


def _write_csv(study: Study, file: Path, out: Path) -> None:
    """A row for each run: folder, the whole configuration, scores and costs."""
    measures = [name for name in study.runs if name in COST_TITLES or "/" in name]
    table = study.config.join(study.runs[["split", *measures]])
    table.insert(0, "folder", [_relative(path, out) for path in study.runs["folder"]])
    table.to_csv(file, index=False)


def _relative(folder: Path, out: Path) -> str:
    return Path(os.path.relpath(folder, out.resolve())).as_posix()


def _facts(study: Study) -> dict[str, str]:
    """What was run, and on what."""
    machines = [record.environment for record in study.runs["record"]]
    unfinished = len(study.collection.unfinished)
    facts: dict[str, Iterable[str]] = {
        "Newest run": [f"{study.runs['finished'].max():%Y-%m-%d %H:%M}"],
        "Task": study.config["task.name"],
        "Model": study.config["model.name"],
        "Runs": [f"{len(study.runs)} finished, {unfinished} unfinished"],
        "Device": (machine.device for machine in machines),
        "Git revision": (
            f"{(machine.git_revision or 'unknown')[:10]}{' (modified)' * bool(machine.git_dirty)}"
            for machine in machines
        ),
        "Versions": (
            f"{name} {version}"
            for machine in machines
            for name, version in [("python", machine.python), *machine.versions.items()]
        ),
    }
    return {name: ", ".join(sorted(set(values))) for name, values in facts.items()}


def _run_list(study: Study, out: Path) -> Iterator[dict[str, str]]:
    """Each run: what it is, its folder and its command."""
    for task in study.tasks:
        for _, run in task.runs.iterrows():
            seeds = (f"{key} {run[key]}" for key in SEEDS)
            parts = [task.name, study.settings.label(run["setting"]), *seeds]
            href = quote(_relative(run["folder"], out))
            yield {"title": " · ".join(parts), "href": href, "command": run["command"]}
