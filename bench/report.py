"""The benchmark's figures as tables for people and as a plot."""

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
    """Methods, what the cache costs and brings, growth with layer and length."""
    methods = results["methods"]
    slowest = methods[0]["examples_per_second"]
    machine = results["machine"]
    console.print(
        f"{results['model']}, layer {results['layer']} of {results['depth']}, "
        f"batch {results['batch_size']}, {results['lengths'][0]}-{results['lengths'][1]} tokens; "
        f"{machine['name']}, {machine['threads']} threads, torch {machine['torch']}"
    )
    table = Table()
    table.add_column("method")
    for name in ("s/step", "examples/s", "ratio", "of matmul", "padding", "peak MB", "trained"):
        table.add_column(name, justify="right")
    for m in methods:
        table.add_row(
            m["title"],
            f"{m['seconds_per_step']:.3f}",
            f"{m['examples_per_second']:.1f}",
            f"{m['examples_per_second'] / slowest:.2f}",
            f"{m['share_of_peak']:.0%} of {m['matmul_gflops']:.0f}",
            f"{m['padding']:.0%}",
            f"{m['peak_mb']:,.0f}",
            f"{m['trainable']:,}",
        )
    console.print(table)
    best = next(m for m in methods if m["cache"] and m["bucketing"])
    ratios = Table(title=f"{best['title']} is faster than")
    ratios.add_column("method")
    ratios.add_column("by", justify="right")
    for m in methods:
        if m["dtype"] == best["dtype"] and m is not best:
            ratio = best["examples_per_second"] / m["examples_per_second"]
            ratios.add_row(m["title"], f"{ratio:.2f} x")
    console.print(ratios)
    built, epochs = pays_after(results)
    console.print(f"The cache of {results['examples']} examples was built in {built:.1f} s,")
    console.print(f"which pays for itself after {epochs:.2f} epochs (like lengths in both).")
    growth = results["growth"]
    for point in growth["layers"]:
        print_point = f"layer {point['layer']:>2}: {point['seconds']:.3f} s/step"
        console.print(f"cached, {growth['tokens']} tokens, {print_point}")
    for point in growth["lengths"]:
        console.print(f"{point['tokens']:>4} tokens, {point['method']}: {point['seconds']:.3f} s")


def pays_after(results: dict[str, Any]) -> tuple[float, float]:
    """Seconds to build the cache, and after how many epochs they are saved."""
    late = [m for m in results["methods"] if m["method"] == "prompt" and m["layer"] > 1]
    built = max(m["cache_seconds"] for m in late if m["dtype"] == late[0]["dtype"])
    plain = next(m for m in late if not m["cache"])
    cached = next(m for m in late if m["cache"] and not m["bucketing"])
    saved = 1 / plain["examples_per_second"] - 1 / cached["examples_per_second"]
    return built, built / (saved * results["examples"])


def save_plot(results: dict[str, Any], file: Path) -> None:
    """Speed by method, cost by layer, cost by length, side by side."""
    methods, growth = results["methods"], results["growth"]
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(15, 4.6), width_ratios=(1.5, 1, 1), layout="constrained"
    )
    titles = [m["title"] for m in methods]
    speeds = [m["examples_per_second"] for m in methods]
    colours = [
        _GREY if not m["title"].startswith("LPT") else _BLUE if m["cache"] else _LIGHT
        for m in methods
    ]
    bars = left.barh(titles, speeds, color=colours)
    left.bar_label(bars, [f"{s:.1f}" for s in speeds], padding=4)
    left.set_xlim(0, 1.15 * max(speeds))
    left.invert_yaxis()
    left.set_xlabel("training examples a second")
    left.set_title(f"{results['model']}, prompt at layer {results['layer']}")

    points = growth["layers"]
    middle.plot([p["layer"] for p in points], [p["seconds"] for p in points], "o-", color=_BLUE)
    middle.set_xlabel(f"layer of the prompt, of {results['depth']}")
    middle.set_ylabel("seconds a step")
    middle.set_ylim(bottom=0)
    middle.set_title(f"cached, {growth['tokens']} tokens a row")

    styles = {
        "LPT, cached": (_BLUE, "-"),
        "LPT, uncached": (_LIGHT, "-"),
        "LoRA": (_GREY, "--"),
        "prompt at the input": (_GREY, "-"),
    }
    for name, (colour, style) in styles.items():
        line = [p for p in growth["lengths"] if p["method"] == name]
        right.plot(
            [p["tokens"] for p in line],
            [p["seconds"] for p in line],
            style,
            marker="o",
            color=colour,
            label=name,
        )
    right.set_xlabel("tokens a row")
    right.set_ylabel("seconds a step")
    right.set_ylim(bottom=0)
    right.set_title("growth with the length")
    right.legend(frameon=False)
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    machine = results["machine"]
    figure.suptitle(f"{machine['name']}, {machine['threads']} threads", fontsize=9, color=_GREY)
    figure.savefig(file, dpi=130)
    plt.close(figure)
