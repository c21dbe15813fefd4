"""How long it takes to read, render and tokenize a task: the first time, and every time after.

    python -m bench.preparing task=sst2 data.root=FOLDER [model=...]

Each time is that of a fresh process. The caches are in a temporary folder, so the first one finds
nothing; starting Python and importing the libraries is shown apart.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

from rich.console import Console
from rich.table import Table

_TURNS = ("first", "second", "third")


def main() -> None:
    """Time the same preparation in several processes and print the table."""
    if len(sys.argv) > 1 and sys.argv[1] == "--once":
        _once(sys.argv[2:])
        return
    table = Table(title=" ".join(sys.argv[1:]))
    for name in ("time", "rows of train", "read and check", "tokens", "together", "whole process"):
        table.add_column(name, justify="left" if name == "time" else "right")
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"LPT_CACHE": cache}
        for turn in _TURNS:
            started = time.perf_counter()
            command = [sys.executable, "-m", "bench.preparing", "--once", *sys.argv[1:]]
            done = subprocess.run(  # noqa: S603
                command, env=environment, stdout=subprocess.PIPE, text=True, check=True
            )
            whole = time.perf_counter() - started
            rows, reading, tokens = done.stdout.split()[-3:]
            together = float(reading) + float(tokens)
            seconds = (float(reading), float(tokens), together, whole)
            table.add_row(turn, f"{int(rows):,}", *(f"{value:.2f} s" for value in seconds))
    Console().print(table)


def _once(overrides: list[str]) -> None:
    from lpt.cli.data import compose_all
    from lpt.data.build import build_task, read_splits
    from lpt.data.templates import Encoder
    from lpt.data.tokens import tokenize
    from lpt.files import cache_dir
    from lpt.models.backbone import checkpoint_source, find_backbone

    [config] = compose_all(overrides)
    backbone = find_backbone(**checkpoint_source(config.model))
    started = time.perf_counter()
    task = build_task(config, backbone.family.kind)
    train = read_splits(config, task).train
    read = time.perf_counter()
    encoder = Encoder(backbone.tokenizer, task.template, task.label_words, config.data.max_length)
    tokenize(encoder, train.columns, cache_dir("tokens"))
    end = time.perf_counter()
    sys.stdout.write(f"{len(train)} {read - started:.3f} {end - read:.3f}\n")


if __name__ == "__main__":
    main()
