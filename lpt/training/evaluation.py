"""From label scores to predictions, by type of task, and from predictions to metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import mode

import torch
from torch import Tensor

from lpt.data.eval_output import EvalOutput
from lpt.data.examples import Examples
from lpt.data.tasks import Task
from lpt.training.metrics import Predictions, compute_metrics


class Evaluator:
    """Predicts and scores the sets of a run.

    Args:
        task: Type of the task and its metrics.
        sets: Examples by name of the set, `train` among them.
    """

    def __init__(self, task: Task, sets: Mapping[str, Examples]) -> None:
        self.task = task
        self.sets = {
            name: examples.select(sorted(range(len(examples)), key=examples.row_ids.__getitem__))
            for name, examples in sets.items()
        }
        self._labeled = {name: part.labeled_positions() for name, part in self.sets.items()}

    def predict(self, name: str, predictions: Predictions) -> EvalOutput:
        """Predictions for a set from the label scores of all of its rows."""
        examples, task = self.sets[name], self.task
        assert predictions.row_ids.tolist() == examples.row_ids, "every example exactly once"
        task_type, scores = task.config.task_type, predictions.scores
        predicted = decide(task_type, scores, task.value_range, examples.groups)
        return self._with_labels(examples, predicted)._replace(scores=scores)

    def metrics(self, name: str, output: EvalOutput) -> dict[str, float] | None:
        """Metrics of the predictions for the labeled examples of a set; None if it has none."""
        labeled = self._labeled[name]
        if not labeled:
            return None
        if len(labeled) < len(output.examples):
            output = output.select(labeled)
        return compute_metrics(output, self.task.metrics_for(name))

    def majority(self, name: str) -> dict[str, float] | None:
        """Metrics of the constant prediction that is most frequent in train.

        Classification: the most frequent label; regression: the mean; multiple choice: the most
        frequent position of the right candidate in its group.
        """
        examples, train = self.sets[name], self.sets["train"]
        predicted = torch.zeros(len(examples), dtype=torch.long)
        if self.task.config.task_type == "regression":
            predicted = torch.full((len(examples),), sum(train.labels) / len(train))
        elif self.task.config.task_type == "multiple_choice":
            position = mode(
                position
                for group in train.groups()
                for position, row in enumerate(group)
                if train.labels[row] == 1
            )
            for group in examples.groups():
                predicted[group[min(position, len(group) - 1)]] = 1
        else:
            predicted += int(mode(train.labels))
        return self.metrics(name, self._with_labels(examples, predicted))

    def _with_labels(self, examples: Examples, predicted: Tensor) -> EvalOutput:
        task = self.task
        numbers = task.value_range is not None
        return EvalOutput(
            predicted,
            torch.tensor(examples.labels, dtype=torch.float64 if numbers else torch.long),
            len(task.config.labels),
            examples,
            task.positive_label,
            task.config.task_type == "multiple_choice",
        )


def decide(
    task_type: str,
    scores: Tensor,
    value_range: Sequence[float] | None = None,
    groups: Callable[[], list[list[int]]] = list,
) -> Tensor:
    """Predictions from label scores.

    Args:
        task_type: `classification`, `multiple_choice` or `regression`; see `TaskConfig.task_type`.
        scores: (E, labels).
        value_range: Regression: the two ends of the range.
        groups: Multiple choice: returns the rows of each group of candidates.

    Returns:
        (E,) label index; number; or 1 for the candidate of each group with the largest margin of
        its second label over its first one, 0 for the others.
    """
    if task_type == "classification":
        return scores.argmax(1)
    if task_type == "regression":
        assert value_range is not None
        low, high = value_range
        return low + (high - low) * scores.double().softmax(1)[:, 1]
    margin = scores[:, 1] - scores[:, 0]
    chosen = torch.zeros(len(scores), dtype=torch.long)
    for rows in groups():
        chosen[rows[int(margin[rows].argmax())]] = 1
    return chosen
