"""The hidden-state cache from the command line: lpt-cache list | verify | clear."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from lpt.caching.entry import CacheDescription, last_used
from lpt.caching.store import HiddenCache
from lpt.errors import ConfigError, literal_text
from lpt.files import MB, cache_dir

_SOUND = "sound"
_SHOWN_NAME = 12  # characters of a name, which is a hash


def main(arguments: Sequence[str] | None = None) -> int:
    """List, verify or remove the entries; returns 1 if `verify` finds a damaged one."""
    parser = argparse.ArgumentParser(prog="lpt-cache", description=__doc__)
    parser.add_argument("action", choices=("list", "verify", "clear"))
    parser.add_argument("--dir", type=Path, default=cache_dir("hidden"), help="cache.dir of runs")
    options = parser.parse_args(arguments)
    cache, console = HiddenCache(options.dir, max_bytes=0), Console()
    if options.action == "clear":
        message = f"{cache.clear()} entries removed from {options.dir}"
        console.print(literal_text(message), soft_wrap=True)
        return 0
    # Above the table, whose width would break a long path.
    title = literal_text(f"Hidden states in {options.dir}", "table.title")
    console.print(title, soft_wrap=True)
    name, size = Column("entry", no_wrap=True), Column("size", justify="right")
    table = Table(name, "content", size, "last used", "state")
    rows = [_row(path, options.action == "verify") for path in reversed(cache.paths())]
    for row in rows:
        table.add_row(*map(literal_text, row))
    console.print(table)
    return 0 if options.action == "list" or all(row[-1] == _SOUND for row in rows) else 1


def _row(path: Path, verify: bool) -> list[str]:
    name = path.name[:_SHOWN_NAME]
    try:
        description = CacheDescription.read(path)
        state = (description.find_damage(path) or _SOUND) if verify else ""
    except (FileNotFoundError, ConfigError):
        return [name, "", "", "", "of an older format or damaged"]
    except OSError as error:
        return [name, "", "", "", f"cannot be read: {error.strerror}"]
    key = description.key
    used = time.strftime("%Y-%m-%d %H:%M", time.localtime(last_used(path)))
    content = f"{description.title}, {key.shape[0]:,} tokens"
    return [name, content, f"{key.nbytes / MB:.1f} MB", used, state]


if __name__ == "__main__":
    raise SystemExit(main())
