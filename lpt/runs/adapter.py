"""The trained prompt as files: adapter.safetensors and adapter.json, no pickle.

`load_adapter(folder)` returns the model that `save_adapter` got, backbone included;
`load_adapter(folder, model)` uses a loaded backbone and refuses another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import torch
from pydantic import AfterValidator, Field, model_validator
from safetensors import SafetensorError
from safetensors.torch import load, save
from transformers import PreTrainedModel

from lpt.config.schema import PROMPT_KINDS, Config, ModelConfig
from lpt.data.tasks import Task
from lpt.errors import config_error
from lpt.files import JsonModel, read_json_model, write_atomically
from lpt.methods.late_prompt import LatePrompt
from lpt.models.backbone import checkpoint_source, find_backbone, fingerprint, load_model
from lpt.models.families import Kind
from lpt.models.generators import PromptGenerator, build_generator
from lpt.models.split import SplitModel

_TENSORS = "adapter.safetensors"
_DESCRIPTION = "adapter.json"
_MAX_SIZE = 1 << 20  # of each dimension, so that sizes stay countable


class BackboneIdentity(JsonModel):
    """Which frozen weights an adapter belongs to; see `lpt.config.schema.ModelConfig`.

    Attributes:
        model_type: Family, as transformers names it.
        fingerprint: SHA-256 of the weights in `dtype`, shortened.
    """

    name: str
    path: str | None
    revision: str | None
    package: str | None
    gguf_file: str | None
    model_type: str
    dtype: Literal["float32", "bfloat16", "float16"]
    attention: Literal["sdpa", "eager", "flash_attention_2"]
    fingerprint: str


def _known_kind(kind: str) -> str:
    if kind not in PROMPT_KINDS:
        raise ValueError(f"expected one of {', '.join(PROMPT_KINDS)}")
    return kind


class PromptDescription(JsonModel):
    """What is needed to build the trainable part; see `lpt.config.schema.PromptConfig`."""

    kind: Annotated[str, AfterValidator(_known_kind)]
    layer: int = Field(ge=1)
    length: int = Field(ge=1, le=_MAX_SIZE)
    bottleneck: int | None = Field(ge=1, le=_MAX_SIZE)


class TaskDescription(JsonModel):
    """What the adapter was trained for; see `lpt.data.tasks.Task`."""

    name: str
    kind: Kind
    template: str
    labels: list[str] = Field(min_length=2)
    label_words: list[str]
    max_length: int = Field(ge=1)
    value_range: list[float] | None = Field(min_length=2, max_length=2)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.label_words) != len(self.labels):
            raise ValueError("a label word for each label")
        if self.value_range is not None and self.value_range[0] >= self.value_range[1]:
            raise ValueError("a value_range whose first end is the smaller one")
        return self


class AdapterDescription(JsonModel):
    """Content of adapter.json."""

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
    """Write the trainable part and then its description.

    Args:
        model: The trained model.
        folder: Created if it does not exist.
        backbone: The frozen weights it was trained on.
        config: Resolved configuration of the run.
        task: The task it was trained for.

    Raises:
        OSError: A file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = save(
        {n: p.detach().cpu().contiguous() for n, p in model.generator.named_parameters()}
    )
    prompt = {name: getattr(config.prompt, name) for name in PromptDescription.model_fields}
    description = AdapterDescription(
        sha256=hashlib.sha256(content).hexdigest(),
        backbone=backbone,
        prompt=PromptDescription(**prompt),
        task=TaskDescription(
            name=task.name,
            kind=task.template.kind,
            template=task.template.text,
            labels=list(task.labels),
            label_words=list(task.label_words),
            max_length=config.data.max_length,
            value_range=list(task.value_range) if task.value_range is not None else None,
        ),
    )
    write_atomically(folder / _TENSORS, content)
    write_atomically(folder / _DESCRIPTION, description.model_dump_json(indent=2) + "\n")


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
    description = read_description(folder)
    backbone, prompt = description.backbone, description.prompt
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
    layers = model.config.num_hidden_layers
    if prompt.layer > layers:
        where, expected = f"{folder / _DESCRIPTION}: prompt.layer", f"1 to {layers}"
        raise config_error(where, str(prompt.layer), expected)
    generator = _read_generator(folder / _TENSORS, description, model.config.hidden_size)
    split = SplitModel(model, prompt.layer, word_ids=word_ids)
    return LatePrompt(split, generator).eval()


def read_description(folder: Path) -> AdapterDescription:
    """The description of the adapter in a folder; a `ConfigError` names all of its faults."""
    return read_json_model(folder / _DESCRIPTION, AdapterDescription)


def _read_generator(
    file: Path, description: AdapterDescription, hidden_size: int
) -> PromptGenerator:
    """The generator with its tensors.

    Raises:
        ConfigError: Checksum, names, shapes or types do not match the description.
    """
    prompt = description.prompt
    try:
        content = file.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if digest != description.sha256:
            raise ValueError(f"SHA-256 {digest} instead of {description.sha256:.64}")
        tensors = {name: tensor.clone() for name, tensor in load(content).items()}  # aligned
        with torch.device("meta"):  # allocates nothing, whatever the sizes
            generator = build_generator(
                prompt.kind,
                hidden_size=hidden_size,
                length=prompt.length,
                bottleneck=prompt.bottleneck,
            )
        generator.load_state_dict(tensors, assign=True)
        if any(tensor.dtype != torch.float32 for tensor in tensors.values()):
            raise ValueError("other types than float32")
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        expected = f"the tensors that {_DESCRIPTION} describes"
        raise config_error(str(file), str(error), expected) from error
    return generator
