"""The hidden-state cache from the command line: lpt-cache list | verify | clear."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from lpt.caching.entry import CacheDescription, last_used
from lpt.caching.store import HiddenCache
from lpt.errors import ConfigError, literal_text
from lpt.files import cache_dir

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
    verify = options.action == "verify"
    # Above the table, whose width would break a long path.
    title = literal_text(f"Hidden states in {options.dir}", "table.title")
    console.print(title, soft_wrap=True)
    table = Table(Column("entry", no_wrap=True), "content", Column("size", justify="right"))
    for name in ("last used", "state"):
        table.add_column(name)
    rows = list(_rows(cache, verify))
    for row in rows:
        table.add_row(*map(literal_text, row))
    console.print(table)
    return 0 if not verify or all(state == _SOUND for *_, state in rows) else 1


def _rows(cache: HiddenCache, verify: bool) -> Iterator[list[str]]:
    for path in reversed(cache.paths()):
        name = path.name[:_SHOWN_NAME]
        try:
            description = CacheDescription.read(path)
            state = (description.find_damage(path) or _SOUND) if verify else ""
        except (OSError, ConfigError):
            yield [name, "", "", "", "of an older format or damaged"]
            continue
        key = description.key
        content = f"{description.title}, {key.shape[0]:,} tokens"
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(last_used(path)))
        yield [name, content, f"{key.nbytes / 1e6:.1f} MB", used, state]


if __name__ == "__main__":
    raise SystemExit(main())
