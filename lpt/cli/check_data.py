"""`lpt-data check`: the model input of each task, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Column, Table
from rich.text import Text

from lpt.config.schema import Config
from lpt.config.task_schema import is_labeled
from lpt.data.examples import Examples
from lpt.data.packing import PackedTokens, tokenize
from lpt.data.tasks import format_label
from lpt.data.templates import MASK, WORD
from lpt.errors import ConfigError, literal_text
from lpt.training.plan import Plan, prepare

_MAX_CHARACTERS = 600


def check(configs: Sequence[Config], console: Console) -> bool:
    """Show a rendered example of each task, its label words, lengths and class balance.

    Returns:
        Whether there is a task and none has problems.
    """
    faulty = 0
    for config in configs:
        name = config.task.name
        try:
            plan = prepare(config)
        except ConfigError as error:
            faulty += 1
            title = literal_text(f"{name}: problems")
            console.print(Panel(literal_text(error.listing), title=title, border_style="red"))
        else:
            console.print(_panel(plan))
    console.print(f"Ready: {len(configs) - faulty}. With problems: {faulty}.")
    return bool(configs) and not faulty


def _panel(plan: Plan) -> Panel:
    task = plan.task
    packed = {name: tokenize(plan.encoder, part.columns) for name, part in plan.splits.sets.items()}
    lines = Table.grid(Column(style="bold", no_wrap=True), Column(overflow="fold"), padding=(0, 2))
    lines.add_row("template", literal_text(task.template.text))
    lines.add_row("text", _rendered_example(plan))
    for name, tokens in _example_tokens(plan, packed["train"]):
        lines.add_row(literal_text(name), tokens)
    lines.add_row("label words", literal_text(_label_words(plan)))
    for warning in plan.splits.warnings:
        lines.add_row("warning", literal_text(warning))
    title = f"{task.config.name} · {plan.config.model.name} · {', '.join(task.metrics)}"
    content = Group(lines, Text(), _sets_table(plan, packed))
    return Panel(content, title=literal_text(title), title_align="left")


def _rendered_example(plan: Plan) -> Text:
    """The first training example with its mask or {word} highlighted, and its label."""
    task, train = plan.task, plan.splits.sets["train"]
    values = {name: column[0].strip() for name, column in train.columns.items()}
    answer = MASK if task.template.kind == "masked" else f"{{{WORD}}}"
    rendered = _highlighted(task.template.render(values, answer), answer)
    label = format_label(train.labels[0], task.config.labels)
    return rendered.append(literal_text(f"   ← {label}", "dim"))


def _example_tokens(plan: Plan, packed: PackedTokens) -> Iterator[tuple[str, Text]]:
    """The tokens of the first training example and of its label parts, if there are any."""
    tokenizer = plan.backbone.tokenizer
    names = ["tokens", *(f"  {label}" for label in plan.task.config.labels)]
    parts = zip(names, packed.starts[0].tolist(), packed.lengths[0].tolist(), strict=False)
    for name, start, length in parts:
        tokens = tokenizer.convert_ids_to_tokens(packed.ids[start : start + length].tolist())
        yield name, _highlighted(" ".join(tokens), str(tokenizer.mask_token))


def _highlighted(text: str, word: str) -> Text:
    """A text, without the middle of a long one, in which a word is highlighted."""
    half = _MAX_CHARACTERS // 2
    if len(text) > _MAX_CHARACTERS:
        text = f"{text[:half]} … {text[-half:]}"
    shown = literal_text(text)
    shown.highlight_words([word], "reverse")
    return shown


def _label_words(plan: Plan) -> str:
    tokens = plan.backbone.tokenizer.convert_ids_to_tokens(plan.word_ids)
    words = zip(
        plan.task.config.labels, plan.task.config.label_words, tokens, plan.word_ids, strict=True
    )
    lines = [f"{label} → {word!r} {token} ({i})" for label, word, token, i in words]
    if {"f1", "f1a"} & {*plan.task.metrics}:
        lines[plan.task.positive_label] += ", the positive label of F1"
    return "\n".join(lines)


def _sets_table(plan: Plan, packed: dict[str, PackedTokens]) -> Table:
    numbers = ("examples", "tokens", "longest", "truncated")
    columns = [Column(name, justify="right", no_wrap=True) for name in numbers]
    columns = [Column("set"), *columns, Column("labels", overflow="fold")]
    table = Table(*columns, box=None, padding=(0, 2), header_style="bold")
    for name, examples in plan.splits.sets.items():
        lengths = packed[name].lengths[:, 0].clone()
        if packed[name].num_label_parts:  # each example with its longest label part
            lengths += packed[name].lengths[:, 1:].amax(1)
        truncated = packed[name].truncated
        groups = len(examples.groups())
        cells = (
            name,
            f"{len(examples):,}" + (f" in {groups:,} groups" if groups < len(examples) else ""),
            f"{float(lengths.double().mean()):.1f}",
            str(int(lengths.max())),
            f"{truncated:,} ({100 * truncated / len(examples):.1f} %)",
            _label_balance(plan, examples),
        )
        table.add_row(*map(literal_text, cells))
    return table


def _label_balance(plan: Plan, examples: Examples) -> str:
    labels = [label for label in examples.labels if is_labeled(label)]
    if not labels:
        return "unlabeled"
    unlabeled = len(examples) - len(labels)
    rest = f", {unlabeled:,} unlabeled" if unlabeled else ""
    if plan.task.value_range is not None:
        spread = f"{np.mean(labels):.3g} ± {np.std(labels):.3g}"
        return f"{spread}, {min(labels):g} to {max(labels):g}{rest}"
    counts = [labels.count(label) for label in range(len(plan.task.config.labels))]
    shares = " / ".join(f"{100 * count / len(labels):.0f}" for count in counts)
    return f"{' / '.join(f'{count:,}' for count in counts)} ({shares} %){rest}"
