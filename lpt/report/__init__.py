"""A report out of any set of finished runs: one page, its figures, and tables for papers."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lpt.errors import Problems
from lpt.report.folders import FINISHED, MARK, find


def write_report(folders: Sequence[Path], out: Path, title: str | None = None) -> Path:
    """Write a report of all finished runs below some folders.

    An old report in `out` is replaced as a whole, once the new one is complete. `out` then holds
    index.html, report.md, runs.csv, a PNG of each figure and a .tex of each table.

    Args:
        folders: Searched for runs, jobs and sweeps; reports in them are left out.
        out: Folder of the report.
        title: Its title; None: the sweep's name, or the first folder's.

    Returns:
        The page, index.html.

    Raises:
        ConfigError: There is no run, a file cannot be used, or `out` holds something else; nothing
            was written.
    """
    # What draws and counts is slow to import; a wrong command fails before.
    from lpt.report.runs import read
    from lpt.report.study import arrange
    from lpt.report.write import write_files

    problems = Problems()
    if out.exists() and not _replaceable(out):
        expected = "a new folder, an empty one or an old report"
        problems.add(str(out), "holds something else than a report", expected, "use --out FOLDER")
    material = read(find(folders, problems), problems)
    if not material.runs and not problems.found:
        jobs = f", and {len(material.unfinished)} unfinished jobs" if material.unfinished else ""
        given = f"no finished run{jobs}"
        hint = "name folders of finished runs or sweeps"
        problems.add(", ".join(map(str, folders)), given, f"folders with {FINISHED} below", hint)
    problems.raise_if_any()
    study = arrange(material)
    name = study.sweeps[0].name if study.sweeps else Path(folders[0]).resolve().name
    out.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".unfinished", dir=out.parent))
    try:
        (building / MARK).touch()
        write_files(study, building, out, title or f"Late prompt tuning: {name}")
        building.chmod(0o755)  # mkdtemp's folders are closed to others
        _swap(building, out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return out / "index.html"


def _replaceable(out: Path) -> bool:
    return out.is_dir() and ((out / MARK).exists() or not any(out.iterdir()))


def _swap(new: Path, out: Path) -> None:
    """Put a complete report in the old one's place, which comes back if that fails."""
    if not out.exists():
        new.rename(out)
        return
    old = new.with_suffix(".old")
    out.rename(old)
    try:
        new.rename(out)
    except BaseException:
        old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


__all__ = ["write_report"]
