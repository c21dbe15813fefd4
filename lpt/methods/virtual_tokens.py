"""Virtual tokens by PEFT's encoders: prefix tuning and P-tuning.

Prefix tuning (Li and Liang, 2021; P-tuning v2, Liu et al., 2022) gives every layer from the first
layer of the method on keys and values of m virtual tokens. P-tuning (Liu et al., 2021) puts m
virtual tokens, which an encoder computes, in front of the word embeddings.

Positions: where the embeddings have absolute ones, the text is shifted by m if the virtual tokens
are there from layer 1 on, as in PEFT; a later prefix leaves the layers below as they were. In
layers with rotary positions the text begins at m, whatever the first layer.

Shapes: B rows, T tokens, m virtual tokens, D hidden size, H heads of keys and values, d head size,
L layers, l first layer of the method.
"""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PrefixTuningConfig, PromptEncoder, PromptEncoderConfig
from peft.tuners.prefix_tuning import PrefixEncoder
from torch import Tensor, nn
from transformers import PreTrainedModel

from lpt.config.method_schema import MethodConfig
from lpt.methods.base import Method, Splitter
from lpt.methods.peft_options import check_options
from lpt.models.families import get_family, layer_paths
from lpt.models.inputs import Batch
from lpt.models.split import SplitModel

_COMPUTED = "prompt_embeddings"  # PEFT saves what the encoder computes under this name


class VirtualTokens(Method):
    """A frozen split model and PEFT's encoder of m virtual tokens, which is trained.

    Args:
        split: The frozen language model.
        encoder: Maps indices of virtual tokens (m,) to vectors.
        peft_config: PEFT's configuration.
    """

    def __init__(self, split: SplitModel, encoder: nn.Module, peft_config: PeftConfig) -> None:
        # Without ".weight": free vectors have no weight decay.
        names = {"embedding.weight": "embedding"}
        trainable = {
            f"prompt_encoder.{names.get(name, name)}": parameter
            for name, parameter in encoder.named_parameters()
        }
        self.length: int = peft_config.num_virtual_tokens
        shift = self.length if split.layer == 1 else 0
        super().__init__(split, trainable, position_shift=shift)
        self.prompt_encoder = encoder
        self.peft_config = peft_config

    def encode(self) -> Tensor:
        """What the encoder makes of the virtual tokens, (m, ...)."""
        [embedding, *_] = self.prompt_encoder.parameters()
        return self.prompt_encoder(torch.arange(self.length, device=embedding.device))

    def tensors(self) -> dict[str, Tensor]:
        """The encoder, and what it computes, which is all that PEFT reads."""
        [embedding, *others] = self.prompt_encoder.parameters()
        if not others:
            return {_COMPUTED: embedding}
        return {**self.trainable(), _COMPUTED: self.encode()}

    def save_config(self, folder: Path, base_model: str | None) -> None:
        """Write adapter_config.json; of the method on the whole model, which PEFT has too."""
        if self.split.layer > 1:
            return
        config = copy.copy(self.peft_config)
        config.base_model_name_or_path, config.inference_mode = base_model, True
        config.save_pretrained(str(folder))


class Prefix(VirtualTokens):
    """Keys and values of virtual tokens in each layer of the upper stack."""

    def upper_inputs(self, hidden: Tensor, batch: Batch) -> dict[str, Any]:
        """The keys and values, (L-l+1, 2, H, m, d)."""
        heads, width = self.peft_config.num_attention_heads, self.peft_config.token_dim
        pairs = self.encode().view(self.length, -1, 2, heads, width // heads)
        return {"prefix": pairs.permute(1, 2, 3, 0, 4)}


class PTuning(VirtualTokens):
    """Virtual tokens in front of the word embeddings."""

    def upper_inputs(self, hidden: Tensor, batch: Batch) -> dict[str, Any]:
        """The virtual tokens behind the embeddings' positions and norms, (B, m, D)."""
        prompt = self.split.embed_prompt(self.encode())
        return {"prompt": prompt.expand(len(hidden), -1, -1)}


def build_prefix(
    model: PreTrainedModel, method: MethodConfig, layer: int, split: Splitter
) -> Prefix:
    """Split a model and make a new prefix, with an MLP of width `bottleneck` if that is set.

    Raises:
        ConfigError: PEFT has no such option.
        ValueError: The model takes no keys and values.
    """
    config = model.config
    if "past_key_values" not in inspect.signature(model.base_model.forward).parameters:
        raise ValueError(f"models of type {config.model_type} take no keys and values of a prefix")
    queries = config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or queries
    head_size = getattr(config, "head_dim", None) or config.hidden_size // queries
    peft_config = _configure(
        PrefixTuningConfig,
        model,
        method,
        num_layers=len(layer_paths(model, layer)),
        num_attention_heads=heads,
        token_dim=heads * head_size,
        prefix_projection=method.bottleneck is not None,
    )
    return Prefix(split(model, {}), PrefixEncoder(peft_config), peft_config)


def build_p_tuning(model: PreTrainedModel, method: MethodConfig, split: Splitter) -> PTuning:
    """Split a model at layer 1 and make a new encoder, an MLP or an LSTM of width `bottleneck`.

    Raises:
        ConfigError: PEFT has no such option.
        ValueError: PEFT refuses the value of an option.
    """
    peft_config = _configure(
        PromptEncoderConfig,
        model,
        method,
        num_layers=len(layer_paths(model, 1)),
        num_attention_heads=model.config.num_attention_heads,
        token_dim=model.get_input_embeddings().embedding_dim,
    )
    return PTuning(split(model, {}), PromptEncoder(peft_config), peft_config)


def _configure(
    kind: type[PeftConfig], model: PreTrainedModel, method: MethodConfig, **options: Any
) -> Any:
    masked = get_family(model.config.model_type).kind == "masked"
    options |= {
        "task_type": "FEATURE_EXTRACTION" if masked else "CAUSAL_LM",
        "num_transformer_submodules": 1,
        "num_virtual_tokens": method.length,
        "encoder_hidden_size": method.bottleneck,
    }
    check_options(method.config, kind)
    return kind(**method.config, **options)
