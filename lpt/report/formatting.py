"""Values and numbers as readers see them."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pandas as pd

NOTHING = "–"
BASELINES = {"zero_shot": "zero-shot", "majority": "majority class"}
COST_TITLES = {
    "train_seconds": "training time [s]",
    "examples_per_second": "examples/s",
    "peak_memory_mb": "peak memory [MB]",
    "trainable": "trainable parameters",
}
_DECIMALS = {"train_seconds": 1, "examples_per_second": 1, "peak_memory_mb": 0, "trainable": 0}


def measure_title(measure: str) -> str:
    """`test/macro_f1` or a cost in words."""
    return COST_TITLES.get(measure, re.sub("[/_]", " ", measure))


def number(value: float, measure: str = "score", sign: str = "-") -> str:
    """A value with the decimals of its measure and a proper minus sign; a dash for NaN.

    With the sign "+", positive values are marked, too.
    """
    if math.isnan(value):
        return NOTHING
    return f"{value:{sign}z,.{_DECIMALS.get(measure, 3)}f}".replace("-", "−")


def mean_and_sd(summary: Any, measure: str) -> str:
    """Mean ± standard deviation; without the latter for one run and for constants but scores."""
    mean, sd = number(summary["mean"], measure), summary["std"]
    shown = sd > 0 or (sd == 0 and measure.startswith(("dev/", "test/")))
    return f"{mean} ± {number(sd, measure)}" if shown else mean


def p_value(p: float) -> str:
    """A p-value with three decimals."""
    return "< 0.001" if p < 0.001 else number(p)


def show(value: Any) -> str:
    """A value of a config key on one line; different values of a key look different."""
    if pd.isna(value):
        return "none"
    if isinstance(value, str):
        return value if value.isprintable() else repr(value)[1:-1]
    return f"{value:.12g}" if isinstance(value, float) else json.dumps(value)


def file_name(*parts: str) -> str:
    """Parts as one plain file name."""
    return re.sub(r"[^\w.-]+", "_", "-".join(parts))[:100]
