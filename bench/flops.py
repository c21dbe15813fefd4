"""How many floating-point operations a training step has to do, by method.

Counted: the matrix products of the layers and of the head, 2 operations per multiply-add. A layer
of width D has 12 D^2 weights; attention over rows of S tokens takes 4 S D operations a token.
"""

from __future__ import annotations

from dataclasses import dataclass

_PROJECTION = 2  # operations a token and D^2
_ATTENTION = 4 * _PROJECTION  # query, key, value, output
_FEED_FORWARD = 16  # D to 4 D and back


@dataclass(frozen=True)
class Shape:
    """What the operations depend on.

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
        """One training step on a batch of that many rows and (padded) tokens a row.

        Args:
            method: `full`, `lora` or `prompt` (one that enters at `layer`).
            rows: Rows of the batch, one scored position each.
            tokens: Tokens a row.
            layer: First layer that sees the prompt.
            prompt: Prompt vectors.
            cached: Whether what is below `layer` is known.
        """
        # Forward once; backward once for the activations and once for the weights that train.
        passes = 3 if method == "full" else 2
        if method != "prompt":
            attention = 3 / passes
            work = self._layers(self.layers, rows, tokens, attention=attention)
            return passes * (work + self._head(rows))
        below = 0.0 if cached else self._layers(layer - 1, rows, tokens, attention=1.0)
        upper = self._layers(self.layers - layer + 1, rows, tokens + prompt, attention=1.5)
        # Of the last layer only keys and values are computed for more than the scored positions;
        # of the first one, queries, keys and values of the text have no backward pass.
        unscored = rows * (tokens + prompt - 1)
        spared = passes * unscored * (_ATTENTION - 2 * _PROJECTION + _FEED_FORWARD)
        few_queries = layer == self.layers
        spared += rows * tokens * (2 if few_queries else 3) * _PROJECTION
        return below + passes * (upper + self._head(rows)) - spared * self.width**2

    def _layers(self, layers: int, rows: int, tokens: int, *, attention: float) -> float:
        """A pass through some layers; the attention's products are done twice in the backward."""
        linear = (_ATTENTION + _FEED_FORWARD) * self.width**2
        return layers * rows * tokens * (linear + attention * 4 * tokens * self.width)

    def _head(self, positions: int) -> float:
        """Transform and output layer."""
        return 2.0 * positions * self.width * (self.width + self.vocabulary)
