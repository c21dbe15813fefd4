"""The files of a report."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lpt.report.figures import draw_all
from lpt.report.page import make_page, relative, render
from lpt.report.study import Study
from lpt.report.tables import to_latex


def write_files(study: Study, folder: Path, out: Path, title: str) -> None:
    """Write everything into a folder.

    Args:
        study: The runs.
        folder: Where the files are written.
        out: Where they are going to lie, from which links lead to the runs.
        title: Of the page.
    """
    page = make_page(study, draw_all(study, folder), out, title)
    for table in page.tables:
        (folder / f"{table.name}.tex").write_text(to_latex(table), encoding="utf-8")
    _runs(study, out).to_csv(folder / "runs.csv", index=False)
    for name, template in (("report.md", "page.md.jinja"), ("index.html", "page.html.jinja")):
        (folder / name).write_text(render(page, template), encoding="utf-8")


def _runs(study: Study, out: Path) -> pd.DataFrame:
    """A row for each run: where it lies, its whole configuration, and what it measured."""
    rows = [
        {"folder": relative(run.folder, out), **run.config, **run.measures()} for run in study.runs
    ]
    return pd.DataFrame(rows)
