"""Metrics, computed once over all predictions of a set, never as a mean over batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import (
    binary_f1_score,
    multiclass_accuracy,
    multiclass_f1_score,
    multiclass_matthews_corrcoef,
)
from torchmetrics.utilities import dim_zero_cat

MetricFunction = Callable[[Tensor, Tensor, int], Tensor]

METRICS: Mapping[str, MetricFunction] = MappingProxyType(
    {
        "accuracy": lambda p, y, n: multiclass_accuracy(p, y, n, average="micro"),
        "f1": lambda p, y, n: binary_f1_score(p, y),  # of label 1; two labels only
        "macro_f1": lambda p, y, n: multiclass_f1_score(p, y, n, average="macro"),
        "matthews_correlation": lambda p, y, n: multiclass_matthews_corrcoef(p, y, n),
    }
)


class Predictions(NamedTuple):
    """What a model says of a whole set, in row order.

    Attributes:
        index: (E,) row ids.
        labels: (E,) label index; -1 unknown.
        scores: (E, labels) score of each label.
    """

    index: Tensor  # type: ignore[assignment]  # a tuple's own method of that name is not needed
    labels: Tensor
    scores: Tensor

    @property
    def predicted(self) -> Tensor:
        """(E,) label index with the highest score."""
        return self.scores.argmax(1)


class PredictionStore(Metric):
    """Gathers the predictions of all batches and ranks.

    Ranks may see different numbers of examples; a row that several ranks saw counts once.
    """

    full_state_update = False
    index: list[Tensor]
    labels: list[Tensor]
    scores: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("index", "labels", "scores"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, index: Tensor, labels: Tensor, scores: Tensor) -> None:
        """Add a batch: (E,) row ids, (E,) labels, (E, labels) scores."""
        self.index.append(index)
        self.labels.append(labels)
        self.scores.append(scores.float())

    def gather(self) -> Predictions:
        """All predictions of all ranks in row order, on the CPU."""
        index, labels, scores = self.compute()
        # The base class makes a number of a single element.
        return Predictions(index.reshape(-1), labels.reshape(-1), scores.reshape(index.numel(), -1))

    def compute(self) -> Predictions:
        """As `gather`, which is to be called; the base class synchronises the ranks around this."""
        index = dim_zero_cat(self.index).cpu()
        rows, first = torch.unique(index, return_inverse=True)
        at = torch.empty_like(rows).scatter_(0, first, torch.arange(len(index)))
        labels, scores = dim_zero_cat(self.labels).cpu(), dim_zero_cat(self.scores).cpu()
        return Predictions(rows, labels[at], scores[at])


def score(
    predicted: Tensor, labels: Tensor, metrics: tuple[str, ...], count: int
) -> dict[str, float]:
    """Metrics of predicted against true label indices, (E,) each, with `count` labels."""
    # Single precision has seven digits; the rest would be noise in every file.
    return {name: round(float(METRICS[name](predicted, labels, count)), 6) for name in metrics}
