"""Times a training step of every method, each in its own process, in turns.

    python -m bench [--model roberta-base] [--device cpu] [--out bench-results]

Prints tables and writes a plot and results.json. The methods of a group take turns because machines
are noisy: each turn times all of them, the baseline that they are compared with, LoRA as PEFT has
it on the whole model in random batches, and a matrix product.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from bench.growth import measure_growth
from bench.machine import half_is_fast, machine, matmul_gflops
from bench.report import print_tables, save_plot
from bench.synthetic import SIZES, save_model, save_task

_EXAMPLES = 4096
_LENGTHS = (8, 47)
_TURN_S = 6.0  # seconds of one method in one turn, at least a few steps
_INPUT_PROMPT = 20  # vectors of prompt tuning at the input
_LATE_PROMPT = 5


@dataclass
class Row:
    """One method: its worker process and its measurements.

    Attributes:
        title: Row of the table.
        spec: Settings of the worker.
        process: The worker.
        count: Steps per turn.
        ready: What the worker reports once it is built.
        turns: Measurements of each turn.
    """

    title: str
    spec: dict[str, Any]
    process: subprocess.Popen[str] | None = None
    count: int = 1
    ready: dict[str, Any] = field(default_factory=dict)
    turns: list[dict[str, Any]] = field(default_factory=list)

    def start(self, common: dict[str, Any], folder: Path) -> None:
        """Start the worker and wait until it is ready."""
        self.spec = {**common, **self.spec}
        with (folder / "workers.log").open("a") as log:
            self.process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "bench.worker", json.dumps(self.spec)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "LPT_CACHE": str(folder), "HF_HUB_OFFLINE": "1"},
            )
        self.ready = self._reply(folder)

    def steps(self, count: int, folder: Path) -> dict[str, Any]:
        """Train for that many steps and return the measurements."""
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        return self._reply(folder)

    def stop(self) -> None:
        """Kill the worker."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def summary(self, matmul: float, batch_size: int) -> dict[str, Any]:
        """Figures over all turns."""
        timed = sum(t["seconds"] for t in self.turns)
        rate = sum(t["flop"] for t in self.turns) / timed
        measured = sum(t["examples"] for t in self.turns) / timed
        # On a CPU only few steps can be timed, and length-bucketed batches differ in size: time the
        # FLOP rate, and count the FLOP per example over a whole pass. On a GPU a turn has hundreds
        # of steps, and time is not proportional to FLOP.
        scaled = rate / self.ready["flop_per_example"]
        speed = measured if self.spec["device"] == "cuda" else scaled
        return {
            "title": self.title,
            **self.spec,
            **self.ready,
            "turns": self.turns,
            "seconds_per_step": batch_size / speed,
            "examples_per_second": speed,
            "examples_per_second_in_timed_steps": measured,
            "gflop_per_second": rate / 1e9,
            "matmul_gflops": matmul,
            "share_of_matmul": rate / 1e9 / matmul,
            "peak_mb": max(t["peak_mb"] for t in self.turns),
        }

    def _reply(self, folder: Path) -> dict[str, Any]:
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            log = (folder / "workers.log").read_text()[-3000:]
            raise SystemExit(f"{self.title} ended without a reply:\n{log}")
        return dict(json.loads(line))


_RANDOM = {"plain": False, "cache": False, "bucketing": False, "dropout": "none"}
_BEST = {**_RANDOM, "cache": True, "bucketing": True}
_INPUT = {**_RANDOM, "method": "late_prompt", "layer": 1, "prompt": _INPUT_PROMPT}


def groups(depth: int, dtype: str, *, half: bool) -> dict[str, list[Row]]:
    """The methods, in the order of the tables; those of a group take turns.

    Args:
        depth: L.
        dtype: Type of the frozen weights, float32 or bfloat16.
        half: Whether to measure in bfloat16 as well.
    """
    middle, late = depth // 2 + 1, depth * 10 // 12
    found = {"late prompts": _prompts(middle)}
    for name in ("lora", "adapter", "full"):
        found[name] = [_of_method(name, layer) for layer in (1, middle, late)]
    found["full"].append(Row("full, random batches", {**_RANDOM, "method": "full", "layer": 1}))
    tables = {title: _with_baseline(table, dtype) for title, table in found.items()}
    if dtype == "float32" and half:
        again = {"late prompts": _prompts(middle, short=True)}
        for name in ("lora", "adapter", "full"):
            again[name] = [_of_method(name, layer) for layer in (1, middle, late)]
        tables |= {f"{t}, bf16": _with_baseline(rows, "bfloat16") for t, rows in again.items()}
    return tables


def _with_baseline(table: list[Row], dtype: str) -> list[Row]:
    plain = {**_RANDOM, "plain": True, "method": "lora", "layer": 1}
    table = [Row("LoRA of PEFT, random batches", plain), *table]
    for row in table:
        row.spec["dtype"] = dtype
    return table


def _of_method(name: str, layer: int) -> Row:
    title = f"{name}, layer {layer}{', cached' if layer > 1 else ''}, similar lengths"
    return Row(title, {**_BEST, "cache": layer > 1, "method": name, "layer": layer})


def _prompts(layer: int, *, short: bool = False) -> list[Row]:
    late = {"method": "late_prompt", "layer": layer, "prompt": _LATE_PROMPT}
    best = Row("LPT, cached, similar lengths", {**_BEST, **late})
    at_input = Row(f"prompt at the input, {_INPUT_PROMPT} vectors", dict(_INPUT))
    if short:
        return [at_input, best]
    everywhere = "LPT, uncached, random, dropout everywhere"
    return [
        at_input,
        Row("LPT, uncached, random batches", {**_RANDOM, **late}),
        Row("LPT, cached", {**_RANDOM, **late, "cache": True}),
        best,
        Row(everywhere, {**_RANDOM, **late, "dropout": "all"}),
        Row("LPT, cached, similar lengths, dropout", {**_BEST, **late, "dropout": "above"}),
    ]


def measure(
    table: list[Row], common: dict[str, Any], folder: Path, turns: int, steps: int, width: int
) -> list[dict[str, Any]]:
    """Start all workers of a group, let them train in turns, and summarize."""
    device, dtype = common["device"], table[0].spec["dtype"]
    rates: list[float] = []
    try:
        for row in track(table, "building"):
            row.start(common, folder)
            row.steps(steps, folder)
            warm_up = row.steps(steps, folder)["seconds"]
            row.count = max(steps, math.ceil(steps * _TURN_S / warm_up))
        for _ in track(range(turns), "measuring"):
            for row in table:
                rates.append(matmul_gflops(device, getattr(torch, dtype), width))
                row.turns.append(row.steps(row.count, folder))
    finally:
        for row in table:
            row.stop()
    matmul = statistics.fmean(rates)
    return [row.summary(matmul, common["batch_size"]) for row in table]


def main() -> None:
    """Run all benchmarks and write the results."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--model", choices=SIZES, default="roberta-base")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, default=Path("bench-results"))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--group", action="append", help="only this table, e.g. 'lora, bf16'")
    chosen = parser.parse_args()
    depth, width = SIZES[chosen.model]["num_hidden_layers"], SIZES[chosen.model]["hidden_size"]
    steps = 20 if chosen.device == "cuda" else 1
    folder = Path(tempfile.mkdtemp(prefix="lpt-bench-"))
    started = time.perf_counter()
    try:
        save_model(chosen.model, folder / "model")
        save_task(folder / "data", _EXAMPLES, *_LENGTHS)
        common = {
            "model": str(folder / "model"),
            "data": str(folder / "data"),
            "cache_dir": str(folder / "cache"),
            "device": chosen.device,
            "batch_size": 32,
        }
        dtype = "bfloat16" if chosen.device == "cuda" else "float32"
        half = half_is_fast(chosen.device)
        methods = [
            {**row, "group": title}
            for title, table in groups(depth, dtype, half=half).items()
            if chosen.group is None or title in chosen.group
            for row in measure(table, common, folder, chosen.turns, steps, width)
        ]
        growth = None
        if chosen.group is None:
            growth = measure_growth(folder / "model", chosen.device, _LATE_PROMPT, _INPUT_PROMPT)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    results = {
        "machine": machine(chosen.device),
        "model": chosen.model,
        "layer": depth // 2 + 1,
        "depth": depth,
        "batch_size": 32,
        "examples": _EXAMPLES,
        "lengths": _LENGTHS,
        "turns": chosen.turns,
        "bf16_is_fast": half,
        "methods": methods,
        "growth": growth,
        "seconds": time.perf_counter() - started,
    }
    chosen.out.mkdir(parents=True, exist_ok=True)
    (chosen.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    if growth is not None:
        save_plot(results, chosen.out / "speed.png")
    console = Console(width=None if sys.stdout.isatty() else 130)
    print_tables(results, console)
    console.print(f"\nThe results are in {chosen.out}.")


if __name__ == "__main__":
    main()
