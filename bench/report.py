"""Results of the benchmark as tables and as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from rich.console import Console
from rich.table import Table

mpl.use("Agg")
import matplotlib.pyplot as plt

_GREY, _BLUE, _LIGHT = "#9aa0a6", "#1f5fbf", "#7fa8e0"


def print_tables(results: dict[str, Any], console: Console) -> None:
    """Print methods, cost and gain of the cache, and growth with layer and length."""
    methods, machine = results["methods"], results["machine"]
    console.print(
        f"{results['model']}, layer {results['layer']} of {results['depth']}, "
        f"batch {results['batch_size']}, {results['lengths'][0]}-{results['lengths'][1]} tokens; "
        f"{machine['name']}, {machine['threads']} threads, torch {machine['torch']}"
    )
    for group in dict.fromkeys(m["group"] for m in methods):
        console.print(_speeds(group, [m for m in methods if m["group"] == group]))
    if not results["bf16_is_fast"]:
        console.print("No bf16 rows: this processor multiplies bf16 more slowly than float32.")
    if results["growth"] is None:
        return
    built, epochs = pays_after(results)
    console.print(
        f"The cache of {results['examples']} examples was built in {built:.1f} s, which pays for "
        f"itself after {epochs:.2f} epochs."
    )
    _print_growth(results["growth"], console)


def _speeds(group: str, methods: list[dict[str, Any]]) -> Table:
    """Speed and cost of the methods of a group; its first row is the baseline."""
    baseline = methods[0]
    names = ("s/step", "examples/s", "x PEFT", "GFLOP/s", "of matmul", "padding", "peak MB")
    rate = f"{baseline['matmul_gflops']:,.0f} GFLOP/s"
    title = f"{group}: {baseline['dtype']}, matrix products in the same turns {rate}"
    table = _table(title, "method", *names, "trained")
    for m in methods:
        table.add_row(
            m["title"],
            f"{m['seconds_per_step']:.3f}",
            f"{m['examples_per_second']:.1f}",
            f"{m['examples_per_second'] / baseline['examples_per_second']:.2f}",
            f"{m['gflop_per_second']:,.0f}",
            f"{m['share_of_matmul']:.0%}",
            f"{m['padding']:.0%}",
            f"{m['peak_mb']:,.0f}",
            f"{m['trainable']:,}",
        )
    return table


def _print_growth(growth: dict[str, Any], console: Console) -> None:
    rows = f"batches of {growth['rows']} rows"
    table = _table(f"cached, {rows}, {growth['tokens']} tokens", "layer of the prompt", "s/step")
    for point in growth["layers"]:
        table.add_row(str(point["layer"]), f"{point['seconds']:.3f}")
    console.print(table)
    lengths = sorted({point["tokens"] for point in growth["lengths"]})
    columns = [f"{n} tokens" for n in lengths]
    table = _table(f"s/step by length of the text, {rows}", "method", *columns)
    for name in dict.fromkeys(point["method"] for point in growth["lengths"]):
        seconds = {p["tokens"]: p["seconds"] for p in growth["lengths"] if p["method"] == name}
        table.add_row(name, *(f"{seconds[n]:.3f}" for n in lengths))
    console.print(table)


def _table(title: str, first: str, *numbers: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def pays_after(results: dict[str, Any]) -> tuple[float, float]:
    """Seconds to build the cache, and epochs after which it has saved them."""
    late = [m for m in results["methods"] if m["group"] == "late prompts" and m["layer"] > 1]
    built = max(m["cache_seconds"] for m in late)
    plain = next(m for m in late if not m["cache"])
    cached = next(m for m in late if m["cache"] and not m["bucketing"])
    saved = 1 / plain["examples_per_second"] - 1 / cached["examples_per_second"]
    return built, built / (saved * results["examples"])


def save_plot(results: dict[str, Any], file: Path) -> None:
    """Speed by method, cost by layer, cost by length, side by side."""
    growth, dtype = results["growth"], results["methods"][0]["dtype"]
    shown = {m["title"]: m for m in results["methods"] if m["dtype"] == dtype}
    methods = list(shown.values())  # the baseline once
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(15, 6), width_ratios=(1.5, 1, 1), layout="constrained"
    )
    titles = [m["title"] for m in methods]
    speeds = [m["examples_per_second"] for m in methods]
    colors = [_GREY if m["layer"] == 1 else _BLUE if m["cache"] else _LIGHT for m in methods]
    bars = left.barh(titles, speeds, color=colors)
    left.bar_label(bars, [f"{s:.1f}" for s in speeds], padding=4)
    left.set_xlim(0, 1.15 * max(speeds))
    left.invert_yaxis()
    left.set_xlabel("training examples per second")
    left.set_title(f"{results['model']}, {dtype}")

    points = growth["layers"]
    middle.plot([p["layer"] for p in points], [p["seconds"] for p in points], "o-", color=_BLUE)
    middle.set_xlabel(f"layer of the prompt, of {results['depth']}")
    middle.set_ylabel("seconds per step")
    middle.set_ylim(bottom=0)
    middle.set_title(f"cached, {growth['tokens']} tokens per row")

    styles = {
        "LPT, cached": (_BLUE, "-"),
        "LPT, uncached": (_LIGHT, "-"),
        "LoRA, r = 8": (_GREY, "--"),
        "prompt at the input": (_GREY, "-"),
    }
    for name, (color, style) in styles.items():
        line = [p for p in growth["lengths"] if p["method"] == name]
        right.plot(
            [p["tokens"] for p in line],
            [p["seconds"] for p in line],
            style,
            marker="o",
            color=color,
            label=name,
        )
    right.set_xlabel("tokens per row")
    right.set_ylabel("seconds per step")
    right.set_ylim(bottom=0)
    right.set_title("growth with length")
    right.legend(frameon=False)
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    machine = results["machine"]
    figure.suptitle(f"{machine['name']}, {machine['threads']} threads", fontsize=9, color=_GREY)
    figure.savefig(file, dpi=130)
    plt.close(figure)
