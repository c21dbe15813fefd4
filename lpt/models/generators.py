"""Prompt generators: from hidden states to m prompt vectors per example (paper, section 4.2).

Shapes: B rows, T tokens, m prompt vectors, D hidden size, d bottleneck.
A new generator is a class here and a line in `GENERATORS`; see docs/add-a-generator.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn


class PromptGenerator(nn.Module):
    """Base class: `forward(hidden, summary_index, pool_length) -> prompt`.

    Args of `forward`:
        hidden: (B, T, D) hidden states in front of the prompt layer.
        summary_index: (B,) token whose hidden state summarizes the text: the first one for a masked
            model, the last context token for a causal one.
        pool_length: (B,) number of leading tokens to pool over, at least 1.

    Returns:
        (B, m, D) in the type of the generator's parameters.
    """

    def forward(self, hidden: Tensor, summary_index: Tensor, pool_length: Tensor) -> Tensor:  # noqa: D102
        raise NotImplementedError


class Naive(PromptGenerator):
    """`npg`: p = W2 relu(W1 x) of one hidden state, with W2: d -> m D."""

    def __init__(self, hidden_size: int, length: int, bottleneck: int) -> None:
        super().__init__()
        self.length = length
        self.down = nn.Linear(hidden_size, bottleneck)
        self.up = nn.Linear(bottleneck, length * hidden_size)

    def forward(self, hidden: Tensor, summary_index: Tensor, pool_length: Tensor) -> Tensor:  # noqa: D102
        rows = torch.arange(hidden.shape[0], device=hidden.device)
        x = hidden[rows, summary_index].to(self.down.weight.dtype)
        return self.up(torch.relu(self.down(x))).unflatten(-1, (self.length, -1))


class Pooling(PromptGenerator):
    """`mppg`, `appg`: p = W2 relu(pool(W1 h)), with adaptive pooling over the tokens to m slots.

    Slot j covers tokens floor(j n / m) .. ceil((j + 1) n / m) of the n pooled ones.
    """

    def __init__(self, hidden_size: int, length: int, bottleneck: int, *, reduce: str) -> None:
        super().__init__()
        assert reduce in ("max", "mean")
        self.length = length
        self.reduce = reduce
        self.down = nn.Linear(hidden_size, bottleneck)
        self.up = nn.Linear(bottleneck, hidden_size)

    def forward(self, hidden: Tensor, summary_index: Tensor, pool_length: Tensor) -> Tensor:  # noqa: D102
        z = self.down(hidden.to(self.down.weight.dtype))
        slots = slot_mask(pool_length, self.length, hidden.shape[1])
        if self.reduce == "mean":
            weights = slots.to(z.dtype)
            pooled = torch.bmm(weights / weights.sum(-1, keepdim=True), z)
        else:
            # One slot at a time keeps memory at (B, T, d) instead of (B, m, T, d).
            low = torch.finfo(z.dtype).min
            per_slot = [
                z.masked_fill(~slots[:, j, :, None], low).amax(1) for j in range(self.length)
            ]
            pooled = torch.stack(per_slot, dim=1)
        return self.up(torch.relu(pooled))


class Static(PromptGenerator):
    """`static`: m free vectors, the same for every example; at layer 1, classic prompt tuning.

    Args:
        hidden_size: D.
        length: m.
        init: (m, D) initial values; None: N(0, 0.02).
    """

    def __init__(self, hidden_size: int, length: int, init: Tensor | None = None) -> None:
        super().__init__()
        if init is None:
            init = torch.randn(length, hidden_size) * 0.02
        self.vectors = nn.Parameter(init.float().clone())

    def forward(self, hidden: Tensor, summary_index: Tensor, pool_length: Tensor) -> Tensor:  # noqa: D102
        return self.vectors.expand(hidden.shape[0], -1, -1)


def slot_mask(pool_length: Tensor, slots: int, tokens: int) -> Tensor:
    """Tokens that each slot of the adaptive pooling covers: (B,) -> bool (B, slots, tokens)."""
    n = pool_length[:, None, None]
    j = torch.arange(slots, device=n.device)[None, :, None]
    t = torch.arange(tokens, device=n.device)[None, None, :]
    start = j * n // slots
    end = ((j + 1) * n + slots - 1) // slots
    return (start <= t) & (t < end)


GENERATORS: Mapping[str, Callable[[int, int, int], PromptGenerator]] = MappingProxyType(
    {
        "npg": Naive,
        "mppg": lambda d, m, b: Pooling(d, m, b, reduce="max"),
        "appg": lambda d, m, b: Pooling(d, m, b, reduce="mean"),
    }
)


def build_generator(
    kind: str, *, hidden_size: int, length: int, bottleneck: int | None, init: Tensor | None = None
) -> PromptGenerator:
    """A new generator.

    Args:
        kind: `static` or a name in `GENERATORS`.
        hidden_size: D.
        length: m.
        bottleneck: d; None for a static prompt.
        init: (m, D) initial values of a static prompt; None: random.

    Raises:
        ValueError: Unknown kind, or a generator without a bottleneck.
    """
    if kind == "static":
        return Static(hidden_size, length, init)
    if kind not in GENERATORS or bottleneck is None:
        raise ValueError(f"no generator {kind!r} with bottleneck {bottleneck}")
    return GENERATORS[kind](hidden_size, length, bottleneck)
