"""A base model with a late prompt that is called like the base model itself.

Heads, losses and `generate` of transformers see outputs of the text alone. (`SplitModel` is for
lpt's own loop: batches padded on the right, logits at few positions, no key-value cache.)

Shapes: B rows, T tokens of the call, P tokens of earlier calls whose keys and values are cached,
m prompt vectors, D hidden size, L layers, l layer of the prompt.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import DynamicCache, PreTrainedModel

from lpt.models.families import Family
from lpt.models.generators import PromptGenerator
from lpt.models.layers import FurtherPrompts, UpperPassContext
from lpt.models.views import lower_view, upper_stack


class LatePromptGenerators(nn.Module):
    """What is trained of a late prompt.

    Args:
        generator: Makes the prompt.
        further: Make the prompts in front of later layers, by layer.
        length: m, of each.
        dropout: Dropout rate of the prompt vectors.
    """

    def __init__(
        self,
        generator: PromptGenerator,
        further: Mapping[int, PromptGenerator] = MappingProxyType({}),
        *,
        length: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.length = length
        self.further_layers = sorted(further)
        self.reads_final_state = generator.reads_final_state
        self.generator = generator
        self.further = nn.ModuleDict({str(layer): each for layer, each in further.items()})
        self.dropout = nn.Dropout(dropout)

    def forward(self, layer: int | None, hidden: Tensor, last: Tensor, pool: Tensor) -> Tensor:
        """The prompt of a further layer, or of the first one; see `PromptGenerator`."""
        generator = self.generator if layer is None else self.further[str(layer)]
        return self.dropout(generator(hidden, last, pool))


class PromptedModel:
    """Views of a base model, and what makes the prompt between them.

    Args:
        base: The module whose output the head takes.
        family: Its family, with paths relative to it.
        layer: l, 1-based.
        generators: Make the prompts.
        frozen_dropout: Which layers apply dropout in training: those `above` the prompt, `all` or
            `none`.
    """

    def __init__(
        self,
        base: PreTrainedModel,
        family: Family,
        layer: int,
        generators: LatePromptGenerators,
        *,
        frozen_dropout: str = "above",
    ) -> None:
        self.config, self.causal = base.config, family.kind == "causal"
        self.first = layer - 1
        self.generators = generators
        self.frozen_dropout = frozen_dropout
        self.lower = lower_view(base, family, layer)
        self.upper = upper_stack(base, family, layer, further=generators.further_layers)

    def train(self, mode: bool) -> None:
        """Training mode for the layers that apply dropout."""
        self.lower.train(mode and self.frozen_dropout == "all")
        self.upper.train(mode and self.frozen_dropout != "none")

    def __call__(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        context_length: Tensor | None = None,
        **inputs: Any,
    ) -> Any:
        """The output of the base model: hidden states (B, T, D), and the cache.

        Args:
            input_ids: (B, T), or else `inputs_embeds`.
            attention_mask: (B, P + T) with padding on either side; None: no padding.
            context_length: (B,) leading tokens of a row, padding included, that a causal model's
                prompt is made of; None: all.
            inputs: Other arguments of the base model. Of a causal model, the prompt is made in the
                first call with a cache, and its keys and values stay there.

        Raises:
            ValueError: An attention mask of another shape, or a static cache.
        """
        text = inputs["inputs_embeds"] if input_ids is None else input_ids
        cache = self._pop_cache(inputs) if self.causal else None
        past = 0 if cache is None else self._past_length(cache)
        mask = attention_mask
        if mask is None:
            mask = text.new_ones(text.shape[0], past + text.shape[1], dtype=torch.long)
        if not isinstance(mask, Tensor) or mask.ndim != 2:
            raise ValueError("a late prompt needs an attention mask of shape (rows, tokens)")
        if self.causal:
            positions = inputs.pop("position_ids", None)
            if positions is None:
                positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -text.shape[1] :]
            inputs["position_ids"] = positions.expand(text.shape[0], -1)
        layout = RowLayout(mask, self.generators.length)
        with torch.no_grad():
            hidden = self._lower(mask, cache, input_ids=input_ids, **inputs)
        if past:
            return self._upper(layout, hidden, cache, inputs.get("position_ids"))
        prompt, further = self._prompts(layout, hidden, context_length)
        out = self._upper(layout, hidden, cache, inputs.get("position_ids"), prompt, further)
        out.last_hidden_state = layout.text(out.last_hidden_state)
        return out

    def _pop_cache(self, inputs: dict[str, Any]) -> Any:
        """The cache of this call; in training, which needs none, only one that is given."""
        cache, wanted = inputs.pop("past_key_values", None), inputs.pop("use_cache", None)
        wanted = self.config.use_cache if wanted is None else wanted
        if cache is None and wanted and not torch.is_grad_enabled():
            cache = DynamicCache(config=self.config)
        if cache is not None and cache.is_compileable:
            raise ValueError(
                "a late prompt needs a dynamic cache: the layers above it cache its keys and values"
                " too"
            )
        return cache

    def _past_length(self, cache: Any) -> int:
        length: int = cache.get_seq_length()
        return length - self.generators.length if length and self.first == 0 else length

    def _lower(self, mask: Tensor, cache: Any, **inputs: Any) -> Tensor:
        if self.causal and self.first == 0:  # without layers nothing is cached
            mask, cache = mask[:, -inputs["position_ids"].shape[1] :], None
        if self.causal:
            inputs |= {"past_key_values": cache, "use_cache": cache is not None}
        hidden: Tensor = self.lower(attention_mask=mask, **inputs).last_hidden_state
        return hidden

    def _prompts(
        self, layout: RowLayout, hidden: Tensor, context_length: Tensor | None
    ) -> tuple[Tensor, FurtherPrompts]:
        """The prompt (B, m, D), and what makes the further ones; see `Batch` for the indices."""
        tokens = layout.tokens
        last, pool = torch.zeros_like(tokens), tokens
        if self.causal:
            if context_length is not None:
                tokens = torch.minimum(context_length.to(tokens.device) - layout.padding, tokens)
            last = (tokens - 1).clamp(min=0)
            pool = last.clamp(min=1)
        state = None
        if self.generators.reads_final_state:
            state = self._final_state(layout, layout.aligned(hidden), last)
            last, pool = torch.zeros_like(last), torch.ones_like(pool)

        def make(number: int | None, text: Tensor) -> Tensor:
            read = layout.aligned(text) if state is None else state
            return self.generators(number, read, last, pool)

        def replace(number: int, full: Tensor) -> Tensor:
            text = layout.text(full)
            return layout.insert(make(number, text).to(text.dtype), text)

        further = {number: partial(replace, number) for number in self.generators.further_layers}
        return make(None, hidden), further

    @torch.no_grad()
    def _final_state(self, layout: RowLayout, text: Tensor, index: Tensor) -> Tensor:
        """As `LatePrompt.final_state`: of the unprompted model at one token, (B, 1, D)."""
        rows, training = torch.arange(len(text), device=text.device), self.upper.training
        tokens = torch.arange(text.shape[1], device=text.device)
        options: dict[str, Any] = {"use_cache": False} if self.causal else {}
        options["attention_mask"] = (tokens < layout.tokens[:, None]).long()
        self.upper.eval()
        final = self.upper(0, rows * len(tokens) + index, inputs_embeds=text, **options)
        self.upper.train(training)
        state = final[rows, index]
        return pad(state, (0, self.config.hidden_size - state.shape[-1]))[:, None]

    def _upper(
        self,
        layout: RowLayout,
        hidden: Tensor,
        cache: Any,
        positions: Tensor | None,
        prompt: Tensor | None = None,
        further: FurtherPrompts = MappingProxyType({}),
    ) -> Any:
        """The output of the upper stack, with the prompt in front if it is not in the cache."""
        size, m = len(hidden), self.generators.length
        mask = layout.insert(layout.mask.new_ones(size, m), layout.mask)
        options: dict[str, Any] = {"attention_mask": mask}
        if positions is not None:
            positions = positions + m
            if prompt is not None:
                places = torch.arange(m, device=positions.device).expand(size, m)
                positions = layout.insert(places, positions)
            options |= {"position_ids": positions, "use_cache": cache is not None}
        if cache is not None:
            options["past_key_values"] = self._upper_cache(cache)
        if prompt is not None:
            hidden = layout.insert(prompt.to(hidden.dtype), hidden)
        # The first layer's projections are differentiated for all tokens: rows that are padded on
        # the left have their prompts at different places.
        with UpperPassContext(further_prompts=further):
            out = self.upper.model(inputs_embeds=hidden, **options)
        if cache is not None:
            out.past_key_values = cache
        return out

    def _upper_cache(self, cache: Any) -> Any:
        """The cache with its layers from l on, under their numbers; the first tells the length."""
        while len(cache.layers) < self.config.num_hidden_layers:
            cache.layers.append(cache.layer_class_to_replicate())
        above = copy.copy(cache)
        above.layers = [cache.layers[self.first]] * self.first + cache.layers[self.first :]
        return above


class RowLayout:
    """Places of prompt and text in a row: padding on the left, prompt, text, padding on the right.

    Args:
        mask: (B, P + T) attention mask of the text.
        length: m.
    """

    def __init__(self, mask: Tensor, length: int) -> None:
        self.mask = mask
        self.padding = (mask.cumsum(1) == 0).sum(1)  # (B,), on the left
        self.tokens = mask.sum(1)
        left, tokens = self.padding[:, None], torch.arange(mask.shape[1], device=mask.device)
        places = torch.arange(length + len(tokens), device=mask.device)
        in_front = torch.where(places < left + length, places - left, places)
        self._full = torch.where(places < left, places + length, in_front)
        self._text = tokens + length * (tokens >= left)
        self._aligned = (tokens + left).clamp(max=len(tokens) - 1)

    def insert(self, prompt: Tensor, text: Tensor) -> Tensor:
        """(B, m, ...) and (B, T, ...) -> (B, m + T, ...)."""
        return _take(torch.cat([prompt, text], dim=1), self._full)

    def text(self, full: Tensor) -> Tensor:
        """(B, m + T, ...) -> (B, T, ...)."""
        return _take(full, self._text)

    def aligned(self, text: Tensor) -> Tensor:
        """The text with all padding on the right: (B, T, D) -> (B, T, D)."""
        return _take(text, self._aligned)


def _take(rows: Tensor, places: Tensor) -> Tensor:
    return rows[torch.arange(len(rows), device=rows.device)[:, None], places]
