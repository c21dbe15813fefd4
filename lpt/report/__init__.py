"""A report of finished runs: one page, its figures, and tables for papers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lpt.config.extras import check_extra
from lpt.errors import Problems


def write_report(
    folders: Sequence[Path], out: Path, title: str | None = None, *, percent: bool = False
) -> Path:
    """Write a report of all finished runs below some folders; returns its page, index.html.

    `out` then holds the page (self-contained), a page about the errors on each task, runs.csv, each
    figure as PNG, PDF and SVG and each table as .tex; files of these names are replaced. The
    default title names the sweep or first folder; `percent` is about the scores in tables.

    Raises:
        ConfigError: There is no run, a file cannot be used, or a library of the extra `report` is
            missing; nothing was written.
    """
    problems = Problems()
    check_extra("report", "report", problems)
    problems.raise_if_any()
    from lpt.report.analysis import error_pages
    from lpt.report.collect import collect
    from lpt.report.page import write_files
    from lpt.report.study import arrange

    collection = collect(folders, out, problems)
    if collection.runs.empty and not problems.found:
        found = f"no finished run; {len(collection.unfinished)} unfinished jobs"
        hint = "name folders of finished runs or sweeps"
        problems.add(", ".join(map(str, folders)), found, "at least one metrics.json", hint)
    problems.raise_if_any()
    names = [sweep.name for sweep in collection.sweeps] or [Path(folders[0]).resolve().name]
    subject = "Late prompt tuning" if "prompt.kind" in collection.keys else "Methods"
    study = arrange(collection)
    analyses = error_pages(study, out)
    title = title or f"{subject}: {names[0]}"
    return write_files(study, out, title, analyses, percent=percent)


__all__ = ["write_report"]
