"""Time and memory to read, render and tokenize the training set of a task.

    python -m bench.preparation task=sst2 data.root=FOLDER [model=...]

Times do not include starting Python, importing the libraries and loading the tokenizer.
"""

from __future__ import annotations

import resource
import sys
import time

from rich.console import Console
from rich.table import Table

from lpt.config.compose import compose_grid
from lpt.data.packing import tokenize
from lpt.data.splits import read_splits
from lpt.data.tasks import build_task
from lpt.data.templates import Encoder
from lpt.files import MB
from lpt.models.backbone import checkpoint_source, find_backbone


def main() -> None:
    """Prepare the task once and print a table."""
    [config] = compose_grid(sys.argv[1:])
    backbone = find_backbone(**checkpoint_source(config.model))
    task = build_task(config, backbone.family.kind)
    encoder = Encoder(
        backbone.tokenizer, task.template, config.task.label_words, config.data.max_length
    )
    table = Table(title=" ".join(sys.argv[1:]))
    for name in ("", "wall time", "CPU time", "peak memory"):
        table.add_column(name, justify="right" if name else "left")

    def add_row(title: str, wall: float, cpu: float) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MB
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        table.add_row(title, f"{wall:.2f} s", f"{cpu:.2f} s", f"{peak:,.0f} MB")

    started = time.perf_counter(), time.process_time()
    train = read_splits(config, task).sets["train"]
    add_row(f"read {len(train):,} rows", *started)
    started = time.perf_counter(), time.process_time()
    tokens = tokenize(encoder, train.columns)
    add_row(f"make {tokens.num_tokens:,} tokens", *started)
    Console().print(table)


if __name__ == "__main__":
    main()
