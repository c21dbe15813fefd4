"""What was trained as files: adapter_model.safetensors and adapter.json, no pickle.

`load_adapter(source)` returns the model that `save_adapter` got, backbone included;
`load_adapter(source, model)` uses another copy of the backbone, and refuses another backbone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lpt.config.method_checks import validate_method
from lpt.config.method_schema import MethodConfig, PromptConfig
from lpt.config.resolve import flatten
from lpt.config.schema import Config, ModelConfig, first_layer
from lpt.config.task_schema import TaskConfig
from lpt.data.tasks import Task
from lpt.errors import ConfigError, config_error
from lpt.files import JsonFile, JsonModel, write_atomically
from lpt.methods.base import Method
from lpt.methods.registry import build_method
from lpt.models.backbone import Backbone, checkpoint_source, find_backbone, load_model
from lpt.models.families import Kind
from lpt.models.fingerprint import fingerprint, tokenizer_fingerprint
from lpt.runs.find_adapter import DESCRIPTION_FILE, TENSORS_FILE, find_adapter
from lpt.runs.record import RunRecord
from lpt.runs.run_dir import METRICS_FILE


class BackboneIdentity(JsonModel):
    """Which frozen weights an adapter belongs to; see `lpt.config.schema.ModelConfig`."""

    name: str
    path: str | None
    """Hub id; None for a local folder, which is somewhere else on another machine."""
    revision: str | None
    package: str | None
    gguf_file: str | None
    model_type: str
    """Family, as transformers names it."""
    dtype: Literal["float32", "bfloat16", "float16"]
    attention: Literal["sdpa", "eager", "flash_attention_2"]
    fingerprint: str
    """See `lpt.models.fingerprint`; of the weights in `dtype`."""
    tokenizer: str
    """Fingerprint of its tokenizer."""


class MethodDescription(JsonModel):
    """What is needed to put the method in; see `lpt.config.method_schema.MethodConfig`."""

    name: str
    r: int | None
    alpha: float | None
    dropout: float | None
    target_modules: str | list[str] | None
    length: int | None
    bottleneck: int | None
    placement: str | None
    config: dict[str, Any]


class PromptDescription(JsonModel):
    """What is needed to build a late prompt; see `lpt.config.method_schema.PromptConfig`."""

    kind: str
    length: int = Field(ge=1)
    bottleneck: int | None = Field(ge=1)
    args: dict[str, Any] = Field(default_factory=dict)
    layers: list[int] = Field(default_factory=list)


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

    file_name = DESCRIPTION_FILE

    format: Literal[4] = 4
    sha256: str
    """Of adapter_model.safetensors."""
    backbone: BackboneIdentity
    layer: int = Field(ge=1)
    """First layer that the method changes."""
    method: MethodDescription
    prompt: PromptDescription | None
    """Of a late prompt."""
    task: TaskDescription
    demonstrations: tuple[str, ...] = ()
    """Texts in front of every text, of in-context learning."""


def identify_backbone(
    config: ModelConfig, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> BackboneIdentity:
    """The identity of a loaded backbone with this resolved configuration."""
    source = checkpoint_source(config)
    if source["path"] is not None and Path(source["path"]).is_dir():
        source["path"] = None
    return BackboneIdentity(
        **source,
        model_type=model.config.model_type,
        dtype=config.dtype,  # type: ignore[arg-type]  # validated
        attention=config.attention,  # type: ignore[arg-type]
        fingerprint=fingerprint(model),
        tokenizer=tokenizer_fingerprint(tokenizer),
    )


def save_adapter(
    model: Method, folder: Path, backbone: BackboneIdentity, config: Config, task: Task
) -> None:
    """Write the trainable part and then its description; `config` is the resolved configuration.

    Raises:
        OSError: A file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = save({name: t.detach().cpu().contiguous() for name, t in model.tensors().items()})
    write_atomically(folder / TENSORS_FILE, content)
    model.save_config(folder, backbone.path)
    prompt = None
    if config.prompt is not None:
        prompt = PromptDescription.model_validate(config.prompt, from_attributes=True)
    AdapterDescription(
        sha256=hashlib.sha256(content).hexdigest(),
        backbone=backbone,
        layer=first_layer(config) or 1,
        method=MethodDescription.model_validate(config.method, from_attributes=True),
        prompt=prompt,
        task=describe_task(config, task),
        demonstrations=model.demonstrations,
    ).write(folder)


def describe_task(config: Config, task: Task) -> TaskDescription:
    """What an adapter that is trained with this resolved configuration is for."""
    return TaskDescription(
        name=task.config.name,
        kind=task.template.kind,
        template=task.template.text,
        labels=tuple(task.config.labels),
        label_words=tuple(task.config.label_words),
        max_length=config.data.max_length,
        value_range=task.value_range,
    )


def find_adapter_backbone(
    source: Path | str, model: PreTrainedModel | Path | str | None = None
) -> Backbone:
    """Config and tokenizer of an adapter's backbone.

    Args:
        source: See `find_adapter`.
        model: Local folder or Hub id of the backbone, or the loaded model; None: the Hub id or
            package that the adapter names, or the local folder that the run around it was started
            with.

    Raises:
        ConfigError: There is no adapter, or its backbone cannot be found or has another tokenizer.
    """
    folder = find_adapter(source)
    backbone = AdapterDescription.read(folder).backbone
    arguments = checkpoint_source(backbone)
    loaded = isinstance(model, PreTrainedModel)
    path = model.name_or_path or None if isinstance(model, PreTrainedModel) else model
    if path is None and backbone.path is None and backbone.package is None:
        path = _path_of_run(folder)
        if path is None or not Path(path).is_dir():
            given = f"none for {folder}, whose backbone {backbone.name} was a local folder"
            expected = f"the folder or hub id of {backbone.name}, {backbone.model_type}"
            hint = f'--model FOLDER; in Python: Predictor("{folder}", model=FOLDER)'
            raise config_error("model", given, expected, hint)
    if path is not None:
        local = Path(path).is_dir()
        in_folder = local and not loaded and backbone.package is None
        arguments |= {
            "path": str(path),
            "package": None,
            "gguf_file": backbone.gguf_file if in_folder else None,
            "revision": None if local else backbone.revision,
        }
    found = find_backbone(**arguments)
    if (tokenizer := tokenizer_fingerprint(found.tokenizer)) != backbone.tokenizer:
        given = f"the tokenizer of {found.source}, fingerprint {tokenizer}"
        raise config_error(str(folder), given, f"that of {backbone.name}, {backbone.tokenizer}")
    return found


def _path_of_run(folder: Path) -> str | None:
    """`model.path` of the run whose folder an adapter lies in; None if it lies elsewhere."""
    run_dir = folder.absolute().parent
    if not (run_dir / METRICS_FILE).is_file():
        return None
    path = flatten(RunRecord.read(run_dir).config).get("model.path")
    return path if isinstance(path, str) else None


def load_adapter_backbone(source: Path | str, model: Path | str | None = None) -> PreTrainedModel:
    """The backbone of an adapter with its weights; see `find_adapter_backbone`."""
    backbone = AdapterDescription.read(find_adapter(source)).backbone
    found = find_adapter_backbone(source, model)
    return load_model(found, dtype=getattr(torch, backbone.dtype), attention=backbone.attention)


def load_adapter(
    source: Path | str,
    model: PreTrainedModel | Path | str | None = None,
    *,
    word_ids: Sequence[int] | None = None,
) -> Method:
    """The trained model in eval mode.

    Args:
        source: See `find_adapter`.
        model: The backbone, loaded or as `find_adapter_backbone` takes it.
        word_ids: Tokens whose logits are computed with `words_only`.

    Raises:
        ConfigError: There is no adapter, it is damaged, or the backbone is not the one it was
            trained on.
    """
    folder = find_adapter(source)
    description = AdapterDescription.read(folder)
    backbone = description.backbone
    loaded = model if isinstance(model, PreTrainedModel) else load_adapter_backbone(folder, model)
    if (weights := fingerprint(loaded)) != backbone.fingerprint:
        raise config_error(
            str(folder),
            f"backbone {loaded.config.name_or_path}, {loaded.dtype}, fingerprint {weights}",
            f"the backbone it was trained on: {backbone.path or backbone.package or backbone.name},"
            f" {backbone.dtype}, fingerprint {backbone.fingerprint}",
            "load that backbone in that type; load_adapter(folder, FOLDER_OR_HUB_ID) does so",
        )
    tensors = load_tensors(folder, description)
    try:
        validate_method(config := _config(description)).raise_if_any()
        with isolate_rng():  # for initial values that are replaced
            method = build_method(config, loaded, word_ids)
        method.load_tensors(tensors)
        method.demonstrations = description.demonstrations
    except (ValueError, RuntimeError) as error:
        raise _damaged(folder, error) from error
    return method.eval()


def _damaged(folder: Path, error: Exception) -> ConfigError:
    expected = f"{TENSORS_FILE} and {DESCRIPTION_FILE} as save_adapter wrote them"
    given = error.listing if isinstance(error, ConfigError) else str(error)
    return config_error(str(folder), given, expected)


def _config(description: AdapterDescription) -> Config:
    """The part of a configuration that describes the model."""
    prompt, layer = description.prompt, description.layer
    return Config(
        model=ModelConfig(name=description.backbone.name),
        task=TaskConfig(labels=list(description.task.labels)),
        method=MethodConfig(**description.method.model_dump(), layer=layer),
        prompt=None if prompt is None else PromptConfig(**prompt.model_dump(), layer=layer),
    )


def load_tensors(folder: Path, description: AdapterDescription) -> dict[str, Tensor]:
    """The trained tensors of an adapter, by name.

    Raises:
        ConfigError: They cannot be read, or are not those that the description was written for.
    """
    try:
        content = (folder / TENSORS_FILE).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if digest != description.sha256:
            expected = f"{description.sha256:.64}"
            raise ValueError(f"{TENSORS_FILE} has the SHA-256 {digest} instead of {expected}")
        return load(content)
    except (OSError, ValueError, SafetensorError) as error:
        raise _damaged(folder, error) from error
