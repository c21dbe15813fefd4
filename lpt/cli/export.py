"""Convert an adapter between the formats of lpt and PEFT.

    lpt-export peft ADAPTER --out FOLDER
    lpt-export lpt FOLDER --out ADAPTER [--like ADAPTER]

ADAPTER is the folder of an adapter or of a run, or a Hub id; what `peft` writes, PEFT loads (a late
prompt: after `import lpt.peft`). The way back needs the task and the model that the adapter is for:
those of the adapter that it was exported from, or with --like those of another one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from lpt.config.extras import check_extra
from lpt.errors import USAGE_ERROR, ConfigError, Problems, config_error
from lpt.files import check_new_folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 if the folder is written, 2 if the input is wrong or it cannot be."""
    parser = argparse.ArgumentParser(
        prog="lpt-export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("format", choices=("peft", "lpt"), help="format to convert to")
    parser.add_argument("adapter", metavar="ADAPTER", help="adapter to convert")
    parser.add_argument("--out", type=Path, required=True, help="new folder for the result")
    parser.add_argument("--like", metavar="ADAPTER", help="has the task and the model")
    chosen = parser.parse_args(arguments)
    if chosen.like is not None and chosen.format == "peft":
        parser.error("--like is for the way back: lpt-export lpt")
    try:
        _check(chosen.out)
        from lpt.peft import to_lpt, to_peft  # slow to import

        if chosen.format == "peft":
            files = to_peft(chosen.adapter)
        else:
            files = to_lpt(chosen.adapter, chosen.like)
        _write(chosen.out, files)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return USAGE_ERROR
    sys.stdout.write(f"{chosen.out}\n")
    return 0


def _check(out: Path) -> None:
    problems = Problems()
    check_extra("peft", "lpt-export", problems)
    check_new_folder(out, "--out", problems)
    problems.raise_if_any()


def _write(out: Path, files: dict[str, bytes]) -> None:
    """Write the folder: all of it or nothing."""
    unfinished = out.with_name(f".{out.name}.unfinished")
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (unfinished / name).write_bytes(content)
        os.replace(unfinished, out)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        given = f"{out}, which cannot be written: {error.strerror or error}"
        raise config_error("--out", given) from error


if __name__ == "__main__":
    raise SystemExit(main())
