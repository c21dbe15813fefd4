"""Views of a transformers model: its lower stack, upper stack and head, without copied code.

A view is a shallow copy of the model with its own table of submodules; all parameters are shared
with the original. Masks, rotary and relative positions come from transformers' own forward, which
each view still runs.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from lpt.models.families import Family
from lpt.models.layers import (
    CheckpointedLayer,
    DetachText,
    PromptedLayer,
    ScoredTokensOnly,
    UpperStack,
)


class PassThrough(nn.Module):
    """Replaces a module whose work is already done: returns the hidden states it is given."""

    def forward(self, hidden: Tensor | None = None, **inputs: Any) -> Tensor:  # noqa: D102
        out = inputs.get("inputs_embeds") if hidden is None else hidden
        assert out is not None
        return out


class NoPositions(nn.Module):
    """Replaces position embeddings that were added before the split."""

    def forward(self, reference: Tensor, *_: Any, **__: Any) -> Tensor:  # noqa: D102
        # 0-dimensional: it broadcasts and does not change the dtype of what it is added to.
        return reference.new_zeros(())


class _EmptyLayer(nn.Module):
    """Fills an empty layer list: some encoders need at least one iteration of their loop."""

    def forward(self, hidden: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        return hidden, None


class _IdentityBackbone(nn.Module):
    """Replaces the base model when only the head runs: its output is its input."""

    def __init__(self, embeddings: nn.Module | None) -> None:
        super().__init__()
        self.embeddings = embeddings  # a tied head reads the word embeddings from here

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> Any:
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=inputs_embeds)


def lower_view(base: PreTrainedModel, family: Family, layer: int) -> PreTrainedModel:
    """Embeddings and the layers below `layer`."""
    layers = list(base.get_submodule(family.layers).children())[: layer - 1]
    replaced: dict[str, nn.Module | None] = {
        family.layers: nn.ModuleList(layers or _placeholder_layer(base)),
        **{name: PassThrough() for name in family.final if _has(base, name)},
    }
    if layer == 1:
        replaced |= {name: None for name in family.first if _has(base, name)}
    return _view(base, replaced, range(layer - 1))


def upper_stack(
    base: PreTrainedModel,
    family: Family,
    layer: int,
    *,
    further: Sequence[int] = (),
    gradient_checkpointing: bool = False,
) -> UpperStack:
    """The layers from `layer` on; takes hidden states as `inputs_embeds`.

    In front of those numbered in `further` there may be further prompts. At L + 1 there are no
    layers, only what follows them, such as the final norm.
    """
    layers = list(base.get_submodule(family.layers).children())[layer - 1 :]
    if layers:
        layers[-1] = _scored_tokens_only(layers[-1], family)
        layers[0] = _detach_text(layers[0], family)
    for number in further:
        layers[number - layer] = PromptedLayer(layers[number - layer], number)
    if gradient_checkpointing:  # not the last layer: it works on few tokens
        layers[:-1] = map(CheckpointedLayer, layers[:-1])
    replaced: dict[str, nn.Module | None] = {
        family.layers: nn.ModuleList(layers or _placeholder_layer(base)),
        **_without_word_embeddings(base, family),
        **{name: PassThrough() for name in family.embeddings if _has(base, name)},
        **{name: NoPositions() for name in family.positions},
    }
    if layer > 1:
        replaced |= {name: None for name in family.first if _has(base, name)}
    return UpperStack(_view(base, replaced, range(layer - 1, layer - 1 + len(layers))))


def final_view(upper: UpperStack, family: Family) -> PreTrainedModel:
    """What follows the layers; takes hidden states as `inputs_embeds`."""
    base: Any = upper.model
    replaced: dict[str, nn.Module | None] = {
        family.layers: nn.ModuleList(_placeholder_layer(base)),
        **{name: None for name in family.first if _has(base, name)},
    }
    return _view(base, replaced, range(0))


def head_view(
    model: PreTrainedModel, family: Family, word_ids: Sequence[int] | None = None
) -> nn.Module:
    """The language-model head; with `word_ids`, a copy of only the rows of those tokens."""
    path = f"{model.base_model_prefix}.{family.stack}".rstrip(".")
    embeddings: Any = model.get_submodule(path).embeddings if family.tied_head else None
    if word_ids is None:
        return _view(model, {path: _IdentityBackbone(embeddings)})
    rows = list(word_ids)
    if family.tied_head is not None:  # the head is given the embeddings and has its own bias
        tied = _shallow_copy(model.get_submodule(family.tied_head))
        tied.bias = _take_rows(tied.bias, rows)
        words = nn.Embedding.from_pretrained(_take_rows(embeddings.word_embeddings.weight, rows))
        backbone = _IdentityBackbone(_view(embeddings, {"word_embeddings": words}))
        return _view(model, {path: backbone, family.tied_head: tied})
    output = model.get_output_embeddings()
    assert isinstance(output, nn.Linear)
    output_path = next(name for name, module in model.named_modules() if module is output)
    words_only = nn.Linear(output.in_features, len(rows), output.bias is not None, device="meta")
    words_only.weight = _take_rows(output.weight, rows)
    if output.bias is not None:
        words_only.bias = _take_rows(output.bias, rows)
    return _view(model, {path: _IdentityBackbone(embeddings), output_path: words_only})


def _detach_text(layer: nn.Module, family: Family) -> nn.Module:
    parts = {name: layer.get_submodule(name) for name in family.projections}
    # If the first layer is also the last one, its queries are for scored tokens only anyway.
    full = {name: part for name, part in parts.items() if not isinstance(part, ScoredTokensOnly)}
    return _view(layer, {name: DetachText(part) for name, part in full.items()})


def _scored_tokens_only(layer: nn.Module, family: Family) -> nn.Module:
    parts = {
        name: ScoredTokensOnly(
            layer.get_submodule(name), first=name == chain[0], last=name == chain[-1]
        )
        for chain in family.per_token
        for name in chain
    }
    view = _view(layer, parts)
    if hasattr(view, "chunk_size_feed_forward"):
        view.chunk_size_feed_forward = 0  # chunks would change the indices of the scored tokens
    return view


def _take_rows(parameter: Tensor, rows: list[int]) -> nn.Parameter:
    return nn.Parameter(parameter.detach()[rows].clone(), requires_grad=False)


def _without_word_embeddings(base: PreTrainedModel, family: Family) -> dict[str, nn.Module | None]:
    """The input is hidden states, so word embeddings can be freed with the lower stack."""
    words, replaced = base.get_input_embeddings(), tuple(f"{path}." for path in family.embeddings)
    names = (name for name, module in base.named_modules() if module is words)
    return {name: None for name in names if not name.startswith(replaced)}


def _placeholder_layer(base: PreTrainedModel) -> list[nn.Module]:
    # Only DeBERTa's encoder reads the last layer's output by name after its loop.
    return [_EmptyLayer()] if base.config.model_type.startswith("deberta") else []


def _has(module: nn.Module, path: str) -> bool:
    parent, _, name = path.rpartition(".")
    return getattr(module.get_submodule(parent), name, None) is not None


def _view(module: Any, replaced: Mapping[str, Any], layers: range | None = None) -> Any:
    """A shallow copy of `module` with the submodules at the given paths replaced.

    Modules on the way to a replaced one are copied too; everything else is shared. With `layers`,
    the configs of the copies describe that slice of the layer list, because some forwards look up
    the attention type of each layer by its index.
    """
    clone = _shallow_copy(module)
    if layers is not None and "config" in vars(clone):
        clone.config = _sliced_config(clone.config, layers)
    by_child: dict[str, dict[str, Any]] = {}
    for path, new in replaced.items():
        name, _, rest = path.partition(".")
        if rest:
            by_child.setdefault(name, {})[rest] = new
        else:
            setattr(clone, name, new)
    for name, in_child in by_child.items():
        setattr(clone, name, _view(clone.get_submodule(name), in_child, layers))
    return clone


def _shallow_copy(module: Any) -> Any:
    """A copy that shares parameters and submodules, but not the tables that name them.

    torch has no public call for this: `copy.copy` shares the tables as well, so that replacing a
    submodule of the copy would replace it in the original.
    """
    clone = copy.copy(module)
    clone._modules, clone._parameters = dict(module._modules), dict(module._parameters)
    return clone


def _sliced_config(config: Any, layers: range) -> Any:
    sliced = copy.copy(config)
    if getattr(config, "layer_types", None) is not None:
        sliced.layer_types = [config.layer_types[i] for i in layers]
    sliced.num_hidden_layers = len(layers)
    return sliced
