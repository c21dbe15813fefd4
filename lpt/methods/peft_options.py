"""Which methods and options of PEFT a run can choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from lpt.errors import Problems, config_error, did_you_mean

# Types that are no weight methods, or no function of one row; with what there is instead.
_UNFIT = {
    "ADALORA": "method=adalora, which allocates the ranks",
    "CARTRIDGE": "method=prefix",
    "PREFIX_TUNING": "method=prefix",
    "PROMPT_TUNING": "method=late_prompt prompt=static prompt.layer=1",
    "P_TUNING": "method=ptuning",
    "CPT": "",
    "ADAPTION_PROMPT": "",
    "SHADOW": "",
    "XLORA": "",
    "TRAINABLE_TOKENS": "",  # of the word embeddings, which are in no layer
    "MULTITASK_PROMPT_TUNING": "it needs task ids, and there is one task",
    "POLY": "it needs task ids, and there is one task",
    "LILY": "its router takes the mean over the batch, so a row would depend on the others",
}
_SET_BY_LPT = {  # options of PEFT, and what to set instead
    "peft_type": "method=peft",
    "target_modules": "method.target_modules",
    "layers_to_transform": "method.layer",
    "layers_pattern": "method.layer",
    "num_virtual_tokens": "method.length",
    **dict.fromkeys(("encoder_hidden_size", "prefix_projection"), "method.bottleneck"),
    **dict.fromkeys(("token_dim", "num_layers", "num_attention_heads"), ""),
    "num_transformer_submodules": "",
    **dict.fromkeys(("init_r", "target_r"), "method.r"),
    **dict.fromkeys(("total_step", "tinit", "tfinal"), "they follow from the steps of the run"),
    **dict.fromkeys(("layer_replication", "modules_to_save", "trainable_token_indices"), ""),
    **dict.fromkeys(("alora_invocation_tokens", "task_type", "inference_mode"), ""),
    **dict.fromkeys(("auto_mapping", "base_model_name_or_path", "revision", "peft_version"), ""),
}
# The others change the frozen weights, which are not saved, or need data.
_LORA_INITS = (True, False, "gaussian", "orthogonal", "mica")


def weight_method_config(peft_type: str) -> Any:
    """PEFT's config class of a weight method.

    Raises:
        ConfigError: There is none of that type.
    """
    fitting = sorted(
        str(name.value)
        for name, config_class in PEFT_TYPE_TO_CONFIG_MAPPING.items()
        if name not in _UNFIT and "target_modules" in config_class.__dataclass_fields__
    )
    if peft_type not in fitting:
        hint = _UNFIT.get(peft_type) or did_you_mean(peft_type.upper(), fitting)
        expected = f"a weight method of PEFT: {', '.join(fitting)}"
        raise config_error("method.config.peft_type", peft_type, expected, hint)
    return PEFT_TYPE_TO_CONFIG_MAPPING[peft_type]


def check_options(options: Mapping[str, Any], config_class: Any) -> None:
    """Check the names of PEFT's options, and the values that it takes and lpt does not.

    Raises:
        ConfigError: An option that PEFT does not have, or that a run cannot choose.
    """
    problems = Problems()
    known = sorted({option.name for option in fields(config_class)} - _SET_BY_LPT.keys())
    for name, value in options.items():
        key = f"method.config.{name}"
        if name in _SET_BY_LPT:
            problems.add(key, str(value), "no such key: lpt sets it", _SET_BY_LPT[name])
        elif name not in known:
            expected = f"an option of {config_class.__name__}: {', '.join(known)}"
            problems.add(key, str(value), expected, did_you_mean(name, known))
        elif name == "init_lora_weights" and value not in _LORA_INITS:
            problems.add(key, str(value), ", ".join(map(str, _LORA_INITS)))
    problems.raise_if_any()
