"""Model families as data, for the split: a new family is one entry here.

Paths are relative to the base model (`model.base_model`): `RobertaForMaskedLM.roberta`, say.
See docs/add-a-family.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from lpt.errors import config_error, did_you_mean

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

Kind = Literal["masked", "causal"]


@dataclass(frozen=True)
class Family:
    """Where the models of a family keep the parts that the split replaces.

    Attributes:
        kind: Masked or causal language model.
        layers: Path of the layer list.
        projections: Modules of a layer that compute queries, keys and values token by token.
        per_token: Chains of modules of a layer whose output for a token affects that token only:
            the queries if they have a module of their own, the attention output, the feed-forward
            part. The input of the first module and the output of the last one are (B, T, D).
        sublayer_outputs: Modules of a layer whose outputs are those of attention and feed-forward
            part, before they are added to the residual stream: where bottleneck adapters go.
        embeddings: Modules already applied to the input of the upper stack; there they return their
            `inputs_embeds` (or only argument) unchanged.
        positions: Position embeddings that the forward adds itself; zero in the upper stack.
        first: Modules of the first layer outside the layer list; in the upper stack only if l = 1.
        final: Modules after the last layer; identities in the lower stack.
        stack: Module whose output the head takes, if not the base model itself.
        dropout: Config name of the hidden dropout rate; None if the family has none.
        position_limit: Config name of the size of the position table; None for relative positions.
        position_offset: Entries at the start of the position table that no token uses.
        config: Config values that the language-model head needs in order to load.
        tied_head: Head module that takes the word embeddings as an argument and has its own bias,
            if there is no output layer.
        masks_by_type: Whether the forward takes one mask per attention type of its layers.
        attention: Attention implementation that transformers picks for it by default.
    """

    kind: Kind
    layers: str
    projections: tuple[str, ...]
    per_token: tuple[tuple[str, ...], ...]
    sublayer_outputs: tuple[str, str]
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
    attention: Literal["sdpa", "eager"] = "sdpa"

    def hidden_dropout(self, config: PretrainedConfig) -> float:
        """Dropout rate of the hidden states that a model was pretrained with."""
        return float(getattr(config, self.dropout, 0.0)) if self.dropout else 0.0

    def of_stack(self) -> Family:
        """The family with its paths relative to `stack`."""

        def below(paths: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(path.removeprefix(f"{self.stack}.") for path in paths)

        return replace(
            self,
            stack="",
            layers=self.layers.removeprefix(f"{self.stack}."),
            embeddings=below(self.embeddings),
            positions=below(self.positions),
            first=below(self.first),
            final=below(self.final),
        )


_BERT_FEED_FORWARD = ("intermediate", "output")
_BERT_OUTPUTS = ("attention.output.dropout", "output.dropout")
_LLAMA_PROJECTIONS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


def _bert_like(position_offset: int = 0, extra: tuple[str, ...] = ()) -> Family:
    return Family(
        kind="masked",
        layers="encoder.layer",
        projections=("attention.self.query", "attention.self.key", "attention.self.value"),
        per_token=(("attention.self.query",), ("attention.output",), _BERT_FEED_FORWARD),
        sublayer_outputs=_BERT_OUTPUTS,
        embeddings=("embeddings", *extra),
        dropout="hidden_dropout_prob",
        position_limit="max_position_embeddings",
        position_offset=position_offset,
    )


def _deberta_like(projections: tuple[str, ...], first: tuple[str, ...] = ()) -> Family:
    # With legacy=True, the default, the head differs from that of the published checkpoints.
    return Family(
        kind="masked",
        layers="encoder.layer",
        projections=tuple(f"attention.self.{name}" for name in projections),
        # Not the queries: their module also projects the relative positions.
        per_token=(("attention.output",), _BERT_FEED_FORWARD),
        sublayer_outputs=_BERT_OUTPUTS,
        embeddings=("embeddings",),
        first=first,
        dropout="hidden_dropout_prob",
        config=MappingProxyType({"legacy": False}),
        tied_head="lm_predictions.lm_head",
        attention="eager",
    )


def _llama_like(*, masks_by_type: bool = False) -> Family:
    # These forwards skip the embedding modules if they get inputs_embeds; positions are rotary.
    return Family(
        kind="causal",
        layers="layers",
        projections=_LLAMA_PROJECTIONS,
        per_token=(("self_attn.q_proj",), ("self_attn.o_proj",), ("mlp",)),
        sublayer_outputs=("self_attn.o_proj", "mlp"),
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
            sublayer_outputs=("attn.Wo", "mlp"),
            embeddings=("embeddings",),
            final=("final_norm",),
            dropout="mlp_dropout",
        ),
        "gpt2": Family(
            kind="causal",
            layers="h",
            projections=("attn.c_attn",),
            per_token=(("attn.c_proj",), ("mlp",)),
            sublayer_outputs=("attn.c_proj", "mlp"),
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
            sublayer_outputs=("self_attn.out_proj", "fc2"),
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
            sublayer_outputs=("attention.dense", "mlp"),
            embeddings=("emb_dropout",),
            final=("final_layer_norm",),
            dropout="hidden_dropout",
        ),
        "llama": _llama_like(),
        "mistral": _llama_like(),
        "qwen2": _llama_like(masks_by_type=True),
        "qwen3": _llama_like(masks_by_type=True),
        "gemma2": replace(_llama_like(masks_by_type=True), attention="eager"),
    }
)


def get_family(model_type: str) -> Family:
    """The family of a model type (`config.model_type` in transformers).

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


def layer_paths(model: PreTrainedModel, first: int) -> list[str]:
    """Paths in `model` of its layers from number `first` on, 1-based."""
    family = get_family(model.config.model_type)
    count = len(model.base_model.get_submodule(family.layers))
    stack = f"{model.base_model_prefix}.{family.layers}"
    return [f"{stack}.{index}" for index in range(first - 1, count)]
