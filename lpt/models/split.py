"""A frozen transformers model split at a layer.

Shapes: B rows, T tokens, m prompt vectors, S = m + T, D hidden size, U logit positions,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lpt.models.families import get_family
from lpt.models.inputs import Branches
from lpt.models.layers import RecordedLayer
from lpt.models.views import head_view, lower_view, upper_stack


class SplitModel(nn.Module):
    """A frozen language model as `lower` (layers 1..l-1), `upper` (layers l..L) and `head`.

    It keeps no state between calls: several threads may use it at once.

    Args:
        model: A transformers model with a (masked-)LM head. It is frozen and put in eval mode, and
            otherwise not modified.
        layer: l, 1-based: the first layer of `upper`.
        word_ids: Label words whose logits `logits(..., words_only=True)` returns.
        gradient_checkpointing: Whether `upper` stores only the inputs of its layers and recomputes
            the other activations in the backward pass.

    Raises:
        ConfigError: The model's family is not supported.
        ValueError: `layer` is outside 1..L.

    Source: paper section 4.1; `add_prompt_layer` of the reference implementation is `layer - 1`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        layer: int,
        *,
        word_ids: Sequence[int] | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
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
        self.lower: PreTrainedModel | None = lower_view(base, self.family, layer)
        self.upper = upper_stack(
            base, self.family, layer, gradient_checkpointing=gradient_checkpointing
        )
        self.head = head_view(model, self.family)
        self.words_head = None if word_ids is None else head_view(model, self.family, word_ids)
        # In a tuple so that torch does not register it: only its views are submodules.
        self._base: tuple[PreTrainedModel] | None = (base,)

    @property
    def hidden_size(self) -> int:
        """D, the width of the hidden states."""
        return int(self.config.hidden_size)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the frozen weights and of the hidden states."""
        return next(self.upper.parameters()).dtype

    def embed(self, input_ids: Tensor) -> Tensor:
        """Word embeddings of token ids, without positions: (n,) -> (n, E)."""
        assert self.lower is not None
        return self.lower.get_input_embeddings()(input_ids)

    def release_lower(self) -> None:
        """Free the lower stack, once its output is precomputed for all inputs."""
        self.lower = self._base = None

    def forward_lower(
        self, input_ids: Tensor, attention_mask: Tensor, branches: Branches | None = None
    ) -> Tensor:
        """Hidden states in front of layer l; no autograd graph is built.

        Args:
            input_ids: (B, T) token ids, padded on the right.
            attention_mask: (B, T), 1 for real tokens.
            branches: Set where rows hold several label parts; causal models only.

        Returns:
            (B, T, D) in the type of the frozen weights.
        """
        assert self.lower is not None
        with torch.no_grad():
            options = self._forward_options(attention_mask, branches)
            hidden = self.lower(input_ids=input_ids, **options).last_hidden_state
        return hidden.to(self.dtype)  # autocast leaves the output of some layers in float32

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
        prompt: Tensor | None,
        branches: Branches | None = None,
        positions: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Run the upper stack with a prompt in front of the text.

        Args:
            hidden: (B, T, D) from `forward_lower`.
            attention_mask: (B, T) of the text alone.
            prompt: (B, m, D), or None for the unprompted model.
            branches: Of the text alone, where rows hold several label parts.
            positions: Row and token of the text, (U,) each and all distinct, whose final states
                are needed.

        Returns:
            (U, D) final hidden states at `positions`, or all of them, (B, S, D), if None;
            gradients flow to `prompt`.
        """
        length = 0
        if prompt is not None:
            length = prompt.shape[1]
            hidden = torch.cat([prompt.to(hidden.dtype), hidden], dim=1)
            ones = attention_mask.new_ones(len(prompt), length)
            attention_mask = torch.cat([ones, attention_mask], dim=1)
            branches = None if branches is None else _shift(branches, length)
        scored = None
        if positions is not None:
            rows, tokens = positions
            scored = rows * hidden.shape[1] + tokens + length
        options = self._forward_options(attention_mask, branches)
        final = self.upper(length, scored, inputs_embeds=hidden, **options)
        return final if scored is None else final.flatten(0, 1)[scored]

    def logits(self, hidden: Tensor, *, words_only: bool = False) -> Tensor:
        """Language-model head: final hidden states (..., D) -> (..., V), or only `word_ids`."""
        head = self.words_head if words_only else self.head
        assert head is not None
        flat = hidden.reshape(1, -1, hidden.shape[-1])
        return head(inputs_embeds=flat).logits.reshape(*hidden.shape[:-1], -1)

    def _forward_options(self, attention_mask: Tensor, branches: Branches | None) -> dict[str, Any]:
        options: dict[str, Any] = {"attention_mask": attention_mask}
        if self.family.kind == "causal":
            options["use_cache"] = False
        if branches is not None:
            options["attention_mask"] = self._branch_masks(attention_mask, branches)
            options["position_ids"] = branches.position_ids
        return options

    def _branch_masks(self, attention_mask: Tensor, branches: Branches) -> Any:
        """Additive masks: a token attends to the context before it and to its own label part.

        Returns:
            (B, 1, S, S), 0 where a query attends to a key and very negative elsewhere; a dict of
            them by attention type for families whose layers differ.
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
                "full_attention": self._additive(full),
                "sliding_attention": self._additive(sliding),
            }
        return self._additive(sliding)

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
