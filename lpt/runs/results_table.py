"""The table that a run prints at its end."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from lpt.errors import literal_text
from lpt.runs.record import RunRecord

_ROWS = {"majority": "majority class", "zero_shot": "zero-shot", "final": "late prompt"}


def print_results(record: RunRecord, console: Console) -> None:
    """Print the scores of a run next to its baselines, and what it cost."""
    config, prompt = record.config, record.config["prompt"]
    title = f"{config['task']['name']} · {config['model']['name']} · {prompt['kind']}"
    table = Table(title=literal_text(f"{title} at layer {prompt['layer']}", "table.title"))
    table.add_column("")
    scores = record.summary()
    # A set without labels has no columns.
    columns = [(name, metric) for name, found in record.scores().items() for metric in found or ()]
    for name, metric in columns:
        table.add_column(literal_text(f"{name} {metric}"), justify="right")
    for kind, title in _ROWS.items():
        values = [scores.get(f"{kind}/{name}/{metric}") for name, metric in columns]
        cells = ["" if value is None else f"{value:.3f}" for value in values]
        table.add_row(title, *cells, style="bold" if kind == "final" else None)
    console.print(table)
    trainable, total = record.parameters.trainable, record.parameters.total
    cost, selection = record.cost, record.selection
    for line in (
        f"trained {trainable:,} of {total:,} parameters ({100 * trainable / total:.2f} %) in "
        f"{cost.train_seconds:.0f} s, {cost.examples_per_second:.1f} examples/s; "
        f"best dev {selection.metric} at step {selection.step}",
        "; ".join(f"{split}: {origin}" for split, origin in record.split.origin.items()),
        f"all files are in {record.run_dir}",
    ):
        console.print(literal_text(line), soft_wrap=True)
