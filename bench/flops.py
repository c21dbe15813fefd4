"""Floating-point operations of a training step, by method.

Counted: the matrix products of the layers and of the head, 2 operations per multiply-add. A layer
of width D has 12 D^2 weights; attention over rows of S tokens takes 4 S D operations per token.
"""

from __future__ import annotations

from dataclasses import dataclass

_PROJECTION = 2  # operations per token and D^2
_ATTENTION = 4 * _PROJECTION  # query, key, value, output
_FEED_FORWARD = 16  # D to 4 D and back


@dataclass(frozen=True)
class Shape:
    """Sizes of a model.

    Attributes:
        layers: Depth L.
        width: Hidden size D.
        vocabulary: Size V.
    """

    layers: int
    width: int
    vocabulary: int

    def step(
        self, method: str, rows: int, tokens: int, *, layer: int, prompt: int, cached: bool
    ) -> float:
        """Operations of one training step on a batch.

        Args:
            method: `full`, `lora` or `prompt`.
            rows: Rows of the batch, one logit position each.
            tokens: Tokens per row, padding included.
            layer: First layer that sees the prompt.
            prompt: Prompt vectors.
            cached: Whether the hidden states in front of `layer` are precomputed.
        """
        # Forward once; backward once for the activations and once for the weights that train.
        passes = 3 if method == "full" else 2
        if method != "prompt":
            attention = 3 / passes
            work = self._layers(self.layers, rows, tokens, attention=attention)
            return passes * (work + self._head(rows))
        lower = 0.0 if cached else self._layers(layer - 1, rows, tokens, attention=1.0)
        upper = self._layers(self.layers - layer + 1, rows, tokens + prompt, attention=1.5)
        # Of the last layer only keys and values are computed for more than the scored positions;
        # of the first one, queries, keys and values of the text have no backward pass.
        unscored = rows * (tokens + prompt - 1)
        saved = passes * unscored * (_ATTENTION - 2 * _PROJECTION + _FEED_FORWARD)
        few_queries = layer == self.layers
        saved += rows * tokens * (2 if few_queries else 3) * _PROJECTION
        return lower + passes * (upper + self._head(rows)) - saved * self.width**2

    def _layers(self, layers: int, rows: int, tokens: int, *, attention: float) -> float:
        """A pass through some layers; the backward pass has the attention products twice."""
        linear = (_ATTENTION + _FEED_FORWARD) * self.width**2
        return layers * rows * tokens * (linear + attention * 4 * tokens * self.width)

    def _head(self, positions: int) -> float:
        """Operations of the head: transform and output layer."""
        return 2.0 * positions * self.width * (self.width + self.vocabulary)
