"""Views of a transformers model: its lower stack, upper stack and head, without copied code.

A view is a shallow copy of the model with its own table of submodules; every parameter is shared
with the original. Masks, rotary and relative positions come from transformers' own forward of each
view.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from lpt.models.families import Family


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


class _IdentityBackbone(nn.Module):
    """Stands for the stack when only the head is to run: its output is its input."""

    def __init__(self, embeddings: nn.Module | None) -> None:
        super().__init__()
        self.embeddings = embeddings  # where a tied head looks up the word embeddings

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> Any:
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=inputs_embeds)


class Recomputed(nn.Module):
    """A layer whose activations are thrown away and computed again in the backward pass.

    transformers has a flag of its own for this, but only heeds it in training mode; frozen layers
    are often in eval mode.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *inputs: Any, **more: Any) -> Any:  # noqa: D102
        return checkpoint(self.layer, *inputs, use_reentrant=False, **more)

    def __getattr__(self, name: str) -> Any:
        """Some forwards look at attributes of their layers."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)


class UpperPassContext:
    """What of a pass through the upper stack is wanted, for the layers at its two ends.

    Attributes:
        prompt: m, the leading tokens of a row whose gradient is wanted; text is constant.
        scored: (U,) distinct places of tokens in a flattened (B, S); None: all are wanted.
        shape: (B, S), noted on the way into a chain of modules and needed on the way out.
    """

    def __init__(self) -> None:
        self.prompt = 0
        self.scored: Tensor | None = None
        self.shape = torch.Size()


class _DetachText(nn.Module):
    """A projection of the first layer: text gets no gradient, as nothing behind needs it."""

    def __init__(self, module: nn.Module, wanted: UpperPassContext) -> None:
        super().__init__()
        self.module = module
        self.wanted = wanted

    def forward(self, hidden: Tensor) -> Tensor:
        if not (hidden.requires_grad and torch.is_grad_enabled()):
            return self.module(hidden)
        prompt, text = hidden.tensor_split([self.wanted.prompt], dim=1)
        parts = (prompt, text.detach())
        return torch.cat([self.module(part.contiguous()) for part in parts], dim=1)


class _ScoredTokensOnly(nn.Module):
    """A module of the last layer, for scored tokens only.

    The first of a chain takes (B, S, D) down to (U, ...); the last one's output is (B, S, D) again,
    zero where not scored.
    """

    def __init__(
        self, module: nn.Module, wanted: UpperPassContext, *, first: bool, last: bool
    ) -> None:
        super().__init__()
        self.module = module
        self.wanted = wanted
        self.first = first
        self.last = last

    def forward(self, hidden: Tensor, *residual: Tensor) -> Tensor:
        at = self.wanted.scored
        if at is None:
            return self.module(hidden, *residual)
        if self.first:
            self.wanted.shape = hidden.shape[:-1]
            hidden = hidden.flatten(0, -2)[at]
        out = self.module(hidden, *(tensor.flatten(0, -2)[at] for tensor in residual))
        if not self.last:
            return out
        shape = self.wanted.shape
        whole = out.new_zeros(shape.numel(), out.shape[-1]).index_copy_(0, at, out)
        return whole.view(*shape, -1)


def lower_view(base: PreTrainedModel, family: Family, layer: int) -> PreTrainedModel:
    """Embeddings and the layers below `layer`."""
    layers = list(base.get_submodule(family.layers).children())[: layer - 1]
    replaced: dict[str, nn.Module | None] = {
        family.layers: nn.ModuleList(layers if layers else _placeholder_layer(base)),
        **{name: PassThrough() for name in family.final if _has(base, name)},
    }
    if layer == 1:
        replaced |= {name: None for name in family.first if _has(base, name)}
    return _view(base, replaced, range(layer - 1))


def upper_view(
    base: PreTrainedModel,
    family: Family,
    layer: int,
    wanted: UpperPassContext,
    *,
    recompute: bool = False,
) -> PreTrainedModel:
    """The layers from `layer` on; it takes hidden states as `inputs_embeds`.

    Where nothing else needs it, no work is done: all but keys and values of the last layer, five
    sixths of it, is done for scored tokens only, and the first layer's projections are followed
    backward for the prompt only.
    """
    layers = list(base.get_submodule(family.layers).children())[layer - 1 :]
    layers[-1] = _for_scored(layers[-1], family, wanted)
    layers[0] = _with_constant_text(layers[0], family, wanted)
    if recompute:
        layers[:-1] = map(Recomputed, layers[:-1])
    replaced: dict[str, nn.Module | None] = {
        family.layers: nn.ModuleList(layers),
        **_without_words(base, family),
        **{name: PassThrough() for name in family.embeddings if _has(base, name)},
        **{name: NoPositions() for name in family.positions},
    }
    if layer > 1:
        replaced |= {name: None for name in family.first if _has(base, name)}
    return _view(base, replaced, range(layer - 1, layer - 1 + len(layers)))


def head_view(
    model: PreTrainedModel, family: Family, word_ids: Sequence[int] | None = None
) -> nn.Module:
    """The language-model head; with `word_ids`, only the rows of those words."""
    path = f"{model.base_model_prefix}.{family.stack}".rstrip(".")
    embeddings: Any = model.get_submodule(path).embeddings if family.tied_head else None
    if word_ids is None:
        return _view(model, {path: _IdentityBackbone(embeddings)})
    rows = list(word_ids)
    if family.tied_head is not None:  # the head is handed the embeddings and has a bias of its own
        tied = copy.copy(model.get_submodule(family.tied_head))
        tied._parameters = {**tied._parameters, "bias": _rows(tied.bias, rows)}
        words = nn.Embedding.from_pretrained(_rows(embeddings.word_embeddings.weight, rows))
        few = _IdentityBackbone(_view(embeddings, {"word_embeddings": words}))
        return _view(model, {path: few, family.tied_head: tied})
    whole = model.get_output_embeddings()
    assert isinstance(whole, nn.Linear)
    output = next(name for name, module in model.named_modules() if module is whole)
    part = nn.Linear(whole.in_features, len(rows), bias=whole.bias is not None, device="meta")
    part.weight = _rows(whole.weight, rows)
    if whole.bias is not None:
        part.bias = _rows(whole.bias, rows)
    return _view(model, {path: _IdentityBackbone(embeddings), output: part})


def _with_constant_text(layer: nn.Module, family: Family, wanted: UpperPassContext) -> nn.Module:
    parts = {name: layer.get_submodule(name) for name in family.projections}
    # Where the first layer is the last one too, its queries are few already.
    whole = {name: part for name, part in parts.items() if not isinstance(part, _ScoredTokensOnly)}
    return _view(layer, {name: _DetachText(part, wanted) for name, part in whole.items()})


def _for_scored(layer: nn.Module, family: Family, wanted: UpperPassContext) -> nn.Module:
    parts = {
        x: _ScoredTokensOnly(
            layer.get_submodule(x), wanted, first=x == chain[0], last=x == chain[-1]
        )
        for chain in family.per_token
        for x in chain
    }
    view = _view(layer, parts)
    if hasattr(view, "chunk_size_feed_forward"):
        view.chunk_size_feed_forward = 0  # chunks would move the places of the scored tokens
    return view


def _rows(parameter: Tensor, rows: list[int]) -> nn.Parameter:
    return nn.Parameter(parameter.detach()[rows].clone(), requires_grad=False)


def _without_words(base: PreTrainedModel, family: Family) -> dict[str, nn.Module | None]:
    """Hidden states come in: the word embeddings are not needed, and can be freed with `below`."""
    words, gone = base.get_input_embeddings(), tuple(f"{path}." for path in family.embeddings)
    names = (name for name, module in base.named_modules() if module is words)
    return {name: None for name in names if not name.startswith(gone)}


def _placeholder_layer(base: PreTrainedModel) -> list[nn.Module]:
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
