"""Several threads on one model: every call gets the answer of its own arguments."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from lpt.models.split import SplitModel
from tests.support.tiny import tiny_model

CALLS = 150
LAYER = 2


class Call:
    """Random arguments of one forward and backward pass."""

    def __init__(self, split: SplitModel, seed: int, *, few_shapes: bool = False) -> None:
        random = torch.Generator().manual_seed(seed)
        rows, tokens, length, scored = (
            int(torch.randint(low, high, (1,), generator=random))
            for low, high in ((1, 4), (4, 10), (1, 5), (1, 6))
        )
        if few_shapes:
            rows, length, scored = 3, 2 + length % 2, 4
        self.ids = torch.randint(5, 120, (rows, tokens), generator=random)
        self.mask = torch.ones_like(self.ids)
        self.prompt = torch.randn(rows, length, split.hidden_size, generator=random)
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


@pytest.fixture(autouse=True)
def _short_switch_interval() -> Iterator[None]:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.parametrize(
    ("family", "gradient_checkpointing"),
    [("bert", False), ("bert", True), ("deberta-v2", False), ("gpt2", False), ("llama", True)],
)
def test_two_threads_on_one_model(family: str, gradient_checkpointing: bool) -> None:
    split = SplitModel(
        tiny_model(family), LAYER, gradient_checkpointing=gradient_checkpointing
    ).eval()
    calls = [Call(split, seed) for seed in range(CALLS)]
    expected = [call.run(split) for call in calls]
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda call: call.run(split), calls))
    torch.testing.assert_close(found, expected)


@pytest.mark.slow
def test_two_threads_on_one_compiled_model() -> None:
    """One thread compiles a graph for new shapes while the other one runs."""
    split = SplitModel(tiny_model("bert", num_hidden_layers=3), LAYER, gradient_checkpointing=True)
    calls = [Call(split, seed, few_shapes=True) for seed in range(CALLS)]
    expected = [call.run(split) for call in calls]
    split.upper.compile(dynamic=True, backend="eager")  # needs no C++ compiler
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda call: call.run(split), calls))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("family", ["roberta", "llama"])
def test_reading_several_layers_beside_another_thread(family: str) -> None:
    split = SplitModel(tiny_model(family), 4)
    calls = [Call(split, seed) for seed in range(100)]
    layers = [2, 3, 4]
    expected = [split.forward_lower_layers(layers, call.ids, call.mask) for call in calls]
    with ThreadPoolExecutor(2) as threads:
        found = list(
            threads.map(lambda c: split.forward_lower_layers(layers, c.ids, c.mask), calls)
        )
    torch.testing.assert_close(found, expected)
