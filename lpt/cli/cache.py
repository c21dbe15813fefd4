"""The caches from the command line: python -m lpt.cli.cache list | verify | clear.

They hold the hidden states of texts, and the tokens of larger sets.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lpt.caching.entry import Entry
from lpt.caching.store import HiddenCache
from lpt.data import tokens
from lpt.errors import literal_text
from lpt.files import cache_dir

_SOUND = "sound"
_SHOWN = 12  # of a name, which is a hash
_MEGABYTE = 10**6


def main(arguments: Sequence[str] | None = None) -> int:
    """Show, check or remove the entries; returns 1 if `verify` finds a damaged one."""
    parser = argparse.ArgumentParser(prog="python -m lpt.cli.cache", description=__doc__)
    parser.add_argument("action", choices=("list", "verify", "clear"))
    hidden = cache_dir("hidden")
    parser.add_argument("--dir", type=Path, default=hidden, help="cache.dir, of hidden states")
    chosen = parser.parse_args(arguments)
    cache, folder, console = HiddenCache(chosen.dir, max_bytes=0), cache_dir("tokens"), Console()
    if chosen.action == "clear":
        removed = f"{cache.clear()} entries removed from {chosen.dir}"
        console.print(literal_text(removed), soft_wrap=True)
        console.print(f"tokens of {tokens.clear(folder)} sets removed")
        return 0
    verify, sound = chosen.action == "verify", True
    for title, rows in (
        (f"hidden states in {chosen.dir}", _hidden(cache, verify)),
        (f"tokens in {folder}", _tokens(folder, verify)),
    ):
        # Above the table, whose width would break a long path.
        console.print(literal_text(title, "table.title"), soft_wrap=True)
        table = Table()
        for name in ("entry", "what it is", "size", "last used", *(["state"] if verify else [])):
            number = name == "size"
            table.add_column(name, justify="right" if number else "left", no_wrap=name == "entry")
        for row in rows:
            table.add_row(*map(literal_text, row))
            sound &= not verify or row[-1] == _SOUND
        console.print(table)
    return 0 if sound else 1


def _hidden(cache: HiddenCache, verify: bool) -> Iterator[list[str]]:
    for entry in cache.entries():
        what = f"{entry.title}, {entry.shape[0]:,} tokens"
        state = [_state(entry)] if verify else []
        yield [entry.path.name[:_SHOWN], what, _size(entry.size), _date(entry.used), *state]
    for path, fault in cache.unreadable():
        yield [path.name[:_SHOWN], "", "", "", *([fault] if verify else [])]


def _tokens(folder: Path, verify: bool) -> Iterator[list[str]]:
    for file in tokens.kept(folder):
        state = [tokens.problem(file) or _SOUND] if verify else []
        try:
            known = file.stat()
        except FileNotFoundError:  # removed meanwhile
            continue
        yield [file.stem[:_SHOWN], "tokens", _size(known.st_size), _date(known.st_mtime), *state]


def _state(entry: Entry) -> str:
    try:
        return entry.problem() or _SOUND
    except OSError as error:
        return f"it cannot be read ({error.strerror or error})"


def _size(count: int) -> str:
    tenths = count * 10 // _MEGABYTE  # a description may say more than a float can hold
    return f"{tenths // 10}.{tenths % 10} MB"


def _date(seconds: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
    except (OSError, OverflowError, ValueError):  # a file may say any
        return "?"


if __name__ == "__main__":
    raise SystemExit(main())
