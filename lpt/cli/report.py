"""Write a report of finished runs.

    python -m lpt.cli.report FOLDER [FOLDER ...] [--out OUT] [--title TEXT] [--percent]

Folders are searched for runs and sweeps. With one folder, OUT is FOLDER/report by default.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lpt.errors import ConfigError
from lpt.report import write_report


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 if the report is written, 2 if the folders or files in them are wrong."""
    parser = argparse.ArgumentParser(
        prog="lpt-report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--out", type=Path, help="folder of the report")
    parser.add_argument("--title", help="title of the report; default: the sweep's name")
    parser.add_argument("--percent", action="store_true", help="scores of tables in percent")
    chosen = parser.parse_args(arguments)
    if chosen.out is None and len(chosen.folders) > 1:
        parser.error("--out is required with several folders")
    out = chosen.out if chosen.out is not None else chosen.folders[0] / "report"
    try:
        page = write_report(chosen.folders, out, chosen.title, percent=chosen.percent)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{page}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
