"""AdamW over the trainable part, and its schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from lpt.config.schema import OptimConfig


def build_optimizer(parameters: Mapping[str, nn.Parameter], optim: OptimConfig) -> AdamW:
    """AdamW with decay on weight matrices only: not on biases, norms or free prompt vectors."""
    groups: list[dict[str, Any]] = [
        {"params": [], "weight_decay": optim.weight_decay},
        {"params": [], "weight_decay": 0.0},
    ]
    for name, parameter in parameters.items():
        is_matrix = name.endswith(".weight") and parameter.dim() > 1
        groups[0 if is_matrix else 1]["params"].append(parameter)
    return AdamW([g for g in groups if g["params"]], lr=optim.lr, eps=optim.eps)


def build_schedule(optimizer: AdamW, optim: OptimConfig, steps: int) -> LambdaLR:
    """Linear warm-up over `warmup_ratio` of the steps, then linear decay to 0 or constant."""
    warmup = int(steps * optim.warmup_ratio)

    def factor(step: int) -> float:
        if step < warmup:
            return step / warmup
        if optim.schedule == "constant":
            return 1.0
        return max(0.0, (steps - step) / max(1, steps - warmup))

    return LambdaLR(optimizer, factor)
