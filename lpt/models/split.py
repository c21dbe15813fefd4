"""A frozen transformers model cut in two at a layer, without copied modeling code.

Each part is a *view* of the model: a shallow copy with its own table of submodules, sharing every
parameter with the original. Masks, rotary and relative positions come from transformers' own
forward of each view.

Shapes: B rows, T tokens, m prompt vectors, D hidden size, N scored positions, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from lpt.models.families import Family, get_family


class PassThrough(nn.Module):
    """Stands for a module whose work is already done: returns the hidden states it is handed."""

    def forward(self, hidden: Tensor | None = None, **inputs: Any) -> Tensor:  # noqa: D102
        out = inputs.get("inputs_embeds") if hidden is None else hidden
        assert out is not None
        return out


class NoPositions(nn.Module):
    """Stands for position embeddings that were added before the cut."""

    def forward(self, reference: Tensor, *_: Any, **__: Any) -> Tensor:  # noqa: D102
        # 0-dimensional, so that it broadcasts and does not change the type of what it is added to.
        return reference.new_zeros(())


class _EmptyLayer(nn.Module):
    """Keeps a stack without layers callable: some encoders need at least one pass of their loop."""

    def forward(self, hidden: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        return hidden, None


class _Given(nn.Module):
    """Stands for the stack when only the head is to run: its output is its input."""

    def __init__(self, embeddings: nn.Module | None) -> None:
        super().__init__()
        self.embeddings = embeddings  # where DeBERTa's head looks up the tied word embeddings

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> Any:
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=inputs_embeds)


class SplitModel(nn.Module):
    """A frozen language model as `below` (layers 1..l-1), `above` (layers l..L) and `head`.

    Args:
        model: A transformers model with a (masked-)LM head. It is frozen and put in eval mode, and
            otherwise left as it is.
        layer: l, 1-based: the first layer of `above`.

    Raises:
        ConfigError: The model's family is not supported.
        ValueError: `layer` is outside 1..L.

    Source: paper section 4.1; reference release's `add_prompt_layer` is `layer - 1`.
    """

    def __init__(self, model: PreTrainedModel, layer: int) -> None:
        super().__init__()
        self.family = get_family(model.config.model_type)
        self.config = model.config
        self.layer = layer
        base = model.base_model
        layers = base.get_submodule(self.family.layers)
        assert isinstance(layers, nn.ModuleList)
        if not 1 <= layer <= len(layers):
            raise ValueError(f"layer {layer} is outside 1..{len(layers)}")
        model.requires_grad_(False).eval()
        self.below: PreTrainedModel | None = _below(base, self.family, layer)
        self.above = _above(base, self.family, layer)
        self.head = _head(model, self.family)

    @property
    def hidden_size(self) -> int:
        """D, the width of the hidden states."""
        return int(self.config.hidden_size)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the frozen weights and of the hidden states."""
        return next(self.above.parameters()).dtype

    def embed(self, input_ids: Tensor) -> Tensor:
        """Vocabulary embeddings of token ids, without positions: (n,) -> (n, E)."""
        assert self.below is not None
        return self.below.get_input_embeddings()(input_ids)

    def free_below(self) -> None:
        """Let go of the lower stack, once its output is known for all that will be read."""
        self.below = None

    @torch.no_grad()
    def read(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Hidden states in front of layer l; no autograd graph is built.

        Args:
            input_ids: (B, T) token ids, padded on the right.
            attention_mask: (B, T), 1 for real tokens.

        Returns:
            (B, T, D) in the type of the frozen weights.
        """
        assert self.below is not None
        return self._run(self.below, attention_mask, input_ids=input_ids)

    def answer(self, hidden: Tensor, attention_mask: Tensor, prompt: Tensor | None) -> Tensor:
        """Run the upper stack with a prompt in front of the text.

        Args:
            hidden: (B, T, D) from `read`.
            attention_mask: (B, T) of the text alone.
            prompt: (B, m, D), or None for the unprompted model.

        Returns:
            (B, m+T, D) final hidden states; gradients flow to `prompt`.
        """
        if prompt is not None:
            hidden = torch.cat([prompt.to(hidden.dtype), hidden], dim=1)
            ones = attention_mask.new_ones(prompt.shape[:2])
            attention_mask = torch.cat([ones, attention_mask], dim=1)
        return self._run(self.above, attention_mask, inputs_embeds=hidden)

    def logits(self, hidden: Tensor) -> Tensor:
        """Language-model head: final hidden states (..., D) -> (..., V)."""
        flat = hidden.reshape(1, -1, hidden.shape[-1])
        return self.head(inputs_embeds=flat).logits.reshape(*hidden.shape[:-1], -1)

    def _run(self, view: nn.Module, attention_mask: Tensor, **inputs: Tensor) -> Tensor:
        if self.family.kind == "causal":
            out = view(attention_mask=attention_mask, use_cache=False, **inputs)
        else:
            out = view(attention_mask=attention_mask, **inputs)
        return out.last_hidden_state


def _below(base: PreTrainedModel, family: Family, layer: int) -> PreTrainedModel:
    layers = list(base.get_submodule(family.layers).children())[: layer - 1]
    replaced: dict[str, nn.Module | None] = {
        family.layers: nn.ModuleList(layers if layers else _stack_of_none(base)),
        **{name: PassThrough() for name in family.final if _has(base, name)},
    }
    if layer == 1:
        replaced |= {name: None for name in family.first if _has(base, name)}
    return _view(base, replaced, range(layer - 1))


def _above(base: PreTrainedModel, family: Family, layer: int) -> PreTrainedModel:
    layers = list(base.get_submodule(family.layers).children())
    replaced: dict[str, nn.Module | None] = {
        family.layers: nn.ModuleList(layers[layer - 1 :]),
        **{name: PassThrough() for name in family.embeddings if _has(base, name)},
        **{name: NoPositions() for name in family.positions},
    }
    if layer > 1:
        replaced |= {name: None for name in family.first if _has(base, name)}
    return _view(base, replaced, range(layer - 1, len(layers)))


def _head(model: PreTrainedModel, family: Family) -> nn.Module:
    path = f"{model.base_model_prefix}.{family.stack}".rstrip(".")
    stack = model.get_submodule(path)
    return _view(model, {path: _Given(stack._modules.get("embeddings"))})


def _stack_of_none(base: PreTrainedModel) -> list[nn.Module]:
    # Only DeBERTa's encoder reads the last layer's output by name after its loop.
    return [_EmptyLayer()] if base.config.model_type.startswith("deberta") else []


def _has(module: nn.Module, path: str) -> bool:
    parent, _, name = path.rpartition(".")
    return module.get_submodule(parent)._modules.get(name) is not None


def _view(module: Any, replaced: Mapping[str, Any], layers: range | None = None) -> Any:
    """A shallow copy of `module` with the modules at the given paths replaced.

    Every module on the way to a replaced one is copied too; all else is shared. With `layers`, the
    copies' configs describe that slice of the layer list, because some forwards look up each
    layer's attention type by its place in the list.
    """
    clone = copy.copy(module)
    clone._modules = dict(module._modules)
    if layers is not None and "config" in clone.__dict__:
        clone.config = _sliced_config(clone.config, layers)
    inner: dict[str, dict[str, Any]] = {}
    for path, new in replaced.items():
        name, _, rest = path.partition(".")
        if rest:
            inner.setdefault(name, {})[rest] = new
        else:
            clone._modules[name] = new
    for name, rest_replaced in inner.items():
        child = clone._modules[name]
        assert child is not None
        clone._modules[name] = _view(child, rest_replaced, layers)
    return clone


def _sliced_config(config: Any, layers: range) -> Any:
    sliced = copy.copy(config)
    if getattr(config, "layer_types", None) is not None:
        sliced.layer_types = [config.layer_types[i] for i in layers]
    sliced.num_hidden_layers = len(layers)
    return sliced
