"""Predictions for an evaluation set next to its gold labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from lpt.config.task_schema import is_labeled
from lpt.data.candidates import ANSWER, GROUP, ID
from lpt.data.examples import Examples
from lpt.data.tasks import Task, format_label


class EvalOutput(NamedTuple):
    """Predictions and gold labels of a whole set, E examples in row order.

    Attributes:
        predicted: (E,) label index (classification), number (regression), or 1 for the chosen
            candidate of each group and 0 for the others (multiple choice).
        labels: (E,) gold labels in the same encoding; -1, or NaN (regression), where unknown.
        num_labels: Number of labels.
        examples: The examples.
        positive_label: Index of the label whose F1 is `f1`.
        multiple_choice: Whether the candidates of a group compete.
        scores: (E, labels) score of each label; None for predictions of a constant.
    """

    predicted: Tensor
    labels: Tensor
    num_labels: int
    examples: Examples
    positive_label: int = 1
    multiple_choice: bool = False
    scores: Tensor | None = None

    def select(self, positions: Sequence[int]) -> EvalOutput:
        """The predictions and labels at the given positions."""
        chosen = list(positions)
        return self._replace(
            predicted=self.predicted[chosen],
            labels=self.labels[chosen],
            examples=self.examples.select(chosen),
            scores=None if self.scores is None else self.scores[chosen],
        )


def prediction_columns(
    output: EvalOutput, task: Task, *, texts: bool = False
) -> dict[str, list[str]]:
    """The columns of a file of predictions, as text.

    They are index (the row in the source); id, group and answer, as far as the set has them;
    prediction; label, if any is known; p(LABEL), the probability of each label (softmax of the
    scores), unless the task is a regression; and with `texts`, the columns of the template whose
    names are not among these.
    """
    examples, labels = output.examples, task.config.labels
    columns: dict[str, list[str]] = {"index": [str(row) for row in examples.row_ids]}
    for name in (ID, GROUP, ANSWER):
        if name in examples.metadata:
            columns[name] = examples.metadata[name]
    columns["prediction"] = [format_label(label, labels) for label in output.predicted.tolist()]
    if any(map(is_labeled, examples.labels)):
        columns["label"] = [
            format_label(label, labels) if is_labeled(label) else "" for label in examples.labels
        ]
    if output.scores is not None and task.value_range is None:
        for label, shares in zip(labels, output.scores.double().softmax(1).T.tolist(), strict=True):
            columns[f"p({label})"] = [f"{share:.6f}" for share in shares]
    if texts:
        columns |= {n: list(c) for n, c in examples.columns.items() if n not in columns}
    return columns
