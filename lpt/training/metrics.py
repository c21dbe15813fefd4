"""Metrics, computed once over all predictions of a set, never as a mean over batches.

In double precision and not rounded, with the conventions of scikit-learn and scipy.

What each metric applies to is in `lpt.config.metric_specs`, under the same names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot
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


def _accuracy(output: EvalOutput) -> float:
    """Share of right predictions; multiple choice: of groups whose chosen candidate is right."""
    correct = output.predicted == output.labels
    if output.multiple_choice:
        correct = correct[output.predicted == 1]
    return float(correct.double().mean())


def _f1(output: EvalOutput, label: int) -> float:
    """F1 of one label; 0 if it is neither predicted nor right anywhere."""
    predicted, right = output.predicted == label, output.labels == label
    count = int(predicted.sum() + right.sum())
    return 2 * int((predicted & right).sum()) / count if count else 0.0


def _macro_f1(output: EvalOutput) -> float:
    """Mean F1 of the labels that are predicted or right somewhere."""
    labels = torch.cat([output.predicted, output.labels]).unique().tolist()
    return fmean(_f1(output, label) for label in labels)


def _correlation(predicted: Tensor, labels: Tensor) -> float:
    """Pearson's correlation; 0 where it is not defined, because one side does not vary.

    Args:
        predicted: (E,) numbers, or (E, labels) one-hot, which gives Matthews' correlation
            coefficient, for any number of labels (Gorodkin 2004).
        labels: The same shape.
    """
    if any(bool((values == values[0]).all()) for values in (predicted, labels)):
        return 0.0
    x, y = (values.double() - values.double().mean(0) for values in (predicted, labels))
    return float(((x / x.norm()) * (y / y.norm())).sum().clamp(-1, 1))


def _ranks(values: Tensor) -> Tensor:
    """Rank of each value, from 1; equal values share the mean of their ranks."""
    _, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    return (counts.cumsum(0) - (counts.double() - 1) / 2)[inverse]


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


METRICS: dict[str, Callable[[EvalOutput], float]] = {
    "accuracy": _accuracy,
    "f1": lambda o: _f1(o, o.positive_label),
    "macro_f1": _macro_f1,
    "matthews_correlation": lambda o: _correlation(
        one_hot(o.predicted, o.num_labels), one_hot(o.labels, o.num_labels)
    ),
    "pearson": lambda o: _correlation(o.predicted, o.labels),
    "spearman": lambda o: _correlation(_ranks(o.predicted), _ranks(o.labels)),
    "f1a": lambda o: _f1(o, o.positive_label),  # MultiRC: over all answers
    "exact_match": _exact_match,
    "record_f1": lambda o: _squad(o, "f1"),
    "record_em": lambda o: _squad(o, "exact_match"),
    "gender_parity": _gender_parity,
}


def compute_metrics(output: EvalOutput, names: Sequence[str]) -> dict[str, float]:
    """Metrics of a set all of whose gold labels are known, in the order of `names`."""
    return {name: METRICS[name](output) for name in names}
