"""How many floating-point operations a training step has to do, by method.

Counted: the matrix products of the layers and of the head, 2 operations per multiply-add. A layer
of width D has 12 D^2 weights; attention over rows of S tokens takes 4 S D operations a token.
"""

from __future__ import annotations

from dataclasses import dataclass


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

    def forward(self, layers: int, rows: int, tokens: int) -> float:
        """Forward pass of some layers over rows of that many tokens."""
        linear, attention = self._a_token(tokens)
        return layers * rows * tokens * (linear + attention)

    def backward(self, layers: int, rows: int, tokens: int, *, weights: bool) -> float:
        """Backward pass: gradients of the activations and, if asked for, of the weights."""
        linear, attention = self._a_token(tokens)
        return layers * rows * tokens * (linear * (2 if weights else 1) + 2 * attention)

    def head(self, positions: int, *, weights: bool) -> float:
        """Transform and output layer at the scored positions, forward and backward."""
        once = 2 * positions * self.width * (self.width + self.vocabulary)
        return once * (3 if weights else 2)

    def _a_token(self, tokens: int) -> tuple[float, float]:
        return 24 * self.width**2, 4 * tokens * self.width

    def step(
        self, method: str, rows: int, tokens: int, *, layer: int, prompt: int, cached: bool
    ) -> float:
        """One training step on a batch of that many rows and (padded) tokens a row.

        Args:
            method: `full`, `lora` or `prompt` (one that enters at `layer`).
            rows: Rows of the batch.
            tokens: Tokens a row.
            layer: First layer that sees the prompt.
            prompt: Prompt vectors.
            cached: Whether what is below `layer` is known.
        """
        full = method == "full"
        if method in ("full", "lora"):
            above = self.forward(self.layers, rows, tokens)
            above += self.backward(self.layers, rows, tokens, weights=full)
            return above + self.head(rows, weights=full)
        upper = self.layers - layer + 1
        below = 0.0 if cached else self.forward(layer - 1, rows, tokens)
        above = self.forward(upper, rows, tokens + prompt)
        above += self.backward(upper, rows, tokens + prompt, weights=False)
        return below + above + self.head(rows, weights=False)
