"""Prompt generators: from hidden states to m prompt vectors per example (paper, section 4.2).

Shapes: B rows, T tokens, m prompt vectors, D hidden size, d bottleneck.
A new generator is a class here and a line in `GENERATORS`; see docs/add-a-generator.md.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


class PromptGenerator(nn.Module):
    """Base class: `forward(hidden, summary_index, pool_length) -> prompt`.

    Args of `forward`:
        hidden: (B, T, D) hidden states in front of the prompt layer.
        summary_index: (B,) token whose hidden state summarizes the text: the first one for a masked
            model, the last context token for a causal one.
        pool_length: (B,) number of leading tokens to pool over, at least 1.

    Returns:
        (B, m, D) in the type of the generator's parameters.

    Attributes:
        reads_final_state: Whether `hidden` is instead the final state of the unprompted model at
            `summary_index`, (B, 1, D).
    """

    reads_final_state = False

    def forward(self, hidden: Tensor, summary_index: Tensor, pool_length: Tensor) -> Tensor:  # noqa: D102
        raise NotImplementedError


class Naive(PromptGenerator):
    """`npg`: p = W2 relu(W1 x) of one hidden state, with W2: d -> m D."""

    def __init__(
        self,
        hidden_size: int,
        length: int,
        bottleneck: int,
        make_linear: Callable[[int, int], Any] = nn.Linear,
    ) -> None:
        super().__init__()
        self.length = length
        self.down = make_linear(hidden_size, bottleneck)
        self.up = make_linear(bottleneck, length * hidden_size)

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


class AttentionPooling(PromptGenerator):
    """`attention`: p = W2 relu(A W1 h), where each slot is a weighted mean of tokens.

    A = softmax(W3 W1 h) over the tokens, a row for each of m slots.

    Source: self-attention pooling as in the generators of IAPT (Zhu et al., ACL 2024,
    arXiv:2405.18203). Known from its abstract; the scores are linear here, and the activation is
    that of the other generators, not a learned one.
    """

    def __init__(self, hidden_size: int, length: int, bottleneck: int) -> None:
        super().__init__()
        self.down = nn.Linear(hidden_size, bottleneck)
        self.score = nn.Linear(bottleneck, length, bias=False)
        self.up = nn.Linear(bottleneck, hidden_size)

    def forward(self, hidden: Tensor, summary_index: Tensor, pool_length: Tensor) -> Tensor:  # noqa: D102
        z = self.down(hidden.to(self.down.weight.dtype))  # (B, T, d)
        scores = self.score(z).transpose(1, 2)  # (B, m, T)
        pooled = slot_mask(pool_length, 1, hidden.shape[1])
        weights = scores.masked_fill(~pooled, torch.finfo(scores.dtype).min).softmax(-1)
        return self.up(torch.relu(torch.bmm(weights, z)))


class PHMLinear(nn.Module):
    """A linear layer whose weights are a sum of n Kronecker products, of A_i and B_i.

    A_i is (n, n), B_i (out / n, in / n): about n times fewer parameters than in x out.

    Source: parameterized hypercomplex multiplication, Zhang et al., ICLR 2021.

    Raises:
        ValueError: n does not divide both sizes.
    """

    def __init__(self, in_features: int, out_features: int, n: int) -> None:
        super().__init__()
        if in_features % n or out_features % n:
            raise ValueError(f"n = {n} does not divide {in_features} and {out_features}")
        self.rule = nn.Parameter(torch.randn(n, n, n) * n**-0.5)  # A
        self.weight = nn.Parameter(torch.empty(n, out_features // n, in_features // n))  # B
        self.bias = nn.Parameter(torch.empty(out_features))
        for parameter in (self.weight, self.bias):  # so that W starts with nn.Linear's variance
            nn.init.uniform_(parameter, -(in_features**-0.5), in_features**-0.5)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        blocks = torch.einsum("iab,icd->acbd", self.rule, self.weight)
        return linear(x, blocks.flatten(2).flatten(0, 1), self.bias)


class InstanceDependent(Naive):
    """`idpg`: p = W2 relu(W1 x) of the model's own sentence state x, with PHM layers.

    Args:
        hidden_size: D.
        length: m.
        bottleneck: d.
        n: Number of Kronecker products in a layer; divides D and d.

    Source: S-IDPG-PHM, Wu et al., NAACL 2022, where the prompt enters at the input. Rules A_i of
    each layer and their initial values are ours.
    """

    reads_final_state = True

    def __init__(self, hidden_size: int, length: int, bottleneck: int, *, n: int) -> None:
        super().__init__(hidden_size, length, bottleneck, partial(PHMLinear, n=n))


class Inception(PromptGenerator):
    """`inception`: p = s + sum over k of W2_k relu(W1_k s), of m free vectors s.

    Args:
        hidden_size: D.
        length: m.
        bottleneck: d, the width of the first branch.
        init: (m, D) initial values of s; None: N(0, 0.02).
        branches: Number of branches; each is half as wide as the one before it.

    Source: LIPT (He et al., Electronics 13(23), 2024): three bottlenecks of different sizes, added
    to the initial prompt. Known from its abstract and overview; the widths are ours.
    """

    def __init__(
        self,
        hidden_size: int,
        length: int,
        bottleneck: int,
        init: Tensor | None = None,
        *,
        branches: int,
    ) -> None:
        super().__init__()
        widths = [bottleneck >> k for k in range(branches)]
        if branches < 1 or widths[-1] < 1:
            raise ValueError(f"{branches} branches with a bottleneck of {bottleneck}")
        self.start = Static(hidden_size, length, init)
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Linear(hidden_size, d), nn.ReLU(), nn.Linear(d, hidden_size))
            for d in widths
        )

    def forward(self, hidden: Tensor, summary_index: Tensor, pool_length: Tensor) -> Tensor:  # noqa: D102
        start = self.start.vectors
        prompt = start + sum(branch(start) for branch in self.branches)
        return prompt.expand(hidden.shape[0], -1, -1)


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


GENERATORS: Mapping[str, Callable[..., PromptGenerator]] = MappingProxyType(
    {
        "npg": Naive,
        "mppg": lambda d, m, b: Pooling(d, m, b, reduce="max"),
        "appg": lambda d, m, b: Pooling(d, m, b, reduce="mean"),
        "attention": AttentionPooling,
        "inception": Inception,
        "idpg": InstanceDependent,
    }
)


def generator_args(kind: str) -> dict[str, type]:
    """Hyperparameters of a generator's own and their types: its keyword-only arguments."""
    if kind not in GENERATORS:
        return {}
    parameters = inspect.signature(GENERATORS[kind], eval_str=True).parameters.values()
    return {p.name: p.annotation for p in parameters if p.kind is p.KEYWORD_ONLY}


def build_generator(
    kind: str,
    *,
    hidden_size: int,
    length: int,
    bottleneck: int | None,
    init: Tensor | None = None,
    args: Mapping[str, Any] = MappingProxyType({}),
) -> PromptGenerator:
    """A new generator.

    Args:
        kind: `static` or a name in `GENERATORS`.
        hidden_size: D.
        length: m.
        bottleneck: d; None for a static prompt.
        init: (m, D) initial values of free vectors; None: random.
        args: Further arguments of the generator, see `generator_args`.

    Raises:
        ValueError: Unknown kind, a generator without a bottleneck, or sizes that do not fit.
    """
    if kind == "static":
        return Static(hidden_size, length, init)
    if kind not in GENERATORS or bottleneck is None:
        raise ValueError(f"no generator {kind!r} with bottleneck {bottleneck}")
    start = {} if init is None else {"init": init}
    return GENERATORS[kind](hidden_size, length, bottleneck, **start, **args)
