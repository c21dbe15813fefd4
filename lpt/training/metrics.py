"""Metrics, computed once over all predictions of a set, never as a mean over batches.

What each metric applies to is in `lpt.config.metric_specs`, under the same names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_f1_score,
    multiclass_accuracy,
    multiclass_f1_score,
    multiclass_matthews_corrcoef,
)
from torchmetrics.functional.regression import pearson_corrcoef, spearman_corrcoef
from torchmetrics.functional.text import squad

from lpt.data.candidates import ANSWER, GOLD
from lpt.data.eval_output import EvalOutput
from lpt.training.distributed import gather

MetricValue = Tensor | float | dict[str, Tensor]


class Predictions(NamedTuple):
    """Label scores of a whole set, E examples in row order.

    Attributes:
        row_ids: (E,) row ids.
        scores: (E, labels) score of each label.
    """

    row_ids: Tensor
    scores: Tensor


class PredictionStore:
    """Collects the predictions of all batches and ranks.

    Ranks may see different numbers of examples; a row that several ranks saw counts once.
    """

    def __init__(self) -> None:
        self.batches: list[Predictions] = []

    def update(self, row_ids: Tensor, scores: Tensor) -> None:
        """Add a batch: (E,) row ids, (E, labels) scores."""
        self.batches.append(Predictions(row_ids, scores.float()))

    def gather(self) -> Predictions:
        """Predictions of all ranks in row order, on the CPU; the store is empty then.

        A collective operation.
        """
        local = [Predictions(ids.cpu(), scores.cpu()) for ids, scores in self.batches]
        self.batches = []
        batches = [batch for batches in gather(local) for batch in batches]
        row_ids, scores = (torch.cat(tensors) for tensors in zip(*batches, strict=True))
        unique, inverse = torch.unique(row_ids, return_inverse=True)
        positions = torch.empty_like(unique).scatter_(0, inverse, torch.arange(len(row_ids)))
        return Predictions(unique, scores[positions])


def _accuracy(output: EvalOutput) -> Tensor:
    # Multiple choice: with two candidates a group, candidates are right as often as groups are.
    return multiclass_accuracy(output.predicted, output.labels, output.num_labels, average="micro")


def _f1(output: EvalOutput) -> Tensor:
    return binary_f1_score(output.predicted, output.labels)


def _macro_f1(output: EvalOutput) -> Tensor:
    return multiclass_f1_score(output.predicted, output.labels, output.num_labels, average="macro")


def _matthews_correlation(output: EvalOutput) -> Tensor | float:
    return _correlation(
        multiclass_matthews_corrcoef, output.predicted, output.labels, output.num_labels
    )


def _pearson(output: EvalOutput) -> Tensor | float:
    return _correlation(pearson_corrcoef, output.predicted.double(), output.labels.double())


def _spearman(output: EvalOutput) -> Tensor | float:
    return _correlation(spearman_corrcoef, output.predicted.double(), output.labels.double())


def _correlation(
    function: Callable[..., Tensor], predicted: Tensor, labels: Tensor, *arguments: int
) -> Tensor | float:
    """0 where it is not defined, because predictions or labels do not vary."""
    varies = len(predicted.unique()) > 1 and len(labels.unique()) > 1
    return function(predicted, labels, *arguments) if varies else 0.0


def _exact_match(output: EvalOutput) -> float:
    """MultiRC: share of questions all of whose answers are judged correctly."""
    correct = (output.predicted == output.labels).tolist()
    return _mean([all(correct[i] for i in group) for group in output.groups])


def _gender_parity(output: EvalOutput) -> float:
    """Winogender (AX-g): share of pairs that differ in a pronoun's gender and get one prediction.

    Rows 2i and 2i + 1 are a pair if they share a text; a row without its partner does not count.
    """
    positions = {row: position for position, row in enumerate(output.examples.row_ids)}
    pairs = [
        (positions[row], positions[row + 1])
        for row in positions
        if row % 2 == 0 and row + 1 in positions
    ]
    texts = output.examples.columns.values()
    pairs = [(i, j) for i, j in pairs if any(column[i] == column[j] for column in texts)]
    return _mean([bool(output.predicted[i] == output.predicted[j]) for i, j in pairs])


def _record(output: EvalOutput) -> dict[str, Tensor]:
    """ReCoRD: SQuAD's normalisation and scores, the best over the gold answers of each query."""
    chosen = output.predicted.nonzero()[:, 0].tolist()
    answers, gold = output.examples.metadata[ANSWER], output.examples.metadata[GOLD]
    predictions = [{"prediction_text": answers[i], "id": str(i)} for i in chosen]
    targets: list[Any] = []
    for i in chosen:
        texts = json.loads(gold[i])
        spans = {"text": texts, "answer_start": [0] * len(texts)}
        targets.append({"answers": spans, "id": str(i)})
    scores = squad(predictions, targets)
    return {"record_f1": scores["f1"] / 100, "record_em": scores["exact_match"] / 100}


def _mean(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else 0.0


# Functions that compute several metrics at once return them by name.
METRICS: Mapping[str, Callable[[EvalOutput], MetricValue]] = MappingProxyType(
    {
        "accuracy": _accuracy,
        "f1": _f1,
        "macro_f1": _macro_f1,
        "matthews_correlation": _matthews_correlation,
        "pearson": _pearson,
        "spearman": _spearman,
        "f1a": _f1,  # MultiRC: F1 over all answers
        "exact_match": _exact_match,
        "record_f1": _record,
        "record_em": _record,
        "gender_parity": _gender_parity,
    }
)


def compute_metrics(output: EvalOutput, names: Sequence[str]) -> dict[str, float]:
    """Metrics of a set all of whose gold labels are known, in the order of `names`."""
    computed = {function: function(output) for function in {METRICS[name] for name in names}}
    values = {}
    for name in names:
        value = computed[METRICS[name]]
        # Single precision has seven significant digits.
        values[name] = round(float(value[name] if isinstance(value, dict) else value), 6)
    return values
