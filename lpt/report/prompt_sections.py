"""A late prompt as tables and figures: nearest words, slots, spread by class, attention."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.metrics import pairwise_distances, silhouette_score

from lpt.report.errors import draw_matrix
from lpt.report.figures import COLORS, MARKERS, STYLE, Picture
from lpt.report.formatting import file_name, number, show
from lpt.report.page import Section
from lpt.report.prompts import PromptStates
from lpt.report.tables import Table

_WIDTH = 3.9  # inches
_MOST_CLASSES = len(MARKERS)
_SAME = 1e-5  # distance, relative to the norm, of prompts that do not depend on the text


def prompt_sections(name: str, states: PromptStates, *, classes: bool) -> Iterator[Section]:
    """The sections about the late prompt of a run.

    Args:
        name: The run in a few words.
        states: What its prompt does.
        classes: Whether its labels are classes, by which prompts can be compared.
    """
    count, length, _ = states.vectors.shape
    flat = states.vectors.reshape(count, -1)
    tables, notes = [], [f"Of the first prompt, at layer {states.layer}, for {count} texts."]
    if states.words:
        tables.append(_words(name, states))
        notes.append(
            "Nearest words: largest cosine between the mean of a slot over the texts and the "
            "embedding of a word. A prompt at a later layer stands among hidden states, which need "
            "not be near the embeddings: a small cosine says little."
        )
    distances = pairwise_distances(flat) / np.linalg.norm(flat, axis=1).mean()
    several = classes and 1 < len(set(states.labels)) < count
    with matplotlib.style.context(STYLE):
        pictures = [_slots(name, states.vectors)] if length > 1 else []
        if distances.max() < _SAME:
            notes.append("The prompt is the same for every text.")
        elif several:
            tables.append(_spread(name, distances, states.labels))
            pictures.append(_scatter(name, flat, states.labels))
            silhouette = silhouette_score(distances, states.labels, metric="precomputed")
            notes.append(
                "Distance: Euclidean, between the whole prompts of two texts, mean over all pairs, "
                f"in units of the mean norm of a prompt. Silhouette by class: {number(silhouette)} "
                "(1: classes far apart, 0: overlapping)."
            )
        pictures.append(_attention(name, states))
    yield Section(f"Late prompt of {name}", tables, pictures, notes)


def _words(name: str, states: PromptStates) -> Table:
    """The nearest words of each slot."""
    rows = [
        {"slot": str(slot), "nearest words": ", ".join(f"{show(w)} {number(c)}" for w, c in found)}
        for slot, found in enumerate(states.words, 1)
    ]
    return Table(file_name("words", name), f"{name}: nearest words", pd.DataFrame(rows), 2)


def _spread(name: str, distances: np.ndarray, labels: np.ndarray) -> Table:
    """Mean distance of the prompts of two classes, on the diagonal within a class."""
    names = sorted(set(labels))
    rows = []
    for first in names:
        row = {"gold label": first}
        for second in names:
            found = distances[labels == first][:, labels == second]
            size = found.size - (len(found) if first == second else 0)  # without itself
            row[second] = number(found.sum() / size if size else float("nan"))
        rows.append(row)
    caption = f"{name}: mean distance of two prompts by gold label"
    return Table(file_name("spread", name), caption, pd.DataFrame(rows), 1)


def _slots(name: str, vectors: np.ndarray) -> Picture:
    """Cosine of two slots of one prompt, mean over the texts."""
    unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    cosines = np.einsum("nid,njd->ij", unit, unit) / len(unit)
    figure = Figure(figsize=(_WIDTH, 3.4))
    axes = figure.subplots()
    cells = np.vectorize("{:.2f}".format)(cosines) if len(cosines) <= 10 else None
    image = draw_matrix(axes, cosines, vmax=1, cells=cells)
    slots = range(len(cosines))
    axes.set_xticks(slots, [str(slot + 1) for slot in slots])
    axes.set_yticks(slots, [str(slot + 1) for slot in slots])
    axes.set(xlabel="slot", ylabel="slot")
    figure.colorbar(image, label="cosine")
    caption = "Cosine of two prompt vectors of a text, mean over the texts."
    return Picture(file_name("slots", name), f"Similarity of the slots: {name}", caption, figure)


def _scatter(name: str, flat: np.ndarray, labels: np.ndarray) -> Picture:
    """The prompts on their first two principal components."""
    pca = PCA(2, random_state=0)
    places, figure = pca.fit_transform(flat), Figure(figsize=(_WIDTH, 3.4))
    axes: Any = figure.subplots()
    for place, label in enumerate(sorted(set(labels))[:_MOST_CLASSES]):
        style = {"color": COLORS[place % len(COLORS)], "marker": MARKERS[place]}
        axes.scatter(*places[labels == label].T, 14, label=label[:20], alpha=0.6, **style)
    shares = [f"component {i} ({s:.0%})" for i, s in enumerate(pca.explained_variance_ratio_, 1)]
    axes.set(xlabel=shares[0], ylabel=shares[1])
    figure.legend(title="gold label", loc="outside lower center", ncols=4)
    caption = "A prompt each, on their first two principal components (share of the variance)."
    return Picture(file_name("prompts", name), f"Prompts by class: {name}", caption, figure)


def _attention(name: str, states: PromptStates) -> Picture:
    """Share of the attention that goes to the prompt, by layer and head."""
    shares = states.attention
    layers = range(states.layer, states.layer + len(shares))
    figure = Figure(figsize=(_WIDTH, 1.2 + 0.2 * len(shares)))
    axes = figure.subplots()
    image = draw_matrix(axes, shares, vmax=max(1e-9, float(shares.max())))
    step = -(-len(shares) // 12)
    axes.set_yticks(range(0, len(shares), step), [str(layer) for layer in layers][::step])
    heads = range(0, shares.shape[1], -(-shares.shape[1] // 12))
    axes.set_xticks(heads, [str(head + 1) for head in heads])
    axes.set(xlabel="head", ylabel="layer")
    figure.colorbar(image, label="share of attention")
    caption = (
        "Share of the attention of the token whose output is scored that goes to the prompt, mean "
        f"over the texts; {number(states.even)} if it attended to all tokens alike."
    )
    return Picture(
        file_name("attention", name), f"Attention to the prompt: {name}", caption, figure
    )
