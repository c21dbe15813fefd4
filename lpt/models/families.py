"""What the split needs to know of a model family, as data: a new family is one entry here.

Paths are relative to the base model (`model.base_model`): `RobertaForMaskedLM.roberta`, say.
See docs/add-a-family.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from lpt.errors import config_error, did_you_mean

Kind = Literal["masked", "causal"]


@dataclass(frozen=True)
class Family:
    """Where a family keeps the parts that the split touches.

    Attributes:
        kind: Masked or causal language model.
        layers: Path of the layer list.
        projections: Modules of a layer that make queries, keys and values of each token by itself.
        per_token: Chains of modules of a layer whose output for a token is read only for that same
            token: the queries where they have a module of their own, the attention's output, the
            feed-forward part. A chain's first module is given the tokens, the last one's output has
            their shape again.
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
    projections: tuple[str, ...]
    per_token: tuple[tuple[str, ...], ...]
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


_BERT_FEED_FORWARD = ("intermediate", "output")
_LLAMA_PROJECTIONS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


def _bert_like(position_offset: int = 0, extra: tuple[str, ...] = ()) -> Family:
    return Family(
        kind="masked",
        layers="encoder.layer",
        projections=("attention.self.query", "attention.self.key", "attention.self.value"),
        per_token=(("attention.self.query",), ("attention.output",), _BERT_FEED_FORWARD),
        embeddings=("embeddings", *extra),
        dropout="hidden_dropout_prob",
        position_limit="max_position_embeddings",
        position_offset=position_offset,
    )


def _deberta_like(projections: tuple[str, ...], first: tuple[str, ...] = ()) -> Family:
    # legacy=True, the default, has a head of another shape than the published checkpoints.
    return Family(
        kind="masked",
        layers="encoder.layer",
        projections=tuple(f"attention.self.{name}" for name in projections),
        # Not the queries: their module is given the relative positions too.
        per_token=(("attention.output",), _BERT_FEED_FORWARD),
        embeddings=("embeddings",),
        first=first,
        dropout="hidden_dropout_prob",
        config=MappingProxyType({"legacy": False}),
        tied_head="lm_predictions.lm_head",
    )


def _llama_like(*, masks_by_type: bool = False) -> Family:
    # Embedding modules are never called with inputs_embeds in these; positions are rotary.
    return Family(
        kind="causal",
        layers="layers",
        projections=_LLAMA_PROJECTIONS,
        per_token=(("self_attn.q_proj",), ("self_attn.o_proj",), ("mlp",)),
        final=("norm",),
        masks_by_type=masks_by_type,
    )


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "bert": _bert_like(),
        "roberta": _bert_like(position_offset=2),
        "xlm-roberta": _bert_like(position_offset=2),
        "electra": _bert_like(extra=("embeddings_project",)),
        "deberta": _deberta_like(("in_proj",)),
        "deberta-v2": _deberta_like(
            ("query_proj", "key_proj", "value_proj"), first=("encoder.conv",)
        ),
        "modernbert": Family(
            kind="masked",
            layers="layers",
            projections=("attn.Wqkv",),
            per_token=(("attn.Wo",), ("mlp",)),
            embeddings=("embeddings",),
            final=("final_norm",),
            dropout="mlp_dropout",
        ),
        "gpt2": Family(
            kind="causal",
            layers="h",
            projections=("attn.c_attn",),
            per_token=(("attn.c_proj",), ("mlp",)),
            embeddings=("drop",),
            positions=("wpe",),
            final=("ln_f",),
            dropout="resid_pdrop",
            position_limit="n_positions",
        ),
        "opt": Family(
            kind="causal",
            layers="decoder.layers",
            projections=_LLAMA_PROJECTIONS,
            per_token=(("self_attn.q_proj",), ("self_attn.out_proj",), ("fc1", "fc2")),
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
            projections=("attention.query_key_value",),
            per_token=(("attention.dense",), ("mlp",)),
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
        raise config_error(
            "model.path",
            f"a model of type {model_type!r}",
            f"{', '.join(FAMILIES)} {did_you_mean(model_type, FAMILIES)}".strip(),
            "pick a model of a supported family, or add the family (docs/add-a-family.md)",
        )
    return FAMILIES[model_type]
