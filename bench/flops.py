"""Floating-point operations of a training step, counted by torch on a model without weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from numpy.polynomial import Polynomial
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from bench.synthetic import make_batch
from lpt.models.inputs import Batch

_TOKENS = (8, 16, 32)

Loss = Callable[[Batch], Tensor]


class StepWork:
    """Operations of one training step as a function of the size of its batch.

    The products are linear in the rows; in the tokens of a row, those of attention are quadratic.

    Args:
        loss: Loss of a batch, one logit position in each row; its model is on the meta device and
            has eager attention, whose products torch counts.
        width: D, if the hidden states in front of the method are precomputed; otherwise None.
    """

    def __init__(self, loss: Loss, width: int | None) -> None:
        counted = []
        for tokens in _TOKENS:
            # Fake tensors: transformers looks into a mask of any other kind.
            with FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False) as flop:
                batch = make_batch(1, tokens, "meta")
                if width is not None:
                    batch = batch._replace(hidden=torch.empty(1, tokens, width, device="meta"))
                loss(batch).backward()
            counted.append(flop.get_total_flops())
        self._per_row = Polynomial.fit(_TOKENS, counted, 2)

    def __call__(self, rows: int, tokens: int) -> float:
        """Operations of a step on a batch, padding included."""
        return rows * float(self._per_row(tokens))
