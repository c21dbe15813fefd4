"""Metrics, computed once over all predictions of a set, never as a mean over batches.

What each metric applies to is in `lpt.config.metric_specs`, under the same names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from statistics import fmean
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


class Predictions(NamedTuple):
    """Label scores of a whole set, E examples in row order.

    Attributes:
        row_ids: (E,) row ids.
        scores: (E, labels) score of each label.
    """

    row_ids: Tensor
    scores: Tensor


def gather_predictions(batches: Sequence[Predictions]) -> Predictions:
    """Predictions of all batches of all ranks in row order, on the CPU; a collective operation.

    Ranks may see different numbers of examples; a row that several ranks saw counts once.
    """
    local = [Predictions(batch.row_ids.cpu(), batch.scores.float().cpu()) for batch in batches]
    everywhere = [batch for of_rank in gather(local) for batch in of_rank]
    row_ids, scores = (torch.cat(tensors) for tensors in zip(*everywhere, strict=True))
    unique, inverse = torch.unique(row_ids, return_inverse=True)
    positions = torch.empty_like(unique).scatter_(0, inverse, torch.arange(len(row_ids)))
    return Predictions(unique, scores[positions])


def _accuracy(output: EvalOutput) -> Tensor:
    """Share of right predictions; multiple choice: of groups whose chosen candidate is right."""
    predicted, labels = output.predicted, output.labels
    if output.multiple_choice:
        predicted, labels = predicted[output.predicted == 1], labels[output.predicted == 1]
    return multiclass_accuracy(predicted, labels, output.num_labels, average="micro")


def _f1(output: EvalOutput) -> Tensor:
    positive = output.positive_label
    return binary_f1_score(output.predicted == positive, output.labels == positive)


def _correlation(
    function: Callable[..., Tensor], predicted: Tensor, labels: Tensor, *arguments: int
) -> Tensor | float:
    """0 where it is not defined, because predictions or labels do not vary."""
    varies = len(predicted.unique()) > 1 and len(labels.unique()) > 1
    return function(predicted, labels, *arguments) if varies else 0.0


def _exact_match(output: EvalOutput) -> float:
    """MultiRC: share of questions all of whose answers are judged correctly."""
    correct = (output.predicted == output.labels).tolist()
    return fmean(all(correct[i] for i in group) for group in output.examples.groups())


def _gender_parity(output: EvalOutput) -> float:
    """Winogender (AX-g): share of pairs that differ in a pronoun's gender and get one prediction.

    Rows 2i and 2i + 1 are a pair if they share a text; a row without its partner does not count.
    """
    predicted, texts = output.predicted.tolist(), output.examples.columns.values()
    positions = {row: position for position, row in enumerate(output.examples.row_ids)}
    pairs = [(i, positions.get(row + 1)) for row, i in positions.items() if row % 2 == 0]
    same = [
        predicted[i] == predicted[j]
        for i, j in pairs
        if j is not None and any(column[i] == column[j] for column in texts)
    ]
    return fmean(same) if same else 0.0


def _squad(output: EvalOutput, score: str) -> float:
    """ReCoRD: SQuAD's normalization and scores, the best over the gold answers of each query."""
    chosen = output.predicted.nonzero()[:, 0].tolist()
    answers, gold = output.examples.metadata[ANSWER], output.examples.metadata[GOLD]
    predictions = [{"prediction_text": answers[i], "id": str(i)} for i in chosen]
    targets: list[Any] = []
    for i in chosen:
        texts = json.loads(gold[i])
        spans = {"text": texts, "answer_start": [0] * len(texts)}
        targets.append({"answers": spans, "id": str(i)})
    return float(squad(predictions, targets)[score]) / 100


METRICS: dict[str, Callable[[EvalOutput], Tensor | float]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "macro_f1": lambda o: multiclass_f1_score(o.predicted, o.labels, o.num_labels, average="macro"),
    "matthews_correlation": lambda o: _correlation(
        multiclass_matthews_corrcoef, o.predicted, o.labels, o.num_labels
    ),
    "pearson": lambda o: _correlation(pearson_corrcoef, o.predicted.double(), o.labels.double()),
    "spearman": lambda o: _correlation(spearman_corrcoef, o.predicted.double(), o.labels.double()),
    "f1a": _f1,  # MultiRC: over all answers
    "exact_match": _exact_match,
    "record_f1": lambda o: _squad(o, "f1"),
    "record_em": lambda o: _squad(o, "exact_match"),
    "gender_parity": _gender_parity,
}


def compute_metrics(output: EvalOutput, names: Sequence[str]) -> dict[str, float]:
    """Metrics of a set all of whose gold labels are known, in the order of `names`."""
    # Single precision has seven significant digits.
    return {name: round(float(METRICS[name](output)), 6) for name in names}
