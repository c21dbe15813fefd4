"""The trained prompt as files: adapter.safetensors and adapter.json, no pickle.

`load_adapter(folder)` returns the model that `save_adapter` got, backbone included;
`load_adapter(folder, model)` uses a loaded backbone and refuses another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load, save
from transformers import PreTrainedModel

from lpt.config.schema import Config, ModelConfig
from lpt.data.tasks import Task
from lpt.errors import config_error
from lpt.files import JsonFile, JsonModel, write_atomically
from lpt.methods.late_prompt import LatePrompt
from lpt.models.backbone import checkpoint_source, find_backbone, fingerprint, load_model
from lpt.models.families import Kind
from lpt.models.generators import PromptGenerator, build_generator
from lpt.models.split import SplitModel

_TENSORS = "adapter.safetensors"


class BackboneIdentity(JsonModel):
    """Which frozen weights an adapter belongs to; see `lpt.config.schema.ModelConfig`."""

    name: str
    path: str | None
    revision: str | None
    package: str | None
    gguf_file: str | None
    model_type: str
    """Family, as transformers names it."""
    dtype: Literal["float32", "bfloat16", "float16"]
    attention: Literal["sdpa", "eager", "flash_attention_2"]
    fingerprint: str
    """SHA-256 of the weights in `dtype`, shortened."""


class PromptDescription(JsonModel):
    """What is needed to build the trainable part; see `lpt.config.schema.PromptConfig`."""

    kind: str
    layer: int = Field(ge=1)
    length: int = Field(ge=1)
    bottleneck: int | None = Field(ge=1)


class TaskDescription(JsonModel):
    """What the adapter was trained for; see `lpt.data.tasks.Task`."""

    name: str
    kind: Kind
    template: str
    labels: tuple[str, ...] = Field(min_length=2)
    label_words: tuple[str, ...] = Field(min_length=2)
    max_length: int = Field(ge=1)
    value_range: tuple[float, float] | None


class AdapterDescription(JsonFile):
    """Content of adapter.json."""

    file_name = "adapter.json"

    format: Literal[3] = 3
    sha256: str
    """Of adapter.safetensors."""
    backbone: BackboneIdentity
    prompt: PromptDescription
    task: TaskDescription


def identify_backbone(config: ModelConfig, model: PreTrainedModel) -> BackboneIdentity:
    """The identity of a loaded backbone with this resolved configuration."""
    source = checkpoint_source(config)
    if source["path"] is not None and Path(source["path"]).is_dir():
        source["path"] = str(Path(source["path"]).resolve())  # valid from any directory
    return BackboneIdentity(
        **source,
        model_type=model.config.model_type,
        dtype=config.dtype,  # type: ignore[arg-type]  # validated
        attention=config.attention,  # type: ignore[arg-type]
        fingerprint=fingerprint(model),
    )


def save_adapter(
    model: LatePrompt, folder: Path, backbone: BackboneIdentity, config: Config, task: Task
) -> None:
    """Write the trainable part and then its description; `config` is the resolved configuration.

    Raises:
        OSError: A file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parameters = model.generator.named_parameters()
    content = save({name: p.detach().cpu().contiguous() for name, p in parameters})
    write_atomically(folder / _TENSORS, content)
    AdapterDescription(
        sha256=hashlib.sha256(content).hexdigest(),
        backbone=backbone,
        prompt=PromptDescription.model_validate(config.prompt, from_attributes=True),
        task=TaskDescription(
            name=task.config.name,
            kind=task.template.kind,
            template=task.template.text,
            labels=tuple(task.config.labels),
            label_words=tuple(task.config.label_words),
            max_length=config.data.max_length,
            value_range=task.value_range,
        ),
    ).write(folder)


def load_adapter(
    folder: Path | str,
    model: PreTrainedModel | None = None,
    *,
    word_ids: Sequence[int] | None = None,
) -> LatePrompt:
    """The trained model in eval mode.

    Args:
        folder: What `save_adapter` wrote.
        model: The backbone, if it is loaded already; None: loaded from the path in the adapter.
        word_ids: Tokens whose logits are computed with `words_only`.

    Raises:
        ConfigError: The folder is not an adapter, it is damaged, or the backbone is not the one it
            was trained on.
    """
    folder = Path(folder)
    description = AdapterDescription.read(folder)
    backbone = description.backbone
    if model is None:
        dtype = getattr(torch, backbone.dtype)
        found = find_backbone(**checkpoint_source(backbone))
        model = load_model(found, dtype=dtype, attention=backbone.attention)
    if (weights := fingerprint(model)) != backbone.fingerprint:
        raise config_error(
            str(folder),
            f"backbone {model.config.name_or_path}, {model.dtype}, weights {weights}",
            f"the backbone it was trained on: {backbone.path or backbone.package}, "
            f"{backbone.dtype}, weights {backbone.fingerprint}",
            "load that backbone in that type; load_adapter(folder) does so",
        )
    try:
        generator = _load_generator(folder / _TENSORS, description, model.config.hidden_size)
        split = SplitModel(model, description.prompt.layer, word_ids=word_ids)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        expected = f"{_TENSORS} and {description.file_name} as save_adapter wrote them"
        raise config_error(str(folder), str(error), expected) from error
    return LatePrompt(split, generator).eval()


def _load_generator(
    file: Path, description: AdapterDescription, hidden_size: int
) -> PromptGenerator:
    """The generator with its tensors; an error where these are not what the description says."""
    content, prompt = file.read_bytes(), description.prompt
    digest = hashlib.sha256(content).hexdigest()
    if digest != description.sha256:
        raise ValueError(f"{_TENSORS} has the SHA-256 {digest} instead of {description.sha256:.64}")
    with torch.device("meta"):  # no memory and no random numbers for values that are replaced
        generator = build_generator(
            prompt.kind,
            hidden_size=hidden_size,
            length=prompt.length,
            bottleneck=prompt.bottleneck,
        )
    tensors = {name: tensor.clone() for name, tensor in load(content).items()}  # aligned
    generator.load_state_dict(tensors, assign=True)
    if any(tensor.dtype != torch.float32 for tensor in tensors.values()):
        raise ValueError("other types than float32")
    return generator
