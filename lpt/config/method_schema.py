"""The typed schema of the method and of a late prompt, as `lpt.config.schema` of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from omegaconf import MISSING

from lpt.config.task_schema import limited

# What trains; see lpt/methods/registry.py. For each, the settings it has besides its layer.
METHOD_SETTINGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "late_prompt": (),
        "lora": ("r", "alpha", "dropout", "target_modules", "config"),
        "dora": ("r", "alpha", "dropout", "target_modules", "config"),
        "adalora": ("r", "alpha", "dropout", "target_modules", "config"),
        "ia3": ("target_modules", "config"),
        "ln_tuning": ("target_modules", "config"),
        "vera": ("r", "dropout", "target_modules", "config"),
        "prefix": ("length", "bottleneck", "config"),
        "ptuning": ("length", "bottleneck", "config"),
        "peft": ("target_modules", "config"),
        "bitfit": (),
        "adapter": ("bottleneck", "placement"),
        "full": (),
        "head": (),
        "in_context": (),
    }
)
# `static` is free vectors; the others are the names of generators (lpt/models/generators.py).
PROMPT_KINDS = ("npg", "mppg", "appg", "attention", "inception", "idpg", "static")
FREE_VECTORS = ("inception", "static")  # kinds with trained vectors that need initial values
READS_FINAL_STATE = ("idpg",)  # kinds whose generator reads the final state, not hidden states
AT_INPUT = (*FREE_VECTORS, *READS_FINAL_STATE)  # kinds that read no layer below the prompt


@dataclass
class MethodConfig:
    """The tuning method: what trains, from which layer up (docs/methods.md)."""

    name: str = limited(MISSING, choices=tuple(METHOD_SETTINGS))
    """late_prompt, or another method under the same protocol."""
    layer: int | None = limited(None, ge=1)
    """First layer that the method changes, 1-based; null: 1, the method as published. Of a late
    prompt, `prompt.layer` says the same, and null is L // 2 + 1; a head is behind all, at L + 1."""
    r: int | None = limited(None, ge=1)
    """Rank (lora, dora, vera); mean rank at the end of the training (adalora)."""
    alpha: float | None = limited(None, gt=0.0)
    """LoRA's scaling: updates are multiplied by alpha / r (lora, dora, adalora)."""
    dropout: float | None = limited(None, ge=0.0, lt=1.0)
    """Dropout rate in front of the method's own modules (lora, dora, adalora, vera)."""
    target_modules: Any = None
    """Modules that PEFT adapts: ends of names, a regular expression or all-linear, in the layers
    from `layer` on; null: by method and family, e.g. queries and values for lora."""
    length: int | None = limited(None, ge=1)
    """Number of virtual tokens m (prefix, ptuning)."""
    bottleneck: int | None = limited(None, ge=1)
    """Bottleneck width of an adapter; width of the encoder of virtual tokens, null for a prefix
    without one."""
    placement: str | None = limited(None, choices=("houlsby", "pfeiffer"))
    """Adapters behind attention and feed-forward part, or behind the feed-forward part only."""
    config: dict[str, Any] = field(default_factory=dict)
    """Further options of PEFT's config class; for method=peft with its peft_type."""
    lr: float = limited(MISSING, gt=0.0)
    """Default of `optim.lr` for this method (docs/defaults.md)."""


def default_layer(name: str, depth: int) -> int:
    """First layer that the method of that name changes, by default, of a model of `depth` layers.

    That of a late prompt is the paper's choice; a head comes behind the last layer.
    """
    return {"late_prompt": depth // 2 + 1, "head": depth + 1}.get(name, 1)


@dataclass
class PromptConfig:
    """A late prompt: generator or free vectors, and where the prompt is inserted."""

    kind: str = limited(MISSING, choices=PROMPT_KINDS)
    """npg, mppg, appg, attention: a generator that reads one hidden state in front of the layer, or
    pools all; idpg: reads the model's final state; inception: reparameterized free vectors; static:
    free vectors."""
    layer: int | None = limited(None, ge=1)
    """First layer that sees the prompt, 1-based; null: L // 2 + 1, both as in the paper."""
    layers: list[int] = field(default_factory=list)
    """Layers that a prompt enters at, if several: in front of each but the lowest, a further prompt
    from a generator of its own replaces the one before it. `layer` is then the lowest."""
    length: int = limited(5, ge=1)
    """Number of prompt vectors m."""
    bottleneck: int | None = limited(None, ge=1)
    """Bottleneck width d' of a generator; null for static."""
    dropout: float | None = limited(None, ge=0.0, lt=1.0)
    """Dropout rate of the prompt vectors; null: the hidden dropout of the backbone."""
    init: str | None = limited(None, choices=("normal", "vocab"))
    """Initial values of free vectors (static, inception): N(0, 0.02) or embeddings of the
    vocabulary; null for other generators."""
    args: dict[str, Any] = field(default_factory=dict)
    """Hyperparameters of the generator's own (docs/add-a-generator.md)."""
    lr: float = limited(MISSING, gt=0.0)
    """Default of `method.lr` for this kind of prompt (docs/defaults.md)."""
