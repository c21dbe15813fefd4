"""AdamW over the trainable part, and its schedule."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR


def build_optimizer(
    parameters: Mapping[str, nn.Parameter], *, lr: float, weight_decay: float, eps: float
) -> AdamW:
    """AdamW with decay on weight matrices only: not on biases, norms or free prompt vectors."""
    decayed = [p for name, p in parameters.items() if name.endswith(".weight") and p.dim() > 1]
    kept = {id(p) for p in decayed}
    rest = [p for p in parameters.values() if id(p) not in kept]
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    return AdamW([g for g in groups if g["params"]], lr=lr, eps=eps)


def build_schedule(optimizer: AdamW, *, steps: int, warmup_ratio: float, schedule: str) -> LambdaLR:
    """Linear warm-up over `warmup_ratio` of the steps, then linear decay to 0 or constant."""
    warmup = int(steps * warmup_ratio)

    def factor(step: int) -> float:
        if step < warmup:
            return step / warmup
        if schedule == "constant":
            return 1.0
        return max(0.0, (steps - step) / max(1, steps - warmup))

    return LambdaLR(optimizer, factor)
