"""Several threads on one model: every call gets the answer of its own arguments."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from lpt.models.split import SplitModel
from tests.support.tiny import tiny_model

CALLS = 150
HIDDEN = 32


class Call:
    """Random arguments of one forward and backward pass."""

    def __init__(self, seed: int, *, few_shapes: bool = False) -> None:
        random = torch.Generator().manual_seed(seed)
        rows, tokens, length, scored = (
            int(torch.randint(low, high, (1,), generator=random))
            for low, high in ((1, 4), (4, 10), (1, 5), (1, 6))
        )
        if few_shapes:
            rows, length, scored = 3, 2 + length % 2, 4
        self.ids = torch.randint(5, 120, (rows, tokens), generator=random)
        self.mask = torch.ones_like(self.ids)
        self.prompt = torch.randn(rows, length, HIDDEN, generator=random)
        self.whole = seed % 5 == 0 and not few_shapes
        flat = torch.randperm(rows * tokens, generator=random)[:scored]
        self.positions = (flat // tokens, flat % tokens)

    def run(self, split: SplitModel) -> tuple[Tensor, Tensor]:
        """Final hidden states, and the gradient of the prompt."""
        prompt = self.prompt.clone().requires_grad_()
        hidden = split.forward_lower(self.ids, self.mask)
        positions = None if self.whole else self.positions
        final = split.forward_upper(hidden, self.mask, prompt, None, positions)
        (final * torch.arange(final.shape[-1])).sum().backward()
        assert prompt.grad is not None
        return final.detach(), prompt.grad


def check(work: Callable[[Call], Any], expected: list[Any], calls: list[Call]) -> None:
    """Two threads, which take turns as often as can be, get the expected results."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(2) as threads:
            torch.testing.assert_close(list(threads.map(work, calls)), expected)
    finally:
        sys.setswitchinterval(usual)


@pytest.mark.parametrize(
    ("family", "gradient_checkpointing"),
    [("bert", False), ("bert", True), ("deberta-v2", False), ("gpt2", False), ("llama", True)],
)
def test_training(family: str, gradient_checkpointing: bool) -> None:
    split = SplitModel(tiny_model(family), 2, gradient_checkpointing=gradient_checkpointing).eval()
    calls = [Call(seed) for seed in range(CALLS)]
    check(lambda call: call.run(split), [call.run(split) for call in calls], calls)


@pytest.mark.slow
def test_training_a_compiled_model() -> None:
    """One thread compiles a graph for new shapes while the other one runs."""
    split = SplitModel(tiny_model("bert", num_hidden_layers=3), 2, gradient_checkpointing=True)
    calls = [Call(seed, few_shapes=True) for seed in range(CALLS)]
    expected = [call.run(split) for call in calls]
    split.upper.compile(dynamic=True, backend="eager")  # needs no C++ compiler
    check(lambda call: call.run(split), expected, calls)


@pytest.mark.parametrize("family", ["roberta", "llama"])
def test_reading_several_layers(family: str) -> None:
    split = SplitModel(tiny_model(family), 4)

    def read(call: Call) -> dict[int, Tensor]:
        return split.forward_lower_layers([2, 3, 4], call.ids, call.mask)

    calls = [Call(seed) for seed in range(CALLS)]
    check(read, list(map(read, calls)), calls)
