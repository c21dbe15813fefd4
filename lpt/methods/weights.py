"""Methods that train weights of the language model itself: `full` fine-tuning and `bitfit`.

Source: BitFit, Ben Zaken et al., 2022.
"""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

from lpt.models.families import layer_paths


def all_weights(model: PreTrainedModel, layer: int) -> dict[str, nn.Parameter]:
    """Every parameter of the layers from `layer` on; at layer 1, of the whole model."""
    return _from_layer(model, layer)


def biases(model: PreTrainedModel, layer: int) -> dict[str, nn.Parameter]:
    """Biases of the layers from `layer` on; at layer 1, of the whole model.

    The bias of the head over the vocabulary is not trained: it is a prior over words.
    """
    size = model.config.vocab_size
    return {
        name: parameter
        for name, parameter in _from_layer(model, layer).items()
        if name.endswith("bias") and parameter.numel() != size
    }


def _from_layer(model: PreTrainedModel, layer: int) -> dict[str, nn.Parameter]:
    prefixes = ("",) if layer == 1 else tuple(f"{path}." for path in layer_paths(model, layer))
    return {name: p for name, p in model.named_parameters() if name.startswith(prefixes)}
