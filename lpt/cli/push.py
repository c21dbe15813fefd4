"""Share the adapter of a finished run, with a model card made from the run's record.

    lpt-push RUN --repo OWNER/NAME [--private] [--pr]
    lpt-push RUN --out FOLDER

The first form uploads to the Hugging Face Hub in one commit; the second one writes the same files
to a new or an empty folder, needs no network and uploads nothing, even with --repo, which the card
then names. Texts and paths of this machine are not shared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lpt.errors import FAILURE, USAGE_ERROR, ConfigError, Problems
from lpt.files import check_new_folder, write_atomically


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 if it is shared, 1 if a file cannot be written, 2 if the input is wrong."""
    parser = argparse.ArgumentParser(
        prog="lpt-push",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run")
    parser.add_argument("--repo", metavar="OWNER/NAME", help="repository on the Hub")
    parser.add_argument("--private", action="store_true", help="create a private repository")
    parser.add_argument("--pr", action="store_true", help="open a pull request in a repository")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="upload nothing, write there")
    chosen = parser.parse_args(arguments)
    if chosen.repo is None and chosen.out is None:
        parser.error("--repo or --out is required")
    if chosen.repo is not None and chosen.repo.count("/") != 1:
        parser.error(f"--repo takes OWNER/NAME, not {chosen.repo}")
    if chosen.private and chosen.pr:
        parser.error("--private is for a new repository, --pr for one that exists")
    from lpt.models.hub_access import upload_to_hub  # slow to import, as the next one
    from lpt.report.model_card import shared_files

    try:
        problems = Problems()
        if chosen.out is not None:
            check_new_folder(chosen.out, "--out", problems)
        with problems.collect():
            files = shared_files(chosen.run, chosen.repo)
        problems.raise_if_any()
        if chosen.out is None:
            place = upload_to_hub(files, chosen.repo, private=chosen.private, pr=chosen.pr)
        else:
            place = str(chosen.out)
            _write(files, chosen.out)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return USAGE_ERROR
    except OSError as error:
        sys.stderr.write(f"{error.filename or chosen.out}: {error.strerror or error}\n")
        return FAILURE
    sys.stdout.write(f"{place}\n")
    if chosen.out is not None and chosen.repo is not None:
        sys.stderr.write(f"Nothing was uploaded to {chosen.repo}: --out only writes the files.\n")
    return 0


def _write(files: dict[str, Path | bytes], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomically(
            folder / name, content if isinstance(content, bytes) else content.read_bytes()
        )


if __name__ == "__main__":
    raise SystemExit(main())
