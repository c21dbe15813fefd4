"""The identity of a backbone: its weights, what its config makes of them, and its tokenizer.

It does not depend on how a version of transformers writes its files, so that adapters outlive it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from lpt.errors import config_error
from lpt.models.families import get_family

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# What changes the output of some family, but not the shapes of its weights.
_COMPUTATION = (
    *("model_type", "num_attention_heads", "is_decoder", "layer_types"),
    *("hidden_act", "hidden_activation", "activation_function"),
    *("classifier_activation", "conv_act", "conv_groups"),
    *("layer_norm_eps", "layer_norm_epsilon", "norm_eps", "rms_norm_eps", "norm_rel_ebd"),
    *("do_layer_norm_before", "_remove_final_layer_norm", "use_parallel_residual"),
    *("max_position_embeddings", "rope_parameters", "relative_attention", "position_buckets"),
    *("max_relative_positions", "pos_att_type", "position_biased_input", "share_att_key"),
    *("sliding_window", "local_attention", "use_bidirectional_attention"),
    *("scale_attn_weights", "scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn"),
    *("query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping"),
)
_CHUNK = 1 << 24  # numbers
_SAMPLE = "A naïve Reader's 1st impression:  “It wasn't THAT bad” 很好 – 0.5/10!"


def fingerprint(model: PreTrainedModel) -> str:
    """First 16 hex digits of the SHA-256 of the weights, with names, types and shapes.

    The config values that the output depends on are part of it.

    Raises:
        ConfigError: A tensor has no content, because it is on torch's meta device.
    """
    digest = hashlib.sha256(json.dumps(_computation(model.config), sort_keys=True).encode())
    hashed: dict[tuple[Any, ...], bytes] = {}  # tied weights are hashed once
    for name, value in sorted(model.state_dict().items()):
        if value.is_meta:
            raise config_error("model.path", f"{name} is on the meta device", "loaded weights")
        tensor = value.detach()
        content = _dense(tensor)
        place = content.data_ptr() if content is tensor else 0  # of a temporary one: used again
        key = (place or name, tensor.device, tensor.dtype, tensor.shape, content.stride())
        if key not in hashed:
            hashed[key] = _sha256(content)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(hashed[key])
    return digest.hexdigest()[:16]


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """First 16 hex digits of the SHA-256 of the vocabulary and of the tokens of a sample text."""
    content = [sorted(tokenizer.get_vocab().items()), tokenizer.encode(_SAMPLE)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _dense(tensor: Tensor) -> Tensor:
    """The tensor itself if its numbers are in memory one by one, else a dense copy."""
    if tensor.is_quantized or type(tensor) is not Tensor:
        tensor = tensor.dequantize()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    return tensor.resolve_conj().resolve_neg()


def _sha256(tensor: Tensor) -> bytes:
    digest = hashlib.sha256()
    for chunk in tensor.contiguous().reshape(-1).split(_CHUNK):
        digest.update(chunk.cpu().view(torch.uint8).numpy())
    return digest.digest()


def _computation(config: PretrainedConfig) -> dict[str, Any]:
    """The values of `_COMPUTATION` that are set; each is named as transformers does."""
    found = {key: getattr(config, key, None) for key in _COMPUTATION}
    if set(found["layer_types"] or ()) == {"full_attention"}:
        del found["layer_types"]
    if get_family(config.model_type).position_offset:
        found["pad_token_id"] = config.pad_token_id  # positions are counted from it
    return dict(_plain(found))


def _plain(value: Any) -> Any:
    """Without keys that are null or false, and numbers as floats: 10000 is the same as 10000.0."""
    if isinstance(value, Mapping):
        return {key: _plain(v) for key, v in value.items() if v is not None and v is not False}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else value
