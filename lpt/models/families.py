"""What the split needs to know of a model family, as data: a new family is one entry here.

Paths are relative to the base model (`model.base_model`): `RobertaForMaskedLM.roberta`, say.
See docs/add-a-family.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from lpt.errors import did_you_mean, fail

Kind = Literal["masked", "causal"]


@dataclass(frozen=True)
class Family:
    """Where a family keeps the parts that the split touches.

    Attributes:
        kind: Masked or causal language model.
        layers: Path of the layer list.
        feed_forward: Modules of a layer, in order, that work on each token by itself after the
            attention: the first is given the tokens, the last one's output has their shape again.
        embeddings: Modules that `above` receives the finished output of, so they return their
            `inputs_embeds` (or only argument) untouched there.
        positions: Position embeddings that the forward adds by itself; they add nothing in `above`.
        first: Modules that belong to the first layer; `above` has them only if it holds layer 1.
        final: Modules behind the last layer; `below` does without.
        stack: Module whose output the head reads, where it is not the base model itself.
        dropout: Name of the hidden dropout rate in the model's config; None: the family has none.
        position_limit: Name of the config's limit on positions; None: positions are relative.
        position_offset: Positions at the start of the table that no token uses.
        config: Values the model's config must have for its language-model head to load.
        tied_head: Module that is handed the word embeddings and adds a bias of its own, where the
            head has no output layer.
        masks_by_type: Whether its forward takes a mask for each attention type of its layers.
    """

    kind: Kind
    layers: str
    feed_forward: tuple[str, ...] = ("mlp",)
    embeddings: tuple[str, ...] = ()
    positions: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
    final: tuple[str, ...] = ()
    stack: str = ""
    dropout: str | None = None
    position_limit: str | None = None
    position_offset: int = 0
    config: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    tied_head: str | None = None
    masks_by_type: bool = False


def _bert_like(position_offset: int = 0, extra: tuple[str, ...] = ()) -> Family:
    return Family(
        kind="masked",
        layers="encoder.layer",
        feed_forward=("intermediate", "output"),
        embeddings=("embeddings", *extra),
        dropout="hidden_dropout_prob",
        position_limit="max_position_embeddings",
        position_offset=position_offset,
    )


def _deberta_like(first: tuple[str, ...] = ()) -> Family:
    # legacy=True, the default, has a head of another shape than the published checkpoints.
    return Family(
        kind="masked",
        layers="encoder.layer",
        feed_forward=("intermediate", "output"),
        embeddings=("embeddings",),
        first=first,
        dropout="hidden_dropout_prob",
        config=MappingProxyType({"legacy": False}),
        tied_head="lm_predictions.lm_head",
    )


def _llama_like(*, masks_by_type: bool = False) -> Family:
    # Embedding modules are never called with inputs_embeds in these; positions are rotary.
    return Family(kind="causal", layers="layers", final=("norm",), masks_by_type=masks_by_type)


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "bert": _bert_like(),
        "roberta": _bert_like(position_offset=2),
        "xlm-roberta": _bert_like(position_offset=2),
        "electra": _bert_like(extra=("embeddings_project",)),
        "deberta": _deberta_like(),
        "deberta-v2": _deberta_like(first=("encoder.conv",)),
        "modernbert": Family(
            kind="masked",
            layers="layers",
            embeddings=("embeddings",),
            final=("final_norm",),
            dropout="mlp_dropout",
        ),
        "gpt2": Family(
            kind="causal",
            layers="h",
            embeddings=("drop",),
            positions=("wpe",),
            final=("ln_f",),
            dropout="resid_pdrop",
            position_limit="n_positions",
        ),
        "opt": Family(
            kind="causal",
            layers="decoder.layers",
            feed_forward=("fc1", "fc2"),
            embeddings=("decoder.project_in",),
            positions=("decoder.embed_positions",),
            final=("decoder.final_layer_norm", "decoder.project_out"),
            stack="decoder",
            dropout="dropout",
            position_limit="max_position_embeddings",
        ),
        "gpt_neox": Family(
            kind="causal",
            layers="layers",
            embeddings=("emb_dropout",),
            final=("final_layer_norm",),
            dropout="hidden_dropout",
        ),
        "llama": _llama_like(),
        "mistral": _llama_like(),
        "qwen2": _llama_like(masks_by_type=True),
        "qwen3": _llama_like(masks_by_type=True),
        "gemma2": _llama_like(masks_by_type=True),
    }
)


def get_family(model_type: str) -> Family:
    """The entry of a model type as transformers names it (`config.model_type`).

    Raises:
        ConfigError: The family is not supported.
    """
    if model_type not in FAMILIES:
        raise fail(
            "model.path",
            f"a model of type {model_type!r}",
            f"{', '.join(FAMILIES)} {did_you_mean(model_type, FAMILIES)}".strip(),
            "pick a model of a supported family, or add the family (docs/add-a-family.md)",
        )
    return FAMILIES[model_type]
