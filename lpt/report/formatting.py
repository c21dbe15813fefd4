"""Values and numbers as readers see them."""

from __future__ import annotations

import json
import math
import re
from typing import Any
from zlib import crc32

import pandas as pd

NOTHING = "–"
BASELINES = {"zero_shot": "zero-shot", "majority": "majority class"}
COST_TITLES = {
    "train_seconds": "training time [s]",
    "examples_per_second": "examples/s",
    "peak_memory_mb": "peak memory [MB]",
    "trainable": "trainable parameters",
}
CHOSEN = "†"
"""Marks what was chosen on dev."""
_WORDS = {
    "method.name": "method",
    "prompt.kind": "prompt generator",
    "model.name": "model",
    "prompt.layer": "insertion layer",
    "method.layer": "first tuned layer",
    "prompt.length": "prompt length",
    "prompt.bottleneck": "bottleneck width",
    "method.r": "rank",
    "optim.lr": "learning rate",
    "data.k": "training examples",
}
_DECIMALS = {"train_seconds": 1, "examples_per_second": 1, "peak_memory_mb": 0, "trainable": 0}


def measure_title(measure: str) -> str:
    """`test/macro_f1` or a cost in words."""
    return COST_TITLES.get(measure, re.sub("[/_]", " ", measure))


def words(key: str) -> str:
    """A config key as readers of a paper know it; others as they are."""
    return _WORDS.get(key, key)


def number(value: float, measure: str = "score", sign: str = "-", *, percent: bool = False) -> str:
    """A value with the decimals of its measure and a proper minus sign; a dash for NaN.

    With the sign "+", positive values are marked, too. Scores in percent have one decimal.
    """
    if math.isnan(value):
        return NOTHING
    decimals = _DECIMALS.get(measure, 3)
    if percent and measure not in _DECIMALS:
        value, decimals = 100 * value, 1
    return f"{value:{sign}z,.{decimals}f}".replace("-", "−")


def mean_and_sd(summary: Any, measure: str, *, percent: bool = False) -> str:
    """Mean ± standard deviation; without the latter for one run and for constants but scores."""
    mean, sd = number(summary["mean"], measure, percent=percent), summary["std"]
    shown = sd > 0 or (sd == 0 and measure.startswith(("dev/", "test/")))
    return f"{mean} ± {number(sd, measure, percent=percent)}" if shown else mean


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
    """Parts as one plain file name; a long one ends in a checksum of its parts."""
    name = "-".join(parts)
    plain = re.sub(r"[^\w.-]+", "_", name)
    return plain if len(plain) <= 100 else f"{plain[:90]}-{crc32(name.encode()):08x}"
