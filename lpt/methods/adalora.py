"""AdaLoRA (Zhang et al., 2023): low-rank updates whose ranks are allocated while they train.

The modules and the rank allocator are PEFT's. An update is B diag(E) A; each starts with one and a
half times the rank r, the budget of all of them falls until they have r on average, and entries of
E beyond the budget are set to zero after each step.

Shapes: k rank of one update, D its inputs and outputs; A (k, D), B (D, k), E (k, 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from peft.tuners.adalora import AdaLoraConfig, RankAllocator
from torch import Tensor, nn

from lpt.methods.peft_methods import PeftMethod
from lpt.models.split import SplitModel

# Shares of the steps: before the budget falls, and after it has fallen.
_WARMUP, _FINAL = 0.1, 0.5
_AVERAGES = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # the allocator's, of sensitivity and uncertainty


class AdaLora(PeftMethod):
    """A language model with AdaLoRA in its upper layers, and the allocator of their ranks."""

    peft_config: AdaLoraConfig

    def __init__(
        self,
        split: SplitModel,
        trainable: Mapping[str, nn.Parameter],
        tensors: Mapping[str, Tensor],
        peft_config: AdaLoraConfig,
    ) -> None:
        super().__init__(split, trainable, tensors, peft_config)
        self.allocator = RankAllocator(_Updates(trainable), peft_config, "default")
        self.rank_pattern: dict[str, list[bool]] = {}

    def start_training(self, total_steps: int) -> None:
        """Fix when the budget falls; the first allocation needs a step before it."""
        config = self.peft_config
        config.total_step = max(total_steps, 2)
        config.tinit = int(_WARMUP * total_steps)
        config.tfinal = min(int(_FINAL * total_steps), config.total_step - 2)

    def after_step(self, step: int) -> None:
        """Allocate the budget of this step; see `AdaLoraModel.update_and_allocate` in PEFT."""
        config, updates = self.peft_config, _Updates(self.trainable())
        last = config.total_step - config.tfinal
        if step <= last:
            final = step == last
            _, pattern = self.allocator.update_and_allocate(updates, step, force_mask=final)
            self.rank_pattern = pattern or self.rank_pattern
            if final:
                self.allocator.reset_ipt()
        else:
            self.allocator.mask_using_rank_pattern(updates, self.rank_pattern)

    def regularization(self) -> Tensor:
        """Mean distance of A A' and B' B from the identity, times `orth_reg_weight`."""
        distances = [
            torch.linalg.norm(_product(name, p) - torch.eye(min(p.shape), device=p.device))
            for name, p in self.trainable().items()
            if "lora_E" not in name
        ]
        return self.peft_config.orth_reg_weight * torch.stack(distances).mean()

    def training_state(self) -> dict[str, Any]:
        """Averages and ranks of the allocator."""
        averages = {name: getattr(self.allocator, name) for name in _AVERAGES}
        return {**averages, "rank_pattern": self.rank_pattern}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Go on with the averages and ranks of a checkpoint."""
        trainable = self.trainable()
        for average in _AVERAGES:
            on_device = {key: t.to(trainable[key].device) for key, t in state[average].items()}
            setattr(self.allocator, average, on_device)
        self.rank_pattern = dict(state["rank_pattern"])


class _Updates:
    """What the allocator sees of the model."""

    def __init__(self, trainable: Mapping[str, nn.Parameter]) -> None:
        self._trainable = trainable

    def named_parameters(self) -> list[tuple[str, nn.Parameter]]:
        return list(self._trainable.items())


def _product(name: str, parameter: Tensor) -> Tensor:
    return parameter @ parameter.T if "lora_A" in name else parameter.T @ parameter
