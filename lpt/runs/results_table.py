"""The table that a run prints at its end."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from lpt.errors import literal_text
from lpt.runs.record import RunRecord

_BASELINES = {"majority": "majority class", "zero_shot": "zero-shot"}


def print_results(record: RunRecord, console: Console) -> None:
    """Print the scores of a run next to its baselines, and what it cost."""
    config = record.config
    method, prompt = config["method"], config["prompt"]
    what = f"{prompt['kind']} at" if prompt else f"{method['name']} from"
    what += f" layer {(prompt or method)['layer']}"
    title = f"{config['task']['name']} · {config['model']['name']} · {what}"
    table = Table(title=literal_text(title, "table.title"))
    table.add_column("")
    scores = record.summary()
    # A set without labels has no columns.
    columns = [(name, metric) for name, found in record.scores().items() for metric in found or ()]
    for name, metric in columns:
        table.add_column(literal_text(f"{name} {metric}"), justify="right")
    trained = method["name"].replace("_", " ")
    for kind, title in {**_BASELINES, "final": trained}.items():
        values = [scores.get(f"{kind}/{name}/{metric}") for name, metric in columns]
        cells = ["" if value is None else f"{value:.3f}" for value in values]
        table.add_row(title, *cells, style="bold" if kind == "final" else None)
    console.print(table)
    positive = config["task"].get("positive_label")
    for metric in dict.fromkeys(metric for _, metric in columns if metric in ("f1", "f1a")):
        if positive is not None:
            line = f"{metric} is the F1 of the label {positive!r}"
            console.print(literal_text(line), soft_wrap=True)
    trainable, total = record.parameters.trainable, record.parameters.total
    cost, selection = record.cost, record.selection
    for line in (
        f"trained {trainable:,} of {total:,} parameters ({100 * trainable / total:.2f} %) in "
        f"{cost.train_seconds:.0f} s, {cost.examples_per_second:.1f} examples/s; "
        f"best dev {selection.metric} at step {selection.step}",
        "; ".join(f"{name}: {_origin(record, name)}" for name in record.split.origin),
        f"all files are in {record.run_dir}",
    ):
        console.print(literal_text(line), soft_wrap=True)


def _origin(record: RunRecord, name: str) -> str:
    """Where a set comes from and, if only a part of it is labeled, on how much it was scored."""
    split = record.split
    labeled = split.labeled.get(name)
    scored = f", scored on the {labeled} of {split.sizes[name]} with a label" if labeled else ""
    return split.origin[name] + scored
