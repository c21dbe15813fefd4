"""A frozen transformers model split at a layer.

Shapes: B rows, T tokens, m prompt vectors or virtual tokens, S = m + T, D hidden size, U logit
positions, V vocabulary, H heads of keys and values, d head size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import DynamicCache, PreTrainedModel

from lpt.models.families import get_family
from lpt.models.inputs import Branches
from lpt.models.layers import FurtherPrompts, RecordedLayer
from lpt.models.views import final_view, head_view, lower_view, upper_stack


class SplitModel(nn.Module):
    """A language model as `lower` (layers 1..l-1), `upper` (layers l..L) and `head`.

    It keeps no state between calls: several threads may use it at once.

    Args:
        model: A transformers model with a (masked-)LM head. It is frozen and put in eval mode, and
            otherwise not modified.
        layer: l, 1-based: the first layer of `upper`; at L + 1 all layers are below.
        word_ids: Label words whose logits `logits(..., words_only=True)` returns.
        trainable: Parameters of the model that are not frozen. Of the lower stack they are those of
            the embeddings, at layer 1.
        further: Layers above l that `forward_upper` may be given further prompts for.
        gradient_checkpointing: Whether `upper` stores only the inputs of its layers and recomputes
            the other activations in the backward pass.

    Raises:
        ConfigError: The model's family is not supported.
        ValueError: `layer` is outside 1..L+1, or a parameter trains below it.

    Source: paper section 4.1; `add_prompt_layer` of the reference implementation is `layer - 1`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        layer: int,
        *,
        word_ids: Sequence[int] | None = None,
        trainable: Iterable[nn.Parameter] = (),
        further: Sequence[int] = (),
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.family = get_family(model.config.model_type)
        self.config = model.config
        self.layer = layer
        base = model.base_model
        layers = base.get_submodule(self.family.layers)
        assert isinstance(layers, nn.ModuleList)
        if not 1 <= layer <= len(layers) + 1:
            raise ValueError(f"layer {layer} is outside 1..{len(layers) + 1}")
        model.requires_grad_(False).eval()
        for parameter in trainable:
            parameter.requires_grad_(True)
        self.lower: PreTrainedModel | None = lower_view(base, self.family, layer)
        self.upper = upper_stack(
            base,
            self.family,
            layer,
            further=further,
            gradient_checkpointing=gradient_checkpointing,
        )
        self.head = head_view(model, self.family)
        self.word_ids = None if word_ids is None else list(word_ids)
        self.lower_trains = _trains(self.lower)
        if self.lower_trains and layer > 1:
            raise ValueError(f"parameters below layer {layer} would train")
        # A copy of the label words' rows, unless training changes them.
        frozen_words = self.word_ids is not None and not _trains(self.head)
        self.words_head = head_view(model, self.family, self.word_ids) if frozen_words else None
        # In a tuple so that torch does not register it: only its views are submodules.
        self._base: tuple[PreTrainedModel] | None = (base,)

    @property
    def hidden_size(self) -> int:
        """D, the width of the hidden states."""
        return int(self.config.hidden_size)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the frozen weights and of the hidden states."""
        return next(self.head.parameters()).dtype

    def embed(self, input_ids: Tensor) -> Tensor:
        """Word embeddings of token ids, without positions: (n,) -> (n, E)."""
        assert self.lower is not None
        return self.lower.get_input_embeddings()(input_ids)

    def release_lower(self) -> None:
        """Free the lower stack, once its output is precomputed for all inputs."""
        self.lower = self._base = None

    def forward_lower(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        branches: Branches | None = None,
        *,
        position_shift: int = 0,
    ) -> Tensor:
        """Hidden states in front of layer l; with a gradient only if the embeddings train.

        Args:
            input_ids: (B, T) token ids, padded on the right.
            attention_mask: (B, T), 1 for real tokens.
            branches: Set where rows hold several label parts; causal models only.
            position_shift: Added to the positions of the text, where the family has absolute ones.

        Returns:
            (B, T, D) in the type of the frozen weights.
        """
        assert self.lower is not None
        with torch.set_grad_enabled(self.lower_trains and torch.is_grad_enabled()):
            options = self._forward_options(attention_mask, branches)
            if position_shift and self.family.position_limit is not None:
                first = position_shift + self.family.position_offset
                tokens = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
                options["position_ids"] = first + options.get("position_ids", tokens)
            hidden = self.lower(input_ids=input_ids, **options).last_hidden_state
        return hidden.to(self.dtype)  # autocast leaves the output of some layers in float32

    def embed_prompt(self, vectors: Tensor) -> Tensor:
        """Prompt vectors in place of word embeddings at the start of a text: (m, E) -> (m, D)."""
        assert self.lower is not None
        assert self.layer == 1
        inputs = vectors[None].to(self.dtype)
        mask = torch.ones(inputs.shape[:2], dtype=torch.long, device=inputs.device)
        hidden = self.lower(inputs_embeds=inputs, **self._forward_options(mask, None))
        return hidden.last_hidden_state[0]

    @torch.no_grad()
    def forward_lower_layers(
        self,
        layers: Sequence[int],
        input_ids: Tensor,
        attention_mask: Tensor,
        branches: Branches | None = None,
    ) -> dict[int, Tensor]:
        """Hidden states in front of each of several layers, in one pass; see `forward_lower`."""
        assert self._base is not None
        [base] = self._base
        deepest = max(layers)
        # A new view: hooks on the layers of `lower` would also run in the calls of other threads.
        view = lower_view(base, self.family, deepest)
        stack = view.get_submodule(self.family.layers)
        recorded = {layer: RecordedLayer(stack[layer - 1]) for layer in set(layers) - {deepest}}
        for layer, wrapper in recorded.items():
            stack[layer - 1] = wrapper
        options = self._forward_options(attention_mask, branches)
        found = {deepest: view(input_ids=input_ids, **options).last_hidden_state}
        found |= {layer: wrapper.hidden for layer, wrapper in recorded.items()}
        return {layer: hidden.to(self.dtype) for layer, hidden in found.items()}

    def forward_upper(
        self,
        hidden: Tensor,
        attention_mask: Tensor,
        prompt: Tensor | None = None,
        branches: Branches | None = None,
        positions: tuple[Tensor, Tensor] | None = None,
        prefix: Tensor | None = None,
        further_prompts: FurtherPrompts = MappingProxyType({}),
    ) -> Tensor:
        """Run the upper stack with a prompt or a prefix in front of the text.

        Args:
            hidden: (B, T, D) from `forward_lower`.
            attention_mask: (B, T) of the text alone.
            prompt: (B, m, D), or None for the unprompted model.
            branches: Of the text alone, where rows hold several label parts.
            positions: Row and token of the text, (U,) each and all distinct, whose final states
                are needed.
            prefix: (L-l+1, 2, H, m, d), keys and values of virtual tokens in each layer, instead of
                a prompt. In layers with rotary positions the text begins at position m.
            further_prompts: See `UpperPassContext`; for layers in `further`.

        Returns:
            (U, D) final hidden states at `positions`, or all of them, (B, S, D), if None;
            gradients flow to `prompt` or `prefix`.
        """
        length = ahead = 0
        if prompt is not None:
            length = ahead = prompt.shape[1]
            hidden = torch.cat([prompt.to(hidden.dtype), hidden], dim=1)
        if prefix is not None:
            assert prompt is None
            ahead = prefix.shape[-2]
        attention_mask = pad(attention_mask, (ahead, 0), value=1)
        branches = None if branches is None else _shift(branches, ahead)
        scored = None
        if positions is not None:
            rows, tokens = positions
            scored = rows * hidden.shape[1] + tokens + length
        options = self._forward_options(attention_mask, branches, hidden.shape[1])
        if prefix is not None:
            options["past_key_values"] = self._key_value_cache(prefix, len(hidden))
        final = self.upper(length, scored, further_prompts, inputs_embeds=hidden, **options)
        return final if scored is None else final.flatten(0, 1)[scored]

    def finish(self, hidden: Tensor) -> Tensor:
        """Final states from the states behind the last layer, (B, T, D): a final norm, say."""
        mask = torch.ones(hidden.shape[:2], dtype=torch.long, device=hidden.device)
        view = final_view(self.upper, self.family)
        options = self._forward_options(mask, None)
        return view(inputs_embeds=hidden, **options).last_hidden_state

    def logits(self, hidden: Tensor, *, words_only: bool = False) -> Tensor:
        """Language-model head: final hidden states (..., D) -> (..., V), or only `word_ids`."""
        flat = hidden.reshape(1, -1, hidden.shape[-1])
        head = self.words_head if words_only and self.words_head is not None else self.head
        logits = head(inputs_embeds=flat).logits.reshape(*hidden.shape[:-1], -1)
        if words_only and self.words_head is None:
            assert self.word_ids is not None
            logits = logits[..., self.word_ids]
        return logits

    def _key_value_cache(self, prefix: Tensor, size: int) -> DynamicCache:
        """A prefix as transformers' cache: (L-l+1, 2, H, m, d), for `size` rows."""
        pairs = prefix.to(self.dtype)[:, :, None].expand(-1, -1, size, -1, -1, -1)
        cache = DynamicCache([(keys, values) for keys, values in pairs])
        # Layers know their number in the whole model, and the first one tells the length.
        cache.layers = [cache.layers[0]] * (self.layer - 1) + cache.layers
        return cache

    def _forward_options(
        self, attention_mask: Tensor, branches: Branches | None, queries: int | None = None
    ) -> dict[str, Any]:
        """Arguments for tokens of which the last `queries` are the input; None: all of them."""
        options: dict[str, Any] = {"attention_mask": attention_mask}
        if self.family.kind == "causal":
            options["use_cache"] = False
        if branches is not None:
            first = 0 if queries is None else attention_mask.shape[1] - queries
            options["attention_mask"] = self._branch_masks(attention_mask, branches, first)
            options["position_ids"] = branches.position_ids[:, first:]
        return options

    def _branch_masks(self, attention_mask: Tensor, branches: Branches, first: int) -> Any:
        """Additive masks: a token attends to the context before it and to its own label part.

        Returns:
            (B, 1, S - first, S) for the tokens from `first` on, 0 where a query attends to a key
            and very negative elsewhere; a dict of them by attention type for families whose layers
            differ.
        """
        branch_ids, position_ids = branches
        queries, keys = position_ids[:, :, None], position_ids[:, None]  # (B, S, 1), (B, 1, S)
        same = (branch_ids[:, None] == 0) | (branch_ids[:, None] == branch_ids[:, :, None])
        # Padding attends to itself, so that no softmax is over nothing.
        diagonal = torch.eye(branch_ids.shape[1], dtype=torch.bool, device=branch_ids.device)
        full = (keys <= queries) & same & attention_mask.bool()[:, None] | diagonal
        window = getattr(self.config, "sliding_window", None)
        sliding = full
        if window is not None:
            sliding = full & (queries - keys < window) | diagonal
        if self.family.masks_by_type:
            return {
                "full_attention": self._additive(full[:, first:]),
                "sliding_attention": self._additive(sliding[:, first:]),
            }
        return self._additive(sliding[:, first:])

    def _additive(self, attends: Tensor) -> Tensor:
        zeros = torch.zeros(attends.shape, dtype=self.dtype, device=attends.device)
        return zeros.masked_fill(~attends, torch.finfo(self.dtype).min)[:, None]


def _shift(branches: Branches, length: int) -> Branches:
    """The branches with `length` prompt vectors in front, which belong to the context."""
    branch_ids, position_ids = branches
    size = len(branch_ids)
    prompt = torch.arange(length, device=position_ids.device).expand(size, length)
    return Branches(
        torch.cat([branch_ids.new_zeros(size, length), branch_ids], dim=1),
        torch.cat([prompt, position_ids + length], dim=1),
    )


def _trains(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
