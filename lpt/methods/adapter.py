"""Bottleneck adapters (Houlsby et al., 2019; Pfeiffer et al., 2021).

In the upper layers only they are AdapterDrop (Rücklé et al., 2021).

Shapes: (..., D) hidden states, d bottleneck.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lpt.models.families import get_family, layer_paths


class Bottleneck(nn.Module):
    """W2 relu(W1 x); W2 starts at zero."""

    def __init__(self, hidden_size: int, bottleneck: int) -> None:
        super().__init__()
        self.down = nn.Linear(hidden_size, bottleneck)
        self.up = nn.Linear(bottleneck, hidden_size)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden: Tensor) -> Tensor:  # noqa: D102
        return self.up(torch.relu(self.down(hidden.to(self.down.weight.dtype))))


class Adapted(nn.Module):
    """A module with a bottleneck adapter and a residual connection behind it.

    At the start of the training the adapter adds nothing.
    """

    def __init__(self, module: nn.Module, hidden_size: int, bottleneck: int) -> None:
        super().__init__()
        self.module = module
        self.adapter = Bottleneck(hidden_size, bottleneck)

    def forward(self, hidden: Tensor) -> Tensor:  # noqa: D102
        out = self.module(hidden)
        return out + self.adapter(out).to(out.dtype)


def insert_adapters(
    model: PreTrainedModel, layer: int, *, bottleneck: int, placement: str
) -> dict[str, nn.Parameter]:
    """Put adapters into the layers from `layer` on; returns their parameters by name.

    Args:
        model: The language model, which is changed.
        layer: First layer with adapters, 1-based.
        bottleneck: d.
        placement: `houlsby`, behind attention and feed-forward part, or `pfeiffer`, behind the
            feed-forward part only; both before the residual connection.
    """
    outputs = get_family(model.config.model_type).sublayer_outputs
    added = {}
    for layer_path in layer_paths(model, layer):
        for output in outputs if placement == "houlsby" else outputs[-1:]:
            path = f"{layer_path}.{output}"
            adapted = Adapted(model.get_submodule(path), model.config.hidden_size, bottleneck)
            model.set_submodule(path, adapted)
            for name, parameter in adapted.adapter.named_parameters():
                added[f"{path}.adapter.{name}"] = parameter
    return added
