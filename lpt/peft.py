"""Late prompt tuning in PEFT: importing this module makes LATE_PROMPT one of its methods.

    from lpt.peft import LatePromptConfig
    model = get_peft_model(model, LatePromptConfig(kind="mppg", layer=13))

`to_peft` and `to_lpt` convert adapters; see docs/peft.md.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from peft import PeftConfig
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING, AutoConfig

from lpt.config.method_schema import MethodConfig
from lpt.errors import Problems, config_error, first_line
from lpt.methods.peft_tuner import GENERATORS, LatePromptConfig, stack_path
from lpt.models.families import get_family
from lpt.runs.adapter import (
    AdapterDescription,
    MethodDescription,
    PromptDescription,
    load_tensors,
)
from lpt.runs.find_adapter import DESCRIPTION_FILE, TENSORS_FILE, find_adapter

__all__ = ["LatePromptConfig", "to_lpt", "to_peft"]
_CONFIG_FILE = "adapter_config.json"


def to_peft(source: Path | str) -> dict[str, bytes]:
    """The files that PEFT loads, by name, of an adapter of lpt.

    Args:
        source: See `find_adapter`.

    Raises:
        ConfigError: There is none, it is damaged, or PEFT has no such method.
    """
    folder = find_adapter(source)
    description = AdapterDescription.read(folder)
    tensors = load_tensors(folder, description)
    prompt, backbone = description.prompt, description.backbone
    if prompt is None and (folder / _CONFIG_FILE).is_file():
        return {name: (folder / name).read_bytes() for name in (TENSORS_FILE, _CONFIG_FILE)}
    if prompt is None:
        given = f"an adapter of method={description.method.name} from layer {description.layer} on"
        expected = "a late prompt, or a method that PEFT has, too"
        raise config_error("adapter", given, expected)
    config = LatePromptConfig(
        **prompt.model_dump(),
        layer=description.layer,
        base_model_name_or_path=backbone.path,
        revision=backbone.revision,
        inference_mode=True,
        task_type="CAUSAL_LM" if description.task.kind == "causal" else None,
        lpt_adapter=description.model_dump(mode="json"),
    )
    prefix = _prefix(backbone.model_type)
    return {
        TENSORS_FILE: save({f"{prefix}{name}": tensor for name, tensor in tensors.items()}),
        _CONFIG_FILE: json.dumps(config.to_dict(), indent=2, sort_keys=True).encode(),
    }


def to_lpt(folder: Path | str, like: Path | str | None = None) -> dict[str, bytes]:
    """The files of an adapter of lpt, by name, of a late prompt that PEFT saved.

    Args:
        folder: What `save_pretrained` wrote.
        like: An adapter for the same task and model, see `find_adapter`; None: the one that the
            late prompt was exported from.

    Raises:
        ConfigError: There is no late prompt, it is damaged, or its task and model are not known.
    """
    folder = Path(folder)
    config = _read_config(folder)
    origin = (
        _origin(folder, config) if like is None else AdapterDescription.read(find_adapter(like))
    )
    content = save(_read_tensors(folder, _prefix(origin.backbone.model_type)))
    prompt = config.prompt()
    description = origin.model_copy(
        update={
            "sha256": hashlib.sha256(content).hexdigest(),
            "layer": config.layer,
            "method": MethodDescription.model_validate(
                MethodConfig(name="late_prompt"), from_attributes=True
            ),
            "prompt": PromptDescription.model_validate(prompt, from_attributes=True),
            "demonstrations": (),
        }
    )
    described = f"{description.model_dump_json(indent=2)}\n"
    return {TENSORS_FILE: content, DESCRIPTION_FILE: described.encode()}


def _prefix(model_type: str) -> str:
    """What PEFT's names of the tensors begin with, for a family of models."""
    family = get_family(model_type)
    masked = family.kind == "masked"
    classes: Any = MODEL_FOR_MASKED_LM_MAPPING if masked else MODEL_FOR_CAUSAL_LM_MAPPING
    path = stack_path(classes[type(AutoConfig.for_model(model_type))], family)
    return f"base_model.model.{path}.{GENERATORS}."


def _read_config(folder: Path) -> LatePromptConfig:
    expected = "a folder with a late prompt that PEFT's save_pretrained wrote"
    if not (folder / _CONFIG_FILE).is_file():
        given = f"{folder}, which has no {_CONFIG_FILE}"
        raise config_error("adapter", given, expected)
    try:
        config = PeftConfig.from_pretrained(str(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        given = f"cannot be read: {first_line(error)}"
        raise config_error(str(folder / _CONFIG_FILE), given, expected) from error
    if not isinstance(config, LatePromptConfig):
        given = f"an adapter of type {config.peft_type}"
        raise config_error(str(folder / _CONFIG_FILE), given, expected)
    return config


def _origin(folder: Path, config: LatePromptConfig) -> AdapterDescription:
    where, hint = str(folder / _CONFIG_FILE), "--like ADAPTER: one for the same task and model"
    if config.lpt_adapter is None:
        given = "no lpt_adapter: it was not exported from lpt"
        raise config_error(where, given, "the task and the model that it is for", hint)
    try:
        return AdapterDescription.model_validate_json(json.dumps(config.lpt_adapter))
    except ValidationError as error:
        problems = Problems()
        for fault in error.errors(include_url=False):
            key = ".".join(map(str, ("lpt_adapter", *fault["loc"])))
            problems.add(f"{where}: {key}", fault["msg"], hint=hint)
        problems.raise_if_any()
        raise


def _read_tensors(folder: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors by lpt's names."""
    try:
        tensors = load((folder / TENSORS_FILE).read_bytes())
    except (OSError, SafetensorError) as error:
        raise config_error(str(folder / TENSORS_FILE), str(error), "as PEFT saved it") from error
    problems = Problems()
    with problems.rows(str(folder), "tensors") as foreign:
        for name in tensors:
            if not name.startswith(prefix):
                foreign.add(name, "not a part of the prompt", f"only {prefix}*")
    problems.raise_if_any()
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
