"""A frozen transformers model cut in two at a layer.

Shapes: B rows, T tokens, m prompt vectors, D hidden size, U scored positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lpt.models.families import get_family
from lpt.models.views import UpperPassContext, head_view, lower_view, upper_view


class Branches(NamedTuple):
    """Label parts that continue one context, side by side in its row; none sees another.

    A causal model so reads the context once for all labels.

    Attributes:
        branch: (B, T), 0 for context and padding, else the label part's number, from 1.
        positions: (B, T), each token's position in its own sequence: the context, then one part.
    """

    branch: Tensor
    positions: Tensor


class SplitModel(nn.Module):
    """A frozen language model as `below` (layers 1..l-1), `above` (layers l..L) and `head`.

    Args:
        model: A transformers model with a (masked-)LM head. It is frozen and put in eval mode, and
            otherwise left as it is.
        layer: l, 1-based: the first layer of `above`.
        word_ids: Label words whose logits `logits(..., words_only=True)` gives.
        recompute: Whether `above` keeps only its layers' inputs and computes the rest again in the
            backward pass (gradient checkpointing), for less memory.

    Raises:
        ConfigError: The model's family is not supported.
        ValueError: `layer` is outside 1..L.

    Source: paper section 4.1; reference release's `add_prompt_layer` is `layer - 1`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        layer: int,
        *,
        word_ids: Sequence[int] | None = None,
        recompute: bool = False,
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
        self.below: PreTrainedModel | None = lower_view(base, self.family, layer)
        self._wanted = UpperPassContext()
        self.above = upper_view(base, self.family, layer, self._wanted, recompute=recompute)
        self.head = head_view(model, self.family)
        self.words_head = None if word_ids is None else head_view(model, self.family, word_ids)
        # In a tuple, because it is no part of this module: only its views are.
        self._base: tuple[PreTrainedModel] | None = (base,)

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

    def release_lower(self) -> None:
        """Let go of the lower stack, once its output is known for all that will be read."""
        self.below = self._base = None

    def read(
        self, input_ids: Tensor, attention_mask: Tensor, branches: Branches | None = None
    ) -> Tensor:
        """Hidden states in front of layer l; no autograd graph is built.

        Args:
            input_ids: (B, T) token ids, padded on the right.
            attention_mask: (B, T), 1 for real tokens.
            branches: Where rows hold several label parts; causal models only.

        Returns:
            (B, T, D) in the type of the frozen weights.
        """
        assert self.below is not None
        with torch.no_grad():
            hidden = self._run(self.below, attention_mask, branches, input_ids=input_ids)
        return hidden.to(self.dtype)  # autocast leaves some layers' output in float32

    @torch.no_grad()
    def read_layers(
        self,
        layers: Sequence[int],
        input_ids: Tensor,
        attention_mask: Tensor,
        branches: Branches | None = None,
    ) -> dict[int, Tensor]:
        """Hidden states in front of each of several layers, in one pass; else as `read`."""
        assert self._base is not None
        [base] = self._base
        view = self.below
        if max(layers) != self.layer:
            view = lower_view(base, self.family, max(layers))
        assert view is not None
        found: dict[int, Tensor] = {}

        def keep(layer: int) -> Any:
            def hook(_: nn.Module, inputs: tuple[Any, ...], more: dict[str, Any]) -> None:
                found[layer] = inputs[0] if inputs else more["hidden_states"]

            return hook

        stack = list(view.get_submodule(self.family.layers).children())
        hooks = [
            stack[layer - 1].register_forward_pre_hook(keep(layer), with_kwargs=True)
            for layer in set(layers) - {max(layers)}
        ]
        try:
            found[max(layers)] = self._run(view, attention_mask, branches, input_ids=input_ids)
        finally:
            for handle in hooks:
                handle.remove()
        return {layer: hidden.to(self.dtype) for layer, hidden in found.items()}

    def answer(
        self,
        hidden: Tensor,
        attention_mask: Tensor,
        prompt: Tensor | None,
        branches: Branches | None = None,
        scored: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Run the upper stack with a prompt in front of the text.

        Args:
            hidden: (B, T, D) from `read`.
            attention_mask: (B, T) of the text alone.
            prompt: (B, m, D), or None for the unprompted model.
            branches: Of the text alone, where rows hold several label parts.
            scored: Row and token of the text, (U,) each and no two the same, whose final states are
                wanted.

        Returns:
            (U, D) final hidden states where `scored`, else all of them, (B, m+T, D); gradients flow
            to `prompt`.
        """
        length = 0 if prompt is None else prompt.shape[1]
        if prompt is not None:
            hidden = torch.cat([prompt.to(hidden.dtype), hidden], dim=1)
            size = len(prompt)
            ones = attention_mask.new_ones(size, length)
            attention_mask = torch.cat([ones, attention_mask], dim=1)
            if branches is not None:
                branch, positions = branches
                front = torch.arange(length, device=positions.device).expand(size, length)
                branches = Branches(
                    torch.cat([branch.new_zeros(size, length), branch], dim=1),
                    torch.cat([front, positions + length], dim=1),
                )
        at = None if scored is None else scored[0] * hidden.shape[1] + scored[1] + length
        self._wanted.scored, self._wanted.prompt = at, length
        final = self._run(self.above, attention_mask, branches, inputs_embeds=hidden)
        return final if at is None else final.flatten(0, 1)[at]

    def logits(self, hidden: Tensor, *, words_only: bool = False) -> Tensor:
        """Language-model head: final hidden states (..., D) -> (..., V), or only `word_ids`."""
        head = self.words_head if words_only else self.head
        assert head is not None
        flat = hidden.reshape(1, -1, hidden.shape[-1])
        return head(inputs_embeds=flat).logits.reshape(*hidden.shape[:-1], -1)

    def _run(
        self,
        view: nn.Module,
        attention_mask: Tensor,
        branches: Branches | None,
        **inputs: Tensor,
    ) -> Tensor:
        options: dict[str, Any] = {"attention_mask": attention_mask}
        if self.family.kind == "causal":
            options["use_cache"] = False
        if branches is not None:
            options["attention_mask"] = self._branch_masks(attention_mask, branches)
            options["position_ids"] = branches.positions
        return view(**options, **inputs).last_hidden_state

    def _branch_masks(self, attention_mask: Tensor, branches: Branches) -> Any:
        """What each token sees: the context in front of it and its own label part.

        Returns:
            (B, 1, T, T), 0 where seen and very negative elsewhere; a dict of them by attention type
            for families whose layers differ.
        """
        branch, positions = branches
        causal = positions[:, None] <= positions[:, :, None]  # (B, queries, keys)
        same = (branch[:, None] == 0) | (branch[:, None] == branch[:, :, None])
        # Padding sees itself, so that its softmax is one over something.
        itself = torch.eye(branch.shape[1], dtype=torch.bool, device=branch.device)
        full = causal & same & attention_mask.bool()[:, None] | itself
        window = getattr(self.config, "sliding_window", None)
        near = full
        if window is not None:
            near = full & (positions[:, :, None] - positions[:, None] < window) | itself
        if self.family.masks_by_type:
            return {
                "full_attention": self._additive(full),
                "sliding_attention": self._additive(near),
            }
        return self._additive(near)

    def _additive(self, seen: Tensor) -> Tensor:
        unseen = torch.zeros((), dtype=self.dtype, device=seen.device)
        return unseen.new_zeros(seen.shape).masked_fill(~seen, torch.finfo(self.dtype).min)[:, None]
