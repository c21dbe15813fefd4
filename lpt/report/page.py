"""The files of a report: pages, figures, LaTeX tables and the runs as CSV."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import matplotlib.style

from lpt.files import write_atomically
from lpt.report.figures import STYLE, Picture, draw
from lpt.report.findings import findings, notes
from lpt.report.latex import to_latex
from lpt.report.study import Study
from lpt.report.tables import Table, all_tables


class Section(NamedTuple):
    """A part of a page: its tables, what has to be known to read them, its figures."""

    title: str
    tables: Sequence[Table]
    pictures: Sequence[Picture]
    notes: Sequence[str]


def write_files(
    study: Study, folder: Path, title: str, analyses: Mapping[str, str], *, percent: bool
) -> Path:
    """Write all files of a report; returns its page, which is written last.

    Args:
        study: What the report is about.
        folder: Folder of the files.
        title: Title of the page.
        analyses: Task -> file of the page about its errors.
        percent: Whether the tables have scores in percent.
    """
    tables, pictures = all_tables(study, percent=percent), draw(study)
    latex = [*tables["Results"], *tables["Costs"], *tables["Paired comparison"]]
    folder.mkdir(parents=True, exist_ok=True)
    for table in latex:
        text = to_latex(table, study.settings.long_values)
        (folder / f"{table.name}.tex").write_text(text, encoding="utf-8")
    collection = study.collection
    columns = ["folder", *collection.keys, "split", *collection.measures]
    study.runs[columns].to_csv(folder / "runs.csv", index=False)
    return _write_page(
        folder / "index.html",
        "page.html.jinja",
        [picture for group in pictures.values() for picture in group],
        title=title,
        study=study,
        findings=findings(study),
        notes=list(notes(study)),
        tables=tables,
        latex=[table.name for table in latex],
        pictures=pictures,
        analyses=analyses,
    )


def write_sections(
    file: Path,
    title: str,
    findings: Sequence[str],
    details: Mapping[str, str],
    sections: Sequence[Section],
) -> Path:
    """Write a page and its figures, into the same folder; returns the page."""
    pictures = [picture for section in sections for picture in section.pictures]
    content = {"title": title, "findings": findings, "details": details, "sections": sections}
    file.parent.mkdir(parents=True, exist_ok=True)
    return _write_page(file, "analysis.html.jinja", pictures, **content)


def _write_page(file: Path, template: str, drawn: Iterable[Picture], **content: Any) -> Path:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lpt.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    images = {picture.name: _save(picture, file.parent) for picture in drawn}
    page = environment.get_template(template).render(images=images, **content)
    write_atomically(file, page)
    return file


def _save(picture: Picture, folder: Path) -> str:
    """Write the figure as PNG, PDF and SVG; returns the SVG as a data URI."""
    svg = io.BytesIO()
    with matplotlib.style.context(STYLE):
        picture.figure.savefig(folder / f"{picture.name}.png", dpi=200)
        picture.figure.savefig(folder / f"{picture.name}.pdf", metadata={"CreationDate": None})
        picture.figure.savefig(svg, format="svg", metadata={"Date": None})
    (folder / f"{picture.name}.svg").write_bytes(svg.getvalue())
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.getvalue()).decode()}"
