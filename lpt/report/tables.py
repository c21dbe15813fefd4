"""One table, written as Markdown and as LaTeX; page.html.jinja writes it as HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

NOTHING = "–"
CHOSEN = "◆"


@dataclass(frozen=True)
class Cell:
    """What stands in a table's cell.

    Attributes:
        text: The number or the words.
        spread: What follows a mean, such as `± 0.012`.
        strong: Whether it is set in bold.
    """

    text: str = ""
    spread: str = ""
    strong: bool = False

    def __str__(self) -> str:
        return f"{self.text} {self.spread}".rstrip()


@dataclass(frozen=True)
class Line:
    """A table's row; `kind` is best, baseline or nothing."""

    cells: tuple[Cell, ...]
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: Of its file.
        caption: What it shows.
        head: Column titles.
        words: How many of the first columns are words and not numbers.
        lines: The rows.
        notes: What has to be known to read it.
    """

    name: str
    caption: str
    head: tuple[str, ...]
    words: int
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "[": "{[}",  # would be taken for an argument at the start of a row
    "]": "{]}",
    "\u00a0": "~",
    "±": r"$\pm$",
    "–": "--",
    "−": r"$-$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    CHOSEN: r"$\diamond$",
}


def latex(text: str) -> str:
    """Text as LaTeX shows it unchanged."""
    return "".join(_LATEX.get(character, character) for character in text)


def markdown(text: str) -> str:
    """Text as Markdown shows it unchanged, in a table as well."""
    escaped = re.sub(r"([\\`*_\[\]#|~$])", r"\\\1", " ".join(text.split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def code(text: str) -> str:
    """Text as code in Markdown, whatever backticks it holds."""
    line = " ".join(text.split())
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    return f"{fence} {line} {fence}"


def to_markdown(table: Table) -> str:
    """The table with its caption and notes."""
    rule = ["---" if at < table.words else "---:" for at in range(len(table.head))]
    rows = [[markdown(title) for title in table.head], rule]
    for line in table.lines:
        rows.append([_bold(markdown(str(cell)), cell.strong, "**{}**") for cell in line.cells])
    body = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    notes = "".join(f"\n\n{markdown(note)}" for note in table.notes)
    return f"{markdown(table.caption)}\n\n{body}{notes}\n"


def to_latex(table: Table) -> str:
    """A float with booktabs rules, to be put into a paper with input."""
    align = "l" * table.words + "r" * (len(table.head) - table.words)
    rows = [
        [_bold(latex(str(cell)), cell.strong, r"\textbf{{{}}}") for cell in line.cells]
        for line in table.lines
    ]
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{latex(table.caption)}}}",
        rf"  \begin{{tabular}}{{@{{}}{align}@{{}}}}",
        r"    \toprule",
        f"    {_row([latex(title) for title in table.head])}",
        r"    \midrule",
    ]
    for at, row in enumerate(rows):
        baseline = table.lines[at].kind == "baseline"
        if baseline and at and table.lines[at - 1].kind != "baseline":
            lines.append(r"    \addlinespace")
        lines.append(f"    {_row(row)}")
    notes = [rf"  \par\smallskip\footnotesize {latex(note)}" for note in table.notes]
    return "\n".join([*lines, r"    \bottomrule", r"  \end{tabular}", *notes, r"\end{table}", ""])


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _bold(text: str, strong: bool, how: str) -> str:
    return how.format(text) if strong and text else text
