"""Tables as LaTeX, for papers of one or two columns."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pandas as pd

from lpt.report.formatting import CHOSEN
from lpt.report.tables import Table

_SPECIAL = str.maketrans(
    {character: rf"\{character}" for character in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
    | {"−": "$-$", "±": r"$\pm$", "<": r"\textless{}", ">": r"\textgreater{}"}
)
_NAMES = {
    **{name: name.upper() for name in ("npg", "mppg", "appg", "idpg")},
    "static": "static prompt",
    "full": "full fine-tuning",
    "lora": "LoRA",
    "dora": "DoRA",
    "adalora": "AdaLoRA",
    "vera": "VeRA",
    "ia3": "(IA)3",
    "ln_tuning": "LayerNorm tuning",
    "prefix": "prefix tuning",
    "ptuning": "P-tuning",
    "bitfit": "BitFit",
    "head": "linear head",
    "in_context": "in-context learning",
}
_LETTER, _COLUMN = 4.5, 290.0  # points: a letter; the most that shrinks to a column legibly
# Shrinks a table that is wider than its column, and leaves others as they are.
_FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"


def to_latex(table: Table, notes: Iterable[str]) -> str:
    """A float with caption, label and booktabs rules; a wide one spans both columns of a page.

    A standard deviation is set as an index of its mean; the best of a column is bold, and what was
    chosen on dev has a dagger.
    """
    frame = table.frame.copy()
    for column in frame.columns.intersection(["method", "prompt"]):
        frame[column] = frame[column].map(_published)
    style = frame.style.hide(axis="index").format(_cell).format_index(_cell, axis=1)
    for row, column in table.best:
        cell = ([table.frame.index[row]], [table.frame.columns[column]])
        style = style.set_properties(subset=cell, textbf="--rwrap")
    best = " Bold: best of its column." * bool(table.best)
    chosen = r" $^\dagger$: chosen on dev." * (table.chosen is not None)
    align = "l" * table.words + "r" * (len(table.frame.columns) - table.words)
    text = style.to_latex(
        hrules=True,
        column_format=align,
        caption=f"{table.caption.translate(_SPECIAL)}.{best}{chosen}",
        label=f"tab:{table.name}",
        position="t",
        position_float="centering",
        environment="table*" if _width(frame) > _COLUMN else "table",
    )
    text = text.replace("\n[", "\n{[}")  # a bracket after \\\\ would be its argument
    text = text.replace(r"\begin{tabular}", f"\\small\n\\vspace{{4pt}}\n{_FIT}\n\\begin{{tabular}}")
    text = text.replace(r"\end{tabular}", "\\end{tabular}}")
    packages = r"% needs \usepackage{booktabs,graphicx} and \usepackage[T1]{fontenc}"
    return "\n".join([packages, *(f"% {line}" for line in notes), text])


def _width(frame: pd.DataFrame) -> float:
    """Roughly the width of a table in points: letters, and the space between columns."""
    texts = [[*map(str, frame.columns)], *frame.to_numpy().tolist()]
    return sum(_LETTER * max(map(len, column)) + 12 for column in zip(*texts, strict=True))


def _published(method: str) -> str:
    """The name of a method, which may be marked, as its authors write it."""
    plain = method.removesuffix(CHOSEN)
    return _NAMES.get(plain, plain) + CHOSEN * (plain != method)


def _cell(text: str) -> str:
    plain = text.removesuffix(CHOSEN)
    dagger = r"\rlap{$^\dagger$}" * (plain != text)
    mean, _, deviation = plain.partition(" ± ")
    if re.fullmatch(r"[\d,.]+", deviation):
        return rf"{mean.translate(_SPECIAL)}$_{{\pm{deviation}}}${dagger}"
    return plain.translate(_SPECIAL) + dagger
