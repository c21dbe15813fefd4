"""A report of finished runs: one page, its figures, and tables for papers."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lpt.config.extras import check_extra
from lpt.errors import Problems

_MARK = ".lpt-report"  # file in a report, which may be replaced


def write_report(folders: Sequence[Path], out: Path, title: str | None = None) -> Path:
    """Write a report of all finished runs below some folders.

    `out` then holds index.html (self-contained), runs.csv, a PNG of each figure and a .tex of each
    table. An old report there is replaced once the new one is complete.

    Args:
        folders: Searched for runs, jobs and sweeps.
        out: Folder of the report.
        title: Its title; None: made from the name of the sweep or of the first folder.

    Returns:
        The page, index.html.

    Raises:
        ConfigError: There is no run, a file cannot be used, `out` holds something else, or a
            library of the extra `report` is missing; nothing was written.
    """
    problems = Problems()
    check_extra("report", "report", problems)
    problems.raise_if_any()
    from lpt.report.collect import collect
    from lpt.report.page import write_files
    from lpt.report.study import arrange

    is_report = out.is_dir() and ((out / _MARK).exists() or not any(out.iterdir()))
    if out.exists() and not is_report:
        expected = "a new folder, an empty one or an old report"
        problems.add(str(out), "not a report", expected, "choose another one: --out FOLDER")
    collection = collect(folders, problems)
    if collection.runs.empty and not problems.found:
        found = f"no finished run; {len(collection.unfinished)} unfinished jobs"
        hint = "name folders of finished runs or sweeps"
        problems.add(", ".join(map(str, folders)), found, "at least one metrics.json", hint)
    problems.raise_if_any()
    study = arrange(collection)
    names = [sweep.name for sweep in collection.sweeps] or [Path(folders[0]).resolve().name]
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as temporary:
        building = Path(temporary) / "report"
        building.mkdir()
        (building / _MARK).touch()
        write_files(study, building, out, title or f"Late prompt tuning: {names[0]}")
        if out.exists():
            shutil.rmtree(out)
        building.rename(out)
    return out / "index.html"


__all__ = ["write_report"]
