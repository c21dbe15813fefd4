"""`lpt-data check`: the model input of each task, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from lpt.config.schema import Config
from lpt.data.examples import UNKNOWN, Examples
from lpt.data.packing import PackedTokens, tokenize
from lpt.data.templates import MASK, WORD
from lpt.errors import ConfigError, literal_text
from lpt.training.plan import Plan, prepare

_MAX_TOKENS = 120
_MAX_CHARACTERS = 400


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
            console.print(_panel(config, plan))
    console.print(f"Ready: {len(configs) - faulty}. With problems: {faulty}.")
    return bool(configs) and not faulty


def _panel(config: Config, plan: Plan) -> Panel:
    task = plan.task
    packed = {name: tokenize(plan.encoder, part.columns) for name, part in plan.splits.items()}
    lines = Table.grid(padding=(0, 2))
    lines.add_column(style="bold", no_wrap=True)
    lines.add_column(overflow="fold")
    lines.add_row("template", literal_text(task.template.text))
    lines.add_row("text", _rendered_example(plan))
    for name, tokens in _example_tokens(plan, packed["train"]):
        lines.add_row(literal_text(name), tokens)
    lines.add_row("label words", literal_text(_label_words(plan)))
    title = literal_text(f"{task.name} · {config.model.name} · {', '.join(task.metrics)}")
    sets = _sets_table(plan, packed)
    return Panel(Group(lines, Text(), sets), title=title, title_align="left")


def _rendered_example(plan: Plan) -> Text:
    """The first training example with its mask or {word} highlighted, and its label."""
    task, train = plan.task, plan.splits.train
    values = {name: column[0].strip() for name, column in train.columns.items()}
    answer = MASK if task.template.kind == "masked" else f"{{{WORD}}}"
    text = task.template.render(values, answer)
    if len(text) > _MAX_CHARACTERS:
        text = f"{text[: _MAX_CHARACTERS // 2]} … {text[-_MAX_CHARACTERS // 2 :]}"
    rendered = literal_text(text)
    rendered.highlight_words([answer], "reverse")
    rendered.append(literal_text(f"   ← {task.format_label(train.labels[0])}", "dim"))
    return rendered


def _example_tokens(plan: Plan, packed: PackedTokens) -> list[tuple[str, Text]]:
    """The tokens of the first training example: with its mask, or its context and label parts."""

    def tokens(part: int) -> list[str]:
        start, length = packed.starts[0, part], packed.lengths[0, part]
        ids = packed.ids[start : start + length].tolist()
        return list(plan.backbone.tokenizer.convert_ids_to_tokens(ids))

    context = [literal_text(token) for token in tokens(0)]
    if plan.task.template.kind == "masked":
        mask = int(packed.mask_index[0])
        context[mask].stylize("reverse")
        label = Text(f"token {mask} of {len(context)}")
        return [("tokens", _abridged(context)), ("mask", label)]
    parts = enumerate(plan.task.labels[: packed.num_label_parts], 1)
    return [("context", _abridged(context))] + [
        (f"  {label}", literal_text(" ".join(tokens(part)), "reverse")) for part, label in parts
    ]


def _abridged(tokens: list[Text]) -> Text:
    half, hidden = _MAX_TOKENS // 2, len(tokens) - _MAX_TOKENS
    if hidden > 0:
        tokens = [*tokens[:half], Text(f"… {hidden} more …", "dim"), *tokens[-half:]]
    return Text(" ").join(tokens)


def _label_words(plan: Plan) -> str:
    tokens = plan.backbone.tokenizer.convert_ids_to_tokens(plan.word_ids)
    words = zip(plan.task.labels, plan.task.label_words, tokens, plan.word_ids, strict=True)
    return "\n".join(f"{label} → {word!r} {token} ({i})" for label, word, token, i in words)


def _sets_table(plan: Plan, packed: dict[str, PackedTokens]) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="bold")
    table.add_column("set")
    for name in ("examples", "tokens", "longest", "truncated"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("labels", overflow="fold")
    for name, examples in plan.splits.items():
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
    labels = [label for label in examples.labels if label != UNKNOWN]
    if not labels:
        return "unlabelled"
    if plan.task.value_range is not None:
        spread = f"{np.mean(labels):.2f} ± {np.std(labels):.2f}"
        return f"{spread}, {min(labels):g} to {max(labels):g}"
    counts = [labels.count(label) for label in range(len(plan.task.labels))]
    shares = " / ".join(f"{100 * count / len(labels):.0f}" for count in counts)
    unlabelled = len(examples) - len(labels)
    rest = f", {unlabelled:,} unlabelled" if unlabelled else ""
    return f"{' / '.join(f'{count:,}' for count in counts)} ({shares} %){rest}"
