"""The predictions of a run beside the gold labels: what its errors are counted from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lpt.data.candidates import ANSWER, GROUP, ID
from lpt.errors import ConfigError, config_error, first_line
from lpt.report.statistics import RESAMPLED, Counts, bootstrap
from lpt.runs.predictions import one_line, predictions_file, read_predictions
from lpt.runs.record import RunRecord

_NO_TEXTS = ("index", ID, GROUP, ANSWER, "prediction", "label")


@dataclass(frozen=True, eq=False)
class Outcome:
    """The labeled examples of an evaluation set as one run predicted them.

    Attributes:
        name: The run in a few words.
        slug: The end of the names of its files.
        folder: Its folder.
        set_name: `dev`, `test` or an extra set.
        record: Its record.
        frame: A row for each labeled example, by `index`; of multiple choice, for the chosen
            candidate of each group, by `group`. Columns: those of its file.
    """

    name: str
    slug: str
    folder: Path
    set_name: str
    record: RunRecord
    frame: pd.DataFrame

    @property
    def task(self) -> dict[str, Any]:
        """The configuration of its task."""
        return self.record.config["task"]

    @property
    def task_type(self) -> str:
        """`classification`, `multiple_choice` or `regression`."""
        return str(self.task["task_type"])

    @cached_property
    def labels(self) -> list[str]:
        """The labels as the file has them."""
        return list(map(one_line, self.task["labels"]))

    @property
    def metric(self) -> str:
        """The metric that is resampled: the selecting one, or else accuracy."""
        name = self.record.selection.metric
        return name if name in RESAMPLED else "accuracy"

    @cached_property
    def right(self) -> np.ndarray:
        """Whether each prediction is right, (n,); of a regression, no one knows."""
        return (self.frame["prediction"] == self.frame["label"]).to_numpy()

    @cached_property
    def probabilities(self) -> pd.DataFrame:
        """Probability of each label, (n, labels)."""
        columns = [f"p({label})" for label in self.labels]
        return self.frame[columns].astype(float).set_axis(self.labels, axis=1)

    @cached_property
    def confidence(self) -> np.ndarray:
        """Probability of the predicted label, (n,)."""
        columns = [self.labels.index(label) for label in self.frame["prediction"]]
        return self.probabilities.to_numpy()[np.arange(len(columns)), columns]

    @property
    def texts(self) -> list[str]:
        """Columns with the texts."""
        return [n for n in self.frame if n not in _NO_TEXTS and not n.startswith("p(")]

    @cached_property
    def counts(self) -> Counts:
        """What the metrics of any resampled set are computed from."""
        if self.task_type == "regression":
            return Counts(self.frame[["label", "prediction"]].astype(float).to_numpy(), 0)
        gold, predicted = (
            np.equal.outer(self.frame[column].to_numpy(), self.labels).astype(float)
            for column in ("label", "prediction")
        )
        rows = np.hstack([gold * predicted, gold, predicted])
        if GROUP in self.frame:  # resampled as a whole
            rows = pd.DataFrame(rows).groupby(self.frame[GROUP].to_numpy()).sum().to_numpy()
        positive = self.task.get("positive_label") or self.task["labels"][1]
        return Counts(rows, self.task["labels"].index(positive))


def read_outcome(
    folder: Path, set_name: str, name: str | None = None, slug: str | None = None
) -> Outcome:
    """The outcome of a finished run, which is named after its folder by default.

    Raises:
        ConfigError: The run is not finished or has no such set, the set has no labels, or its
            predictions are damaged or of an earlier version.
    """
    record = RunRecord.read(folder)
    if set_name not in record.scores():
        raise config_error(
            "--set", f"{set_name}, which {folder} has not", ", ".join(record.scores())
        )
    frame = pd.DataFrame(read_predictions(folder, set_name), dtype=str)
    task, file = record.config["task"], str(folder / predictions_file(set_name))
    if "label" not in frame or not (frame["label"] != "").any():
        raise config_error(file, "no labels", "a set with labels", "--set dev, for example")
    frame, key = frame[frame["label"] != ""], "index"
    if task["task_type"] == "multiple_choice":
        frame, key = frame[frame["prediction"] == "1"], GROUP
    name = name or folder.name
    try:
        frame = frame.set_index(key, drop=False)
        outcome = Outcome(name, slug or name, folder, set_name, record, frame)
        _check_values(outcome)
    except (KeyError, ValueError) as error:
        expected = "the columns and values that a run of this version writes"
        raise config_error(file, first_line(error), expected, "run again") from error
    return outcome


def _check_values(outcome: Outcome) -> None:
    """Raise a KeyError or ValueError for what cannot be counted."""
    if outcome.task_type == "regression":
        numbers = outcome.counts.rows
    else:
        expected = [f"p({label})" for label in outcome.labels]
        if missing := [column for column in expected if column not in outcome.frame]:
            raise ValueError(f"no columns {', '.join(missing)}")
        numbers = outcome.probabilities.to_numpy()
        labels = {*outcome.frame["label"], *outcome.frame["prediction"]}
        if unknown := sorted(labels - {*outcome.labels}):
            raise ValueError(f"other labels than those of the task: {', '.join(unknown[:3])}")
    if not np.isfinite(numbers).all():
        raise ValueError("numbers that are not finite")


def aligned(first: Outcome, second: Outcome) -> Outcome:
    """The second outcome with its examples in the order of the first one.

    Raises:
        ConfigError: They are of other tasks or examples, or these have other labels or texts.
    """
    ours, theirs = (outcome.record.config["task"]["name"] for outcome in (first, second))
    shared = {*first.frame.index} & {*second.frame.index}
    given = ""
    if ours != theirs:
        given = f"predictions for {theirs}, not {ours}"
    elif first.labels != second.labels:
        given = f"the labels {', '.join(second.labels)}, not {', '.join(first.labels)}"
    elif not len(shared) == len(first.frame) == len(second.frame):
        given = f"{len(second.frame)} examples, {len(shared)} of them the same rows"
    else:
        second = replace(second, frame=second.frame.loc[first.frame.index])
        # Of multiple choice, two runs may have chosen different candidates.
        names = [] if first.task_type == "multiple_choice" else ["label", *first.texts]
        for name in names:
            if name in second.frame and (first.frame[name] != second.frame[name]).any():
                given = f"other values of {name} in the same rows"
    if given:
        expected = f"the {len(first.frame)} examples of {first.folder} ({first.set_name})"
        raise config_error(str(second.folder), given, expected, "runs with the same data.seed")
    return second


class PredictionsOfRuns:
    """The test predictions of many runs, each read once, without their texts."""

    def __init__(self) -> None:
        self._read: dict[Path, Outcome | None] = {}

    def interval(self, first: Sequence[Path], second: Sequence[Path]) -> tuple[float, float]:
        """Interval of the difference of their mean scores, over resampled examples.

        NaN where the runs have no predictions, or not all of the same examples.

        Args:
            first: Folders of the runs of one setting.
            second: Those of another one with the same seeds.
        """
        outcomes = [outcome for folder in (*first, *second) if (outcome := self._outcome(folder))]
        if not first or len(outcomes) < 2 * len(first):
            return nan, nan
        try:
            counts = [aligned(outcomes[0], outcome).counts for outcome in outcomes]
        except ConfigError:
            return nan, nan
        return bootstrap(counts[: len(first)], counts[len(first) :], outcomes[0].metric)

    def _outcome(self, folder: Path) -> Outcome | None:
        if folder not in self._read:
            try:
                outcome = read_outcome(folder, "test")
                frame = outcome.frame[[n for n in _NO_TEXTS if n in outcome.frame]]
                self._read[folder] = replace(outcome, frame=frame)
            except ConfigError:  # of an earlier version, say
                self._read[folder] = None
        return self._read[folder]
