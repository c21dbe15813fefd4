"""The files of a report: page, figures, LaTeX tables and the runs as CSV."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import jinja2
import matplotlib.style

from lpt.report.figures import STYLE, Picture, draw
from lpt.report.findings import findings, notes
from lpt.report.study import Study
from lpt.report.tables import all_tables, to_latex


def write_files(study: Study, folder: Path, title: str) -> Path:
    """Write all files of a report; returns its page, which is written last."""
    tables, pictures = all_tables(study), draw(study)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lpt.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    folder.mkdir(parents=True, exist_ok=True)
    page = environment.get_template("page.html.jinja").render(
        title=title,
        study=study,
        findings=findings(study),
        notes=list(notes(study)),
        tables=tables,
        pictures=pictures,
        images={p.name: _save(p, folder) for group in pictures.values() for p in group},
    )
    for table in [*tables["Results"], *tables["Paired comparison"]]:
        text = to_latex(table, study.settings.long_values)
        (folder / f"{table.name}.tex").write_text(text, encoding="utf-8")
    collection = study.collection
    columns = ["folder", *collection.keys, "split", *collection.measures]
    study.runs[columns].to_csv(folder / "runs.csv", index=False)
    (folder / "index.html").write_text(page, encoding="utf-8")
    return folder / "index.html"


def _save(picture: Picture, folder: Path) -> str:
    """Write the PNG; returns the SVG as a data URI."""
    svg = io.BytesIO()
    with matplotlib.style.context(STYLE):
        picture.figure.savefig(folder / f"{picture.name}.png", dpi=200)
        picture.figure.savefig(svg, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.getvalue()).decode()}"
