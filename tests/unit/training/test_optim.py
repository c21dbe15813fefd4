"""What decays, and how the learning rate moves."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lpt.config.schema import OptimConfig
from lpt.models.generators import build_generator
from lpt.training.module import build_optimizer, build_schedule


def optimizer(parameters: dict[str, nn.Parameter]) -> torch.optim.AdamW:
    return build_optimizer(parameters, OptimConfig(lr=1.0, weight_decay=0.1))


@pytest.mark.parametrize(
    ("kind", "decayed"),
    [
        ("npg", {"down.weight", "up.weight"}),
        ("appg", {"down.weight", "up.weight"}),
        ("static", set()),
    ],
)
def test_weight_decay_is_for_weight_matrices(kind: str, decayed: set[str]) -> None:
    generator = build_generator(kind, hidden_size=8, length=2, bottleneck=3)
    parameters = dict(generator.named_parameters())
    parameters["norm.weight"] = nn.Parameter(torch.ones(8))
    names = {id(p): name for name, p in parameters.items()}
    groups = {
        names[id(p)]: group["weight_decay"]
        for group in optimizer(parameters).param_groups
        for p in group["params"]
    }
    assert {name for name, decay in groups.items() if decay == 0.1} == decayed
    assert set(groups) == set(parameters)


@pytest.mark.parametrize(
    ("schedule", "warmup_ratio", "expected"),
    [
        ("linear", 0.2, [0, 0.5, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        ("constant", 0.2, [0, 0.5, 1, 1, 1, 1, 1, 1, 1, 1]),
        ("constant", 0.0, [1] * 10),
    ],
)
def test_schedule(schedule: str, warmup_ratio: float, expected: list[float]) -> None:
    adam = optimizer({"w.weight": nn.Parameter(torch.ones(2, 2))})
    optim = OptimConfig(lr=1.0, warmup_ratio=warmup_ratio, schedule=schedule)
    scheduler = build_schedule(adam, optim, steps=10)
    rates = []
    for _ in range(10):
        rates.append(adam.param_groups[0]["lr"])
        adam.step()
        scheduler.step()
    assert rates == pytest.approx(expected)
