"""Made-up runs with predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lpt.runs.predictions import write_predictions
from tests.support.runs import metrics, write_run


def write_predicted(
    folder: Path,
    gold: Sequence[str],
    p_of_1: Sequence[float],
    texts: Sequence[str] | None = None,
    *,
    set_name: str = "test",
    **overrides: Any,
) -> Path:
    """A finished run of a task with the labels 0 and 1, and its predictions for a set."""
    predicted = [str(int(p > 0.5)) for p in p_of_1]
    accuracy = sum(p == g for p, g in zip(predicted, gold, strict=True)) / len(gold)
    if not folder.exists():
        write_run(folder, metrics(**{"test": accuracy, "dev": accuracy} | overrides))
    columns = {
        "index": list(map(str, range(len(gold)))),
        "prediction": predicted,
        "label": list(gold),
        "p(0)": [f"{1 - p:.6f}" for p in p_of_1],
        "p(1)": [f"{p:.6f}" for p in p_of_1],
        "text": list(texts or (f"text {i}" for i in range(len(gold)))),
    }
    write_predictions(folder, set_name, columns)
    return folder
