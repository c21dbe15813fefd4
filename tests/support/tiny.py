"""Tiny random models of every supported family, and a tokenizer made on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from lpt.models.families import FAMILIES

_ENCODER: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 96,
}
_DECODER: dict[str, Any] = {**_ENCODER, "num_key_value_heads": 2, "head_dim": 8}
_DEBERTA: dict[str, Any] = {
    **_ENCODER,
    "legacy": False,
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
}
SIZES: dict[str, dict[str, Any]] = {
    "bert": _ENCODER,
    "roberta": {**_ENCODER, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
    "xlm-roberta": {**_ENCODER, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
    "electra": {**_ENCODER, "embedding_size": 16},
    "deberta": _DEBERTA,
    "deberta-v2": {**_DEBERTA, "conv_kernel_size": 3, "conv_act": "gelu", "position_buckets": 16},
    "modernbert": {**_ENCODER, "global_attn_every_n_layers": 3, "local_attention": 16},
    "gpt2": {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_inner": 48, "n_positions": 96},
    "opt": {
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "ffn_dim": 48,
        "max_position_embeddings": 96,
        "word_embed_proj_dim": 16,
    },
    "gpt_neox": _ENCODER,
    "llama": _DECODER,
    "mistral": {**_DECODER, "sliding_window": 8},
    "qwen2": {**_DECODER, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2},
    "qwen3": _DECODER,
    "gemma2": {**_DECODER, "sliding_window": 8, "query_pre_attn_scalar": 8},
}


def tiny_model(model_type: str, vocab_size: int = 120, **changes: Any) -> PreTrainedModel:
    """A random model of four layers, large enough weights for outputs to differ visibly."""
    config = AutoConfig.for_model(
        model_type,
        **{"vocab_size": vocab_size, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
        | SIZES[model_type]
        | changes,
    )
    auto = AutoModelForMaskedLM if FAMILIES[model_type].kind == "masked" else AutoModelForCausalLM
    model = auto.from_config(config)
    torch.manual_seed(0)  # how many numbers transformers draws differs by version
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.2)
            elif "norm" not in name.lower() and "ln_" not in name:
                parameter.normal_(std=0.1)
    return model.eval()


def save_tiny(
    folder: Path, model_type: str, tokenizer: PreTrainedTokenizerFast, **changes: Any
) -> None:
    """A checkpoint of a random model, with its tokenizer."""
    ids = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    tiny_model(model_type, **ids, **changes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
