"""Modules put around transformers' layers and projections, and the context of one upper pass.

Where nothing else depends on it, work is saved at both ends of the stack: the last layer computes
queries, attention output and feed-forward for scored tokens only, and the projections of the first
layer are differentiated for the prompt only. The modules that do so sit deep inside transformers'
layers, whose forward passes no extra arguments on to them; they read the context of the current
call.

Shapes: B rows, S = m + T tokens with the prompt in front, D hidden size, U scored tokens.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

FurtherPrompts = Mapping[int, Callable[[Tensor], Tensor]]


class UpperPassContext:
    """What one call of the upper stack needs; created for that call, never kept by a module.

    As a context manager it is the current one of this thread. (`contextvars` would do as well, but
    torch.compile cannot trace them.)

    Args:
        prompt_length: m, leading tokens of a row that need a gradient; the text is constant.
        scored: (U,) distinct indices into the flattened (B, S) tokens; None: all tokens.
        further_prompts: By layer, puts the prompt of a later layer, made of the hidden states of
            the text in front of it, in the place of the one before: (B, S, D) -> (B, S, D).

    Attributes:
        shape: (B, S), noted by the first module of a chain and needed by its last one.
    """

    def __init__(
        self,
        prompt_length: int = 0,
        scored: Tensor | None = None,
        further_prompts: FurtherPrompts = MappingProxyType({}),
    ) -> None:
        self.prompt_length = prompt_length
        self.scored = scored
        self.further_prompts = further_prompts
        self.shape = torch.Size()

    def __enter__(self) -> None:
        _thread.contexts.append(self)

    def __exit__(self, *_: object) -> None:
        _thread.contexts.pop()


class _Thread(threading.local):
    def __init__(self) -> None:
        self.contexts = [UpperPassContext()]  # outside of a call: all tokens, no prompt


_thread = _Thread()


def _current_context() -> UpperPassContext:
    return _thread.contexts[-1]


class UpperStack(nn.Module):
    """Layers l..L as a callable that several threads may use at once.

    Args:
        model: The upper view of the base model.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        prompt_length: int,
        scored: Tensor | None,
        further_prompts: FurtherPrompts = MappingProxyType({}),
        **inputs: Any,
    ) -> Tensor:
        """Final hidden states (B, S, D); rows that are not `scored` hold nothing of use."""
        # The context is entered in here, so that a compiled graph sees arguments, not globals.
        with UpperPassContext(prompt_length, scored, further_prompts):
            return self.model(**inputs).last_hidden_state


class _WrappedLayer(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def __getattr__(self, name: str) -> Any:
        """Some forwards read attributes of their layers."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)


class RecordedLayer(_WrappedLayer):
    """A layer that keeps the hidden states it is given, (B, T, D); for one call only."""

    hidden: Tensor

    def forward(self, hidden_states: Tensor, *inputs: Any, **options: Any) -> Any:  # noqa: D102
        self.hidden = hidden_states
        return self.layer(hidden_states, *inputs, **options)


class PromptedLayer(_WrappedLayer):
    """A layer in front of which a further prompt takes the place of the one that came so far.

    Source: deep prompts (P-tuning v2, Liu et al., 2022; SPT, Zhu & Tan, EMNLP 2023).

    Args:
        layer: The layer.
        number: Its number, 1-based.
    """

    def __init__(self, layer: nn.Module, number: int) -> None:
        super().__init__(layer)
        self.number = number

    def forward(self, hidden_states: Tensor, *inputs: Any, **options: Any) -> Any:  # noqa: D102
        context = _current_context()
        if self.number in context.further_prompts:
            hidden_states = context.further_prompts[self.number](hidden_states)
        return self.layer(hidden_states, *inputs, **options)


class CheckpointedLayer(_WrappedLayer):
    """A layer whose activations are recomputed in the backward pass (gradient checkpointing).

    transformers' own flag works in training mode only; frozen layers are often in eval mode.
    """

    def forward(self, *inputs: Any, **options: Any) -> Any:  # noqa: D102
        if not torch.compiler.is_dynamo_compiling():
            # The backward pass runs when the call is over, on CUDA in another thread.
            context = _current_context()
            options["context_fn"] = lambda: (nullcontext(), context)
        return checkpoint(self.layer, *inputs, use_reentrant=False, **options)


class DetachText(nn.Module):
    """A projection of the first layer, without a gradient for text where a prompt is inserted.

    Nothing before it trains but the prompt. Without a prompt the text's gradient is kept: norms or
    embeddings may train.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, hidden: Tensor) -> Tensor:  # noqa: D102
        length = _current_context().prompt_length
        if length == 0 or not (hidden.requires_grad and torch.is_grad_enabled()):
            return self.module(hidden)
        prompt, text = hidden.tensor_split([length], dim=1)
        parts = (prompt, text.detach())
        return torch.cat([self.module(part.contiguous()) for part in parts], dim=1)


class ScoredTokensOnly(nn.Module):
    """A module of the last layer, applied to scored tokens only.

    The first module of a chain gathers (B, S, D) into (U, ...); the last one scatters its output
    back into (B, S, D), zero where not scored.
    """

    def __init__(self, module: nn.Module, *, first: bool, last: bool) -> None:
        super().__init__()
        self.module = module
        self.first = first
        self.last = last

    def forward(self, hidden: Tensor, *residual: Tensor) -> Tensor:  # noqa: D102
        context = _current_context()
        scored = context.scored
        if scored is None:
            return self.module(hidden, *residual)
        if self.first:
            context.shape = hidden.shape[:-1]
            hidden = hidden.flatten(0, -2)[scored]
        out = self.module(hidden, *(tensor.flatten(0, -2)[scored] for tensor in residual))
        if not self.last:
            return out
        full = out.new_zeros(context.shape.numel(), out.shape[-1]).index_copy_(0, scored, out)
        return full.view(*context.shape, -1)
