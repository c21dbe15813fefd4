"""Names of the metrics and what each of them applies to: plain data, without torch.

The functions are registered under the same names in `lpt.training.metrics`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MetricSpec:
    """What a metric applies to."""

    task_types: tuple[str, ...]
    """Values of `task.task_type` for which it is defined."""
    two_labels: bool = False
    """Whether the task must have two labels."""
    row_expansion: str | None = None
    """`task.row_expansion` that provides the groups or gold answers it needs."""


METRIC_SPECS = {
    "accuracy": MetricSpec(("classification", "multiple_choice")),
    "f1": MetricSpec(("classification",), two_labels=True),
    "macro_f1": MetricSpec(("classification",)),
    "matthews_correlation": MetricSpec(("classification",)),
    "pearson": MetricSpec(("regression",)),
    "spearman": MetricSpec(("regression",)),
    "f1a": MetricSpec(("classification",), row_expansion="multirc"),
    "exact_match": MetricSpec(("classification",), row_expansion="multirc"),
    "record_f1": MetricSpec(("multiple_choice",), row_expansion="record"),
    "record_em": MetricSpec(("multiple_choice",), row_expansion="record"),
    "gender_parity": MetricSpec(("classification",)),
}
