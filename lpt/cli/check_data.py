"""What a task looks like to a model, before anything is trained: python -m lpt.data check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from torch import Tensor

from lpt.config.schema import Config
from lpt.data.packing import PackedTokens
from lpt.data.tasks import UNKNOWN, Examples
from lpt.data.templates import MASK, WORD
from lpt.data.tokens import tokenize
from lpt.errors import ConfigError, literal_text
from lpt.files import cache_dir
from lpt.training.plan import Plan, prepare

_SHOWN_PIECES = 120
_SHOWN_TEXT = 400


def check(configs: Sequence[Config], console: Console) -> bool:
    """Show one rendered example of each task, its label tokens, lengths and class balance.

    Args:
        configs: One configuration a task.
        console: Where to show it.

    Returns:
        Whether there is a task, and none has problems.
    """
    faulty = 0
    for config in configs:
        name = config.task.name
        try:
            plan = prepare(config)
            packed = {
                part: tokenize(plan.encoder, examples.columns, cache_dir("tokens"))
                for part, examples in plan.splits.items()
            }
        except ConfigError as error:
            faulty += 1
            title = literal_text(f"{name}: problems")
            console.print(Panel(literal_text(error.listing), title=title, border_style="red"))
            continue
        console.print(_panel(config, plan, packed))
    console.print(f"Ready: {len(configs) - faulty}. With problems: {faulty}.")
    return bool(configs) and not faulty


def _panel(config: Config, plan: Plan, packed: dict[str, PackedTokens]) -> Panel:
    task = plan.task
    lines = Table.grid(padding=(0, 2))
    lines.add_column(style="bold", no_wrap=True)
    lines.add_column(overflow="fold")
    lines.add_row("template", literal_text(task.template.text))
    lines.add_row("text", _rendered(plan))
    for title, pieces in _pieces(plan, packed["train"]):
        lines.add_row(literal_text(title), pieces)
    tokens = plan.backbone.tokenizer.convert_ids_to_tokens(plan.word_ids)
    words = [
        f"{label} → {word!r} {token} ({number})"
        for label, word, token, number in zip(
            task.labels, task.label_words, tokens, plan.word_ids, strict=True
        )
    ]
    lines.add_row("label words", literal_text("\n".join(words)))
    head = literal_text(f"{task.name} · {config.model.name} · {', '.join(task.metrics)}")
    return Panel(Group(lines, Text(), _sets(config, plan, packed)), title=head, title_align="left")


def _rendered(plan: Plan) -> Text:
    task, train = plan.task, plan.splits.train
    row = {name: values[0].strip() for name, values in train.columns.items()}
    hole = MASK if task.template.kind == "masked" else f"{{{WORD}}}"
    text = task.template.render(row, hole)
    if len(text) > _SHOWN_TEXT:
        text = f"{text[: _SHOWN_TEXT // 2]} … {text[-_SHOWN_TEXT // 2 :]}"
    shown = literal_text(text)
    shown.highlight_words([hole], "reverse")
    shown.append(literal_text(f"   ← {task.shown(train.labels[0])}", "dim"))
    return shown


def _pieces(plan: Plan, packed: PackedTokens) -> list[tuple[str, Text]]:
    """The tokens of the first training example: with its mask, or its context and label parts."""
    convert = plan.backbone.tokenizer.convert_ids_to_tokens

    def piece(number: int) -> list[int]:
        start, length = packed.starts[0, number], packed.lengths[0, number]
        ids: list[int] = packed.ids[start : start + length].tolist()
        return ids

    context = convert(piece(0))
    at = int(packed.mask_at[0]) if len(packed.mask_at) else None
    shown = Text()
    left_out = max(0, len(context) - _SHOWN_PIECES)
    for number, token in enumerate(context):
        if left_out and _SHOWN_PIECES // 2 <= number < _SHOWN_PIECES // 2 + left_out:
            if number == _SHOWN_PIECES // 2:
                shown.append(f"… {left_out} more … ", style="dim")
            continue
        shown.append(literal_text(token, "reverse" if number == at else ""))
        shown.append(" ")
    rows = [("tokens" if at is not None else "context", shown)]
    if at is not None:
        rows.append(("mask", Text(f"token {at} of {len(context)}")))
    for number, label in enumerate(plan.task.labels[: packed.parts]):
        rows.append((f"  {label}", literal_text(" ".join(convert(piece(number + 1))), "reverse")))
    return rows


def _sets(config: Config, plan: Plan, packed: dict[str, PackedTokens]) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="bold")
    table.add_column("set")
    for name in ("examples", "tokens", "longest", f"cut at {config.data.max_length}"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("answers", overflow="fold")
    for name, part in plan.splits.items():
        lengths = packed[name].lengths.sum(1) if packed[name].parts == 0 else _longest(packed[name])
        mean, longest = float(lengths.double().mean()), int(lengths.max())
        cut = packed[name].truncated
        share = f"{cut:,} ({100 * cut / len(part):.1f} %)"
        groups = f" in {len(part.units()):,}" if len(part.units()) < len(part) else ""
        cells = [f"{len(part):,}{groups}", f"{mean:.1f}", str(longest), share]
        table.add_row(*map(literal_text, (name, *cells, _balance(plan, part))))
    return table


def _longest(packed: PackedTokens) -> Tensor:
    """Tokens of each example with its longest label part."""
    return packed.lengths[:, 0] + packed.lengths[:, 1:].amax(1)


def _balance(plan: Plan, part: Examples) -> str:
    known = [label for label in part.labels if label != UNKNOWN]
    if not known:
        return "not labelled"
    if plan.task.value_range is not None:
        return f"{np.mean(known):.2f} ± {np.std(known):.2f}, {min(known):g} to {max(known):g}"
    counts = Counter(known)
    numbers = [counts[at] for at in range(len(plan.task.labels))]  # in the order of the labels
    shares = " / ".join(f"{100 * number / len(known):.0f}" for number in numbers)
    unlabelled = "" if part.labelled else f", {len(part) - len(known):,} not labelled"
    return f"{' / '.join(f'{number:,}' for number in numbers)} ({shares} %){unlabelled}"
