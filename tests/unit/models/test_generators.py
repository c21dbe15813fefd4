"""The prompt generators against plain per-example computations."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lpt.models.generators import (
    AttentionPooling,
    Inception,
    PHMLinear,
    Pooling,
    Static,
    build_generator,
)

D, M, BOTTLENECK = 16, 3, 5


@pytest.mark.parametrize(
    ("kind", "count", "args"),
    [
        ("npg", 791_680, {}),
        ("mppg", 263_296, {}),
        ("appg", 263_296, {}),
        ("static", 5120, {}),
        ("attention", 263_296 + 128 * 5, {}),
        (
            "inception",
            5120 + 2 * 1024 * (128 + 64 + 32) + 3 * 1024 + 128 + 64 + 32,
            {"branches": 3},
        ),
        ("idpg", 2 * 8**3 + 128 * (1024 + 5120) // 8 + 128 + 5120, {"n": 8}),
    ],
)
def test_size_of_the_paper_shape_and_type(kind: str, count: int, args: dict[str, int]) -> None:
    generator = build_generator(kind, hidden_size=1024, length=5, bottleneck=128, args=args)
    assert sum(p.numel() for p in generator.parameters()) == count
    hidden = torch.randn(4, 7, 1024, dtype=torch.bfloat16)
    prompt = generator(hidden, torch.zeros(4, dtype=torch.long), torch.full((4,), 7))
    assert prompt.shape == (4, 5, 1024)
    assert prompt.dtype == torch.float32


def test_naive_reads_its_token_only() -> None:
    torch.manual_seed(0)  # so that some hidden units are active
    generator = build_generator("npg", hidden_size=D, length=M, bottleneck=BOTTLENECK)
    hidden, summary_index = torch.randn(2, 6, D), torch.tensor([0, 4])
    prompt = generator(hidden, summary_index, torch.tensor([6, 6]))
    changed = hidden.clone()
    changed[0, 1:] += 1
    changed[1, :4] += 1
    changed[1, 5:] += 1
    assert torch.equal(generator(changed, summary_index, torch.tensor([6, 6])), prompt)
    changed[0, 0] += 1
    assert not torch.equal(generator(changed, summary_index, torch.tensor([6, 6]))[0], prompt[0])


@pytest.mark.parametrize(
    ("kind", "pool"), [("mppg", nn.AdaptiveMaxPool1d), ("appg", nn.AdaptiveAvgPool1d)]
)
@pytest.mark.parametrize("length", [1, 2, 3, 5, 8])
def test_pooling_equals_the_loop_over_examples(
    kind: str, pool: type[nn.Module], length: int
) -> None:
    generator = build_generator(kind, hidden_size=D, length=length, bottleneck=BOTTLENECK)
    assert isinstance(generator, Pooling)
    lengths = [19, 1, 4, 7, 8, 2, 11]
    hidden = torch.randn(len(lengths), max(lengths), D)
    prompt = generator(hidden, torch.zeros(len(lengths), dtype=torch.long), torch.tensor(lengths))
    for row, n in enumerate(lengths):
        pooled = pool(length)(generator.down(hidden[row, :n]).T).T
        torch.testing.assert_close(prompt[row], generator.up(torch.relu(pooled)))


def test_static_is_the_same_for_every_example() -> None:
    start = torch.randn(M, D)
    generator = Static(D, M, start)
    prompt = generator(torch.randn(4, 2, D), torch.zeros(4), torch.ones(4))
    assert all(torch.equal(row, start) for row in prompt)
    start += 1
    assert not torch.equal(generator.vectors, start)  # a copy, not the caller's tensor


def test_attention_equals_the_loop_over_examples() -> None:
    generator = build_generator("attention", hidden_size=D, length=M, bottleneck=BOTTLENECK)
    assert isinstance(generator, AttentionPooling)
    lengths = [7, 1, 4]
    hidden = torch.randn(len(lengths), max(lengths), D)
    prompt = generator(hidden, torch.zeros(3, dtype=torch.long), torch.tensor(lengths))
    for row, n in enumerate(lengths):
        z = generator.down(hidden[row, :n])
        weights = generator.score(z).softmax(0)  # over the tokens
        pooled = torch.stack([(weights[:, j, None] * z).sum(0) for j in range(M)])
        torch.testing.assert_close(prompt[row], generator.up(torch.relu(pooled)))


def test_inception_adds_branches_of_shrinking_widths_to_its_start() -> None:
    start = torch.randn(M, D)
    generator = Inception(D, M, 8, start, branches=3)
    branches = list(generator.branches)
    assert [branch[0].out_features for branch in branches] == [8, 4, 2]
    prompt = generator(torch.randn(4, 2, D), torch.zeros(4), torch.ones(4))
    expected = start + branches[0](start) + branches[1](start) + branches[2](start)
    assert all(torch.equal(row, prompt[0]) for row in prompt)
    torch.testing.assert_close(prompt[0], expected)
    with pytest.raises(ValueError, match="4 branches"):
        Inception(D, M, 7, branches=4)


def test_phm_layer_is_a_sum_of_kronecker_products() -> None:
    layer, x = PHMLinear(8, 12, n=4), torch.randn(5, 8)
    weight = sum(torch.kron(layer.rule[i], layer.weight[i]) for i in range(4))
    torch.testing.assert_close(layer(x), nn.functional.linear(x, weight, layer.bias))
    wide = PHMLinear(512, 512, n=16)
    spread = (wide(torch.eye(512)) - wide.bias).std().item()
    assert spread == pytest.approx(nn.Linear(512, 512).weight.std().item(), rel=0.1)
    with pytest.raises(ValueError, match="does not divide"):
        PHMLinear(8, 10, n=4)
