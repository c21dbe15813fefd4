"""The table that a run prints at its end."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from lpt.errors import literal_text
from lpt.runs.record import RunRecord, Scores


def print_results(record: RunRecord, console: Console) -> None:
    """Print the scores of a run next to its baselines, and what it cost."""
    config, prompt = record.config, record.config["prompt"]
    title = f"{config['task']['name']} · {config['model']['name']} · {prompt['kind']}"
    table = Table(title=literal_text(f"{title} at layer {prompt['layer']}", "table.title"))
    table.add_column("")
    final = record.scores()
    # A set without labels has no columns.
    columns = [(split, metric) for split, scores in final.items() for metric in scores or ()]
    for split, metric in columns:
        table.add_column(literal_text(f"{split} {metric}"), justify="right")
    baselines = {"majority class": record.majority, "zero-shot": record.zero_shot}
    for row, sets in {**baselines, "late prompt": final}.items():
        cells = [_cell(sets.get(split), metric) for split, metric in columns]
        table.add_row(row, *cells, style="bold" if row == "late prompt" else None)
    console.print(table)
    for line in _notes(record):
        console.print(literal_text(line), soft_wrap=True)


def _notes(record: RunRecord) -> list[str]:
    trainable, total = record.parameters.trainable, record.parameters.total
    cost, selection = record.cost, record.selection
    return [
        f"trained {trainable:,} of {total:,} parameters ({100 * trainable / total:.2f} %) in "
        f"{cost.train_seconds:.0f} s, {cost.examples_per_second:.1f} examples/s; "
        f"best dev {selection.metric} at step {selection.step}",
        "; ".join(f"{split}: {origin}" for split, origin in record.split.origin.items()),
        f"all files are in {record.run_dir}",
    ]


def _cell(scores: Scores | None, metric: str) -> str:
    return f"{scores[metric]:.3f}" if scores and metric in scores else ""
