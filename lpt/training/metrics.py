"""Metrics, computed once over all answers of a set, never as a mean over batches."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import (
    binary_f1_score,
    multiclass_accuracy,
    multiclass_f1_score,
    multiclass_matthews_corrcoef,
)
from torchmetrics.functional.regression import pearson_corrcoef, spearman_corrcoef
from torchmetrics.functional.text import squad
from torchmetrics.utilities import dim_zero_cat

from lpt.data.candidates import ANSWER, GOLD
from lpt.data.tasks import Examples


class Predictions(NamedTuple):
    """What a model says of a whole set, in row order.

    Attributes:
        row_ids: (E,) row ids.
        scores: (E, labels) score of each label.
    """

    row_ids: Tensor
    scores: Tensor


class PredictionStore(Metric):
    """Gathers the predictions of all batches and ranks.

    Ranks may see different numbers of examples; a row that several ranks saw counts once.
    """

    full_state_update = False
    row_ids: list[Tensor]
    scores: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("row_ids", "scores"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, row_ids: Tensor, scores: Tensor) -> None:
        """Add a batch: (E,) row ids, (E, labels) scores."""
        self.row_ids.append(row_ids)
        self.scores.append(scores.float())

    def gather(self) -> Predictions:
        """All predictions of all ranks in row order, on the CPU."""
        index, scores = self.compute()
        # The base class makes a number of a single element.
        return Predictions(index.reshape(-1), scores.reshape(index.numel(), -1))

    def compute(self) -> Predictions:
        """As `gather`, which is to be called; the base class synchronises the ranks around this."""
        index = dim_zero_cat(self.row_ids).cpu()
        rows, first = torch.unique(index, return_inverse=True)
        at = torch.empty_like(rows).scatter_(0, first, torch.arange(len(index)))
        return Predictions(rows, dim_zero_cat(self.scores).cpu()[at])


class EvalOutput(NamedTuple):
    """The answers to a whole set, beside the right ones.

    Attributes:
        predicted: (E,) label index or number. Of candidates that compete, 1 for the chosen one.
        labels: (E,) the right one; -1 unknown.
        classes: Number of labels.
        part: The examples, in the same order.
    """

    predicted: Tensor
    labels: Tensor
    classes: int
    part: Examples

    @property
    def groups(self) -> list[list[int]]:
        """Positions of the examples that are judged together."""
        return self.part.units()


def _accuracy(a: EvalOutput) -> Tensor:
    return multiclass_accuracy(a.predicted, a.labels, a.classes, average="micro")


def _f1(a: EvalOutput) -> Tensor:
    return binary_f1_score(a.predicted, a.labels)


def _macro_f1(a: EvalOutput) -> Tensor:
    return multiclass_f1_score(a.predicted, a.labels, a.classes, average="macro")


def _matthews_correlation(a: EvalOutput) -> Tensor | float:
    if not _varies(a):
        return 0.0
    return multiclass_matthews_corrcoef(a.predicted, a.labels, a.classes)


def _pearson(a: EvalOutput) -> Tensor | float:
    return pearson_corrcoef(a.predicted.double(), a.labels.double()) if _varies(a) else 0.0


def _spearman(a: EvalOutput) -> Tensor | float:
    return spearman_corrcoef(a.predicted.double(), a.labels.double()) if _varies(a) else 0.0


def _varies(a: EvalOutput) -> bool:
    """Without variation there is no correlation: it counts as 0."""
    return len(a.predicted.unique()) > 1 and len(a.labels.unique()) > 1


def _exact_match(a: EvalOutput) -> float:
    right = (a.predicted == a.labels).tolist()
    return _mean([all(right[at] for at in group) for group in a.groups])


def _gender_parity(a: EvalOutput) -> float:
    """Rows 2i and 2i + 1 are a pair, and share a text; what lacks its other half does not count."""
    at = {row: number for number, row in enumerate(a.part.row_ids)}
    pairs = [(at[row], at[row + 1]) for row in at if row % 2 == 0 and row + 1 in at]
    texts = a.part.columns.values()
    pairs = [(i, j) for i, j in pairs if any(column[i] == column[j] for column in texts)]
    return _mean([bool(a.predicted[i] == a.predicted[j]) for i, j in pairs])


def _record(a: EvalOutput) -> dict[str, Tensor]:
    """ReCoRD's normalisation and scores are those of SQuAD: the best over the right answers."""
    chosen = a.predicted.nonzero()[:, 0].tolist()
    texts, gold = a.part.notes[ANSWER], a.part.notes[GOLD]
    given = [{"prediction_text": texts[at], "id": str(at)} for at in chosen]
    right: list[Any] = []
    for at in chosen:
        answers = json.loads(gold[at])
        spans = {"text": answers, "answer_start": [0] * len(answers)}
        right.append({"answers": spans, "id": str(at)})
    scores = squad(given, right)
    return {"record_f1": scores["f1"] / 100, "record_em": scores["exact_match"] / 100}


def _mean(values: list[bool]) -> float:
    return sum(values) / len(values) if values else 0.0


class MetricKind(NamedTuple):
    """A metric and what it can be computed for.

    Attributes:
        compute: The metric, or several by name that are computed together.
        decide: Kinds of decision it is for (`Task.task_type`).
        needs: What else it takes.
    """

    compute: Callable[[EvalOutput], Tensor | float | dict[str, Tensor]]
    task_type: tuple[str, ...]
    needs: str | None = None


METRICS: Mapping[str, MetricKind] = MappingProxyType(
    {
        # Of two choices one is right: candidates are right as often as choices are.
        "accuracy": MetricKind(_accuracy, ("classification", "multiple_choice")),
        "f1": MetricKind(_f1, ("classification",), "two labels"),
        "macro_f1": MetricKind(_macro_f1, ("classification",)),
        "matthews_correlation": MetricKind(_matthews_correlation, ("classification",)),
        "pearson": MetricKind(_pearson, ("regression",)),
        "spearman": MetricKind(_spearman, ("regression",)),
        # MultiRC: over all answers, and questions with every answer judged right.
        "f1a": MetricKind(_f1, ("classification",), "groups"),
        "exact_match": MetricKind(_exact_match, ("classification",), "groups"),
        # ReCoRD: the chosen entity against all right answers.
        "record_f1": MetricKind(_record, ("multiple_choice",), "gold answers"),
        "record_em": MetricKind(_record, ("multiple_choice",), "gold answers"),
        # AX-g: pairs that differ in a pronoun's gender alone and are answered alike.
        "gender_parity": MetricKind(_gender_parity, ("classification",), "pairs of rows"),
    }
)


def score(answers: EvalOutput, metrics: tuple[str, ...]) -> dict[str, float]:
    """Metrics of the answers to a set, all of whose labels are known."""
    computed = {compute: compute(answers) for compute in {METRICS[n].compute for n in metrics}}
    values = {}
    for name in metrics:
        value = computed[METRICS[name].compute]
        # Single precision has seven digits; the rest would be noise in every file.
        values[name] = round(float(value[name] if isinstance(value, dict) else value), 6)
    return values
