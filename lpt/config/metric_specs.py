"""Names of the metrics and what each of them applies to: plain data, without torch.

The functions are registered under the same names in `lpt.training.metrics`.
"""

from __future__ import annotations

from dataclasses import dataclass

TWO_LABELS = "two labels"
GROUPS = "groups"
GOLD_ANSWERS = "gold answers"


@dataclass(frozen=True)
class MetricSpec:
    """What a metric applies to."""

    task_types: tuple[str, ...]
    """Values of `task.task_type` for which it is defined."""
    needs: str | None = None
    """What else the task must have: a constant of this module."""


METRIC_SPECS = {
    "accuracy": MetricSpec(("classification", "multiple_choice")),
    "f1": MetricSpec(("classification",), TWO_LABELS),
    "macro_f1": MetricSpec(("classification",)),
    "matthews_correlation": MetricSpec(("classification",)),
    "pearson": MetricSpec(("regression",)),
    "spearman": MetricSpec(("regression",)),
    "f1a": MetricSpec(("classification",), GROUPS),
    "exact_match": MetricSpec(("classification",), GROUPS),
    "record_f1": MetricSpec(("multiple_choice",), GOLD_ANSWERS),
    "record_em": MetricSpec(("multiple_choice",), GOLD_ANSWERS),
    "gender_parity": MetricSpec(("classification",)),
}
