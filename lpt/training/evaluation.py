"""From the scores of labels to answers, by the kind of task, and from answers to metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from lpt.data.tasks import Examples, Task
from lpt.training.metrics import EvalOutput, Predictions, score


class Evaluator:
    """EvalOutput and scores the sets of a run.

    Args:
        task: How scores become answers, and what is measured.
        parts: The sets, `train` among them.
    """

    def __init__(self, task: Task, parts: Mapping[str, Examples]) -> None:
        self.task = task
        self.parts = {name: _in_row_order(part) for name, part in parts.items()}

    def answers(self, name: str, predictions: Predictions) -> EvalOutput:
        """The answers to a set, all of which was predicted."""
        part = self.parts[name]
        assert predictions.row_ids.tolist() == part.row_ids, "every example is answered, and once"
        task = self.task
        predicted = decide(task.task_type, predictions.scores, task.value_range, part.units)
        return self._beside(part, predicted)

    def scores(self, name: str, answers: EvalOutput) -> dict[str, float] | None:
        """Metrics of the answers to a set; None where its labels are unknown."""
        part = self.parts[name]
        return score(answers, self.task.metrics_of(name)) if part.labelled else None

    def majority(self, name: str) -> dict[str, float] | None:
        """Scores of always giving the answer that is most frequent in train.

        That is a label; the mean of a number; of candidates, the most frequent place in a group.
        """
        part, train = self.parts[name], self.parts["train"]
        if self.task.task_type == "regression":
            always = sum(train.labels) / len(train)
            predicted = torch.full((len(part),), always)
        elif self.task.task_type == "multiple_choice":
            places = Counter(
                at
                for rows in train.units()
                for at, row in enumerate(rows)
                if train.labels[row] == 1
            )
            place = places.most_common(1)[0][0]
            predicted = torch.zeros(len(part), dtype=torch.long)
            for rows in part.units():
                predicted[rows[min(place, len(rows) - 1)]] = 1
        else:
            most = Counter(train.labels).most_common(1)[0][0]
            predicted = torch.full((len(part),), int(most))
        return self.scores(name, self._beside(part, predicted))

    def _beside(self, part: Examples, predicted: Tensor) -> EvalOutput:
        return EvalOutput(predicted, torch.tensor(part.labels), len(self.task.labels), part)


def decide(
    how: str,
    scores: Tensor,
    scale: Sequence[float] | None = None,
    groups: Callable[[], list[list[int]]] = list,
) -> Tensor:
    """EvalOutput from the scores of the labels.

    Args:
        how: `label`, `choice` or `number`; see `Task.task_type`.
        scores: (E, labels).
        scale: The range of a number.
        groups: Gives the candidates of each choice.

    Returns:
        (E,) label index; number; or 1 for the candidate of each group whose second label leads its
        first one by most, 0 for the others.
    """
    if how == "classification":
        return scores.argmax(1)
    if how == "regression":
        assert scale is not None
        return scale[0] + (scale[1] - scale[0]) * scores.softmax(1)[:, 1]
    lead = scores[:, 1] - scores[:, 0]
    chosen = torch.zeros(len(scores), dtype=torch.long)
    for rows in groups():
        chosen[rows[int(lead[rows].argmax())]] = 1
    return chosen


def _in_row_order(part: Examples) -> Examples:
    return part.take(sorted(range(len(part)), key=part.row_ids.__getitem__))
