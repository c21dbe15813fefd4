"""The errors of a run as tables and figures: which, of what classes, how confident, or another's.

The pages that hold them are written by `lpt.report.page`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from lpt.report.figures import COLORS, INK, SOFT, STYLE, Picture
from lpt.report.formatting import file_name, number, p_value
from lpt.report.outcomes import Outcome
from lpt.report.page import Section
from lpt.report.statistics import (
    RESAMPLES,
    bootstrap,
    calibration_error,
    mcnemar,
    reliability,
    score,
)
from lpt.report.tables import Table

_MOST_ERRORS = 20
_MOST_DIFFERENT = 10  # examples that only one of two runs gets right
_LONGEST_TEXT = 400  # characters
_MOST_NUMBERS, _MOST_NAMES = 10, 30  # labels of a confusion matrix with numbers, with names
_WIDTH = 3.9  # inches


def describe(outcome: Outcome) -> str:
    """The outcome in a sentence."""
    scores = ", ".join(
        f"{name} {number(value)}"
        for name, value in (outcome.record.scores()[outcome.set_name] or {}).items()
    )
    sentence = f"{outcome.name} on {len(outcome.frame)} {outcome.set_name} examples: {scores}"
    if outcome.task_type != "classification":
        return f"{sentence}."
    error = calibration_error(reliability(outcome.confidence, outcome.right))
    confidence = number(outcome.confidence.mean())
    return f"{sentence}; mean confidence {confidence}, calibration error {number(error)}."


def errors(outcome: Outcome) -> Iterator[Section]:
    """The sections about one run."""
    name = outcome.name
    if outcome.task_type == "classification":
        with matplotlib.style.context(STYLE):
            pictures = [_confusion(outcome), _reliability(outcome)]
        yield Section(f"Classes and calibration of {name}", [_classes(outcome)], pictures, _CLASSES)
    if outcome.task_type == "regression":
        with matplotlib.style.context(STYLE):
            pictures = [_scatter(outcome)]
        yield Section(f"Predicted and gold numbers of {name}", [], pictures, [])
    yield Section(f"Largest errors of {name}", [_most_confident(outcome)], [], [])


_CLASSES = [
    "Precision: share of right ones among the predictions of a label; recall: among the examples "
    "with this label; F1: their harmonic mean. Average: the unweighted mean over the labels.",
    "Confidence: probability of the predicted label, a softmax of the label scores. Expected "
    "calibration error: distance of confidence and accuracy in 15 bins of equal width, weighted by "
    "their examples (Guo et al., 2017).",
]


def _classes(outcome: Outcome) -> Table:
    """Precision, recall and F1 of each label, and their averages."""
    gold, predicted = outcome.frame["label"], outcome.frame["prediction"]
    options = {"labels": outcome.labels, "zero_division": 0}
    *found, count = precision_recall_fscore_support(gold, predicted, **options)
    frame = pd.DataFrame({"label": outcome.labels, "gold": count.astype(str)})
    frame["predicted"] = [str((predicted == label).sum()) for label in outcome.labels]
    average = {"label": "average", "gold": str(len(gold)), "predicted": str(len(gold))}
    for name, values in zip(("precision", "recall", "F1"), found, strict=True):
        frame[name] = [number(value) for value in values]
        average[name] = number(float(np.mean(values)))
    frame.loc[len(frame)] = average
    caption = f"{outcome.name}: labels of {outcome.set_name}"
    return Table(file_name("classes", outcome.slug), caption, frame, 1)


def _most_confident(outcome: Outcome) -> Table:
    """The wrong predictions with the highest probability; of numbers, those furthest off."""
    frame = outcome.frame
    if outcome.task_type == "regression":
        size = (frame["prediction"].astype(float) - frame["label"].astype(float)).abs().to_numpy()
        chosen = np.argsort(-size, kind="stable")[:_MOST_ERRORS]
        title = "Predictions furthest off"
    else:
        size, wrong = outcome.confidence, np.flatnonzero(~outcome.right)
        chosen = wrong[np.argsort(-size[wrong], kind="stable")][:_MOST_ERRORS]
        title = f"Most confident errors ({len(wrong)} in all)"
    table = _examples(outcome, chosen)
    name = "off by" if outcome.task_type == "regression" else "confidence"
    table.insert(3, name, [number(value) for value in size[chosen]])
    return _texts(file_name("errors", outcome.slug), f"{outcome.name}: {title}", table)


def _examples(outcome: Outcome, rows: Sequence[int] | np.ndarray) -> pd.DataFrame:
    """Row, gold label, prediction and texts of some examples."""
    names = ["index", "label", "prediction", *outcome.texts]
    shown = outcome.frame.iloc[rows][names].map(_shortened)
    return shown.rename(columns={"index": "row", "label": "gold"})


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]} …"


def _confusion(outcome: Outcome) -> Picture:
    """Gold labels by predicted ones, colored by the share of the gold label."""
    labels = outcome.labels
    gold, predicted = outcome.frame["label"], outcome.frame["prediction"]
    counts = confusion_matrix(gold, predicted, labels=labels)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(_WIDTH, _WIDTH))
    axes = figure.subplots()
    draw_matrix(axes, shares, vmax=1, cells=counts if len(labels) <= _MOST_NUMBERS else None)
    if len(labels) <= _MOST_NAMES:
        turned = 90 if len("".join(labels)) > 30 else 0
        axes.set_xticks(range(len(labels)), [label[:20] for label in labels], rotation=turned)
        axes.set_yticks(range(len(labels)), [label[:20] for label in labels])
    axes.set(xlabel="predicted label", ylabel="gold label")
    caption = "Examples; color: share of those with the same gold label."
    title = f"Confusion matrix: {outcome.name}"
    return Picture(file_name("confusion", outcome.slug), title, caption, figure)


def draw_matrix(axes: Any, values: np.ndarray, *, vmax: float, cells: Any = None) -> Any:
    """Shades of blue from 0 to `vmax`, and what is written into the cells."""
    image = axes.imshow(values, cmap="Blues", vmin=0, vmax=vmax, aspect="auto")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for row, column in np.ndindex(values.shape if cells is not None else (0, 0)):
        color = "white" if values[row, column] > 0.6 * vmax else INK
        axes.text(column, row, cells[row][column], ha="center", va="center", color=color)
    return image


def _reliability(outcome: Outcome) -> Picture:
    """Accuracy by confidence, and how many examples have it."""
    bins = reliability(outcome.confidence, outcome.right)
    figure = Figure(figsize=(_WIDTH, _WIDTH))
    top, bottom = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    top.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=(0, (4, 2)))
    top.plot(bins["confidence"], bins["accuracy"], color=COLORS[0], marker="o")
    top.set(ylabel="accuracy", ylim=(0, 1.03), xlim=(1 / len(outcome.labels) - 0.02, 1.02))
    bottom.bar(bins["confidence"], bins["count"], width=0.02, color=COLORS[0])
    bottom.set(xlabel="confidence", ylabel="examples")
    error = number(calibration_error(bins))
    caption = f"Expected calibration error {error}; dashes: perfect calibration."
    title = f"Reliability: {outcome.name}"
    return Picture(file_name("reliability", outcome.slug), title, caption, figure)


def _scatter(outcome: Outcome) -> Picture:
    gold, predicted = outcome.counts.rows.T
    figure = Figure(figsize=(_WIDTH, _WIDTH))
    axes = figure.subplots()
    low, high = map(float, outcome.task["labels"])
    axes.plot([low, high], [low, high], color=SOFT, linewidth=1, linestyle=(0, (4, 2)))
    axes.scatter(gold, predicted, 8, color=COLORS[0], alpha=0.4, linewidth=0)
    axes.set(xlabel="gold number", ylabel="predicted number")
    title = f"Predictions: {outcome.name}"
    caption = "An example each; dashes: perfect predictions."
    return Picture(file_name("scatter", outcome.slug), title, caption, figure)


def compare_outcomes(first: Outcome, second: Outcome) -> Iterator[Section]:
    """The section about two runs on the same examples; `aligned` puts these in one order."""
    metric = first.metric
    scores = [score(outcome.counts, metric) for outcome in (first, second)]
    low, high = bootstrap([first.counts], [second.counts], metric)
    line = {
        "metric": metric.replace("_", " "),
        first.name: number(scores[0]),
        second.name: number(scores[1]),
        "difference": number(scores[0] - scores[1], sign="+"),
        "95 % interval": f"{number(low, sign='+')} to {number(high, sign='+')}",
    }
    count = len(first.counts.rows)
    notes = [
        f"Difference: the first run minus the second one. Interval: paired bootstrap over {count} "
        f"examples ({RESAMPLES:,} resamples, percentiles). It tells how far the difference depends "
        "on the test examples, not on the seeds."
    ]
    tables = []
    if first.task_type != "regression":
        line["p (McNemar)"] = p_value(mcnemar(first.right, second.right))
        notes.append("p: McNemar's exact test of which predictions are right.")
        sides = [_only(first, second), _only(second, first)]
        tables = [_agreement(first, second), *(table for table in sides if len(table.frame))]
    difference = file_name("difference", first.slug)
    tables.insert(0, Table(difference, "Difference", pd.DataFrame([line]), 1))
    yield Section(f"{first.name} against {second.name}", tables, [], notes)


def _agreement(first: Outcome, second: Outcome) -> Table:
    """How many examples both, one or none of two runs get right."""
    cells = [
        [str(int((ours & theirs).sum())) for theirs in (second.right, ~second.right)]
        for ours in (first.right, ~first.right)
    ]
    frame = pd.DataFrame(cells, columns=[f"{second.name}: right", "wrong"])
    frame.insert(0, "", [f"{first.name}: right", "wrong"])
    return Table(file_name("agreement", first.slug), "Right and wrong predictions", frame, 1)


def _only(first: Outcome, second: Outcome) -> Table:
    """Examples that only the first run gets right, those first of which the other was surest."""
    rows = np.flatnonzero(first.right & ~second.right)
    rows = rows[np.argsort(-second.confidence[rows], kind="stable")][:_MOST_DIFFERENT]
    frame = _examples(second, rows)
    caption = f"Only {first.name} is right: most confident errors of {second.name}"
    return _texts(file_name("only", first.slug), caption, frame)


def _texts(name: str, caption: str, frame: pd.DataFrame) -> Table:
    return Table(name, caption, frame, len(frame.columns))
