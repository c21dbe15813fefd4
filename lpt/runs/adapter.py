"""The trained prompt as files: `adapter.safetensors` and `adapter.json`, no pickle.

`save_adapter` is what a run does at its end. `load_adapter(folder)` gives the same model again,
backbone included; `load_adapter(folder, model)` uses a backbone at hand and refuses another one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from transformers import PreTrainedModel

from lpt.config.constraints import limits
from lpt.errors import Problems, config_error
from lpt.files import write_atomically
from lpt.methods.late_prompt import LatePrompt
from lpt.models.backbone import Backbone, checkpoint_source, find_backbone, fingerprint, load_model
from lpt.models.families import Kind
from lpt.models.generators import GENERATORS, PromptGenerator, build_generator
from lpt.models.split import SplitModel
from lpt.runs.json_records import read_json, to_record

FORMAT = 2
_TENSORS = "adapter.safetensors"
_DESCRIPTION = "adapter.json"
_MOST = 1 << 20  # prompt vectors, or width of a generator: sizes stay countable
_SHOWN = 8
_SHOWN_TEXT = 60


@dataclass(frozen=True)
class BackboneIdentity:
    """Which frozen weights an adapter belongs to.

    Attributes:
        name: Short name.
        path: Folder or hub id; None with `package`.
        revision: Branch, tag or commit on the hub.
        package: Python package that carries the weights.
        gguf_file: GGUF file in the folder.
        model_type: Family, as transformers names it.
        dtype: Type of the frozen weights.
        attention: Attention implementation that was asked for or picked; None: transformers picks.
        fingerprint: SHA-256 of the weights in that type, shortened.
    """

    name: str
    path: str | None
    revision: str | None
    package: str | None
    gguf_file: str | None
    model_type: str
    dtype: str = field(metadata=limits(choices=("float32", "bfloat16", "float16")))
    attention: str | None = field(metadata=limits(choices=("sdpa", "eager", "flash_attention_2")))
    fingerprint: str


@dataclass(frozen=True)
class PromptDescription:
    """What is needed to build the trainable part: see `lpt.config.schema.PromptConfig`."""

    kind: str = field(metadata=limits(choices=("static", *GENERATORS)))
    layer: int = field(metadata=limits(ge=1))
    length: int = field(metadata=limits(ge=1, le=_MOST))
    bottleneck: int | None = field(metadata=limits(ge=1, le=_MOST))


@dataclass(frozen=True)
class TaskDescription:
    """The task, for whoever uses an adapter: see `lpt.data.tasks.Task`."""

    name: str
    kind: Kind
    template: str
    labels: list[str]
    label_words: list[str]
    max_length: int = field(metadata=limits(ge=1))
    value_range: list[float] | None


@dataclass(frozen=True)
class Description:
    """What adapter.json says.

    Attributes:
        format: Version of all this.
        sha256: Of adapter.safetensors.
        backbone: The frozen weights.
        prompt: The trainable part.
        task: What it was trained for.
    """

    format: int
    sha256: str
    backbone: BackboneIdentity
    prompt: PromptDescription
    task: TaskDescription


def save_adapter(
    model: LatePrompt,
    folder: Path,
    *,
    backbone: BackboneIdentity,
    prompt: PromptDescription,
    task: TaskDescription,
) -> None:
    """Write the trainable part and what it belongs to, the description last.

    Args:
        model: The trained model.
        folder: Made if it is not there.
        backbone: The frozen weights it was trained on.
        prompt: How to build the trainable part.
        task: For whoever uses the adapter.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {n: p.detach().cpu().contiguous() for n, p in model.generator.named_parameters()}
    content = save(tensors)
    digest = hashlib.sha256(content).hexdigest()
    description = Description(FORMAT, digest, backbone, prompt, task)
    write_atomically(folder / _TENSORS, content)
    write_atomically(folder / _DESCRIPTION, json.dumps(asdict(description), indent=2) + "\n")


def load_adapter(
    folder: Path | str,
    model: PreTrainedModel | None = None,
    *,
    word_ids: Sequence[int] | None = None,
) -> LatePrompt:
    """The trained model in eval mode.

    Args:
        folder: What `save_adapter` wrote.
        model: The backbone, if it is at hand; None: loaded from where the adapter says.
        word_ids: Tokens whose logits it is to give with `words_only`.

    Raises:
        ConfigError: The folder is no adapter, a byte of it is wrong, or the backbone is not the one
            it was trained on.
    """
    folder = Path(folder)
    description = read_description(folder)
    backbone, prompt = description.backbone, description.prompt
    if model is None:
        found = find_adapter_backbone(backbone)
        dtype = getattr(torch, backbone.dtype)
        model = load_model(found, dtype=dtype, attention=backbone.attention)
    _refuse_other(folder, backbone, model)
    if prompt.layer > model.config.num_hidden_layers:
        where, layers = f"{folder / _DESCRIPTION}: prompt.layer", model.config.num_hidden_layers
        raise config_error(
            where, str(prompt.layer), f"1 to {layers}, the layers of {backbone.name}"
        )
    file = folder / _TENSORS
    generator = _read_generator(file, description.sha256, prompt, model.config.hidden_size)
    split = SplitModel(model, prompt.layer, word_ids=word_ids)
    return LatePrompt(split, generator).eval()


def find_adapter_backbone(backbone: BackboneIdentity) -> Backbone:
    """Config and tokenizer of the backbone that an adapter belongs to.

    Raises:
        ConfigError: It is not where it was when the adapter was trained.
    """
    return find_backbone(**checkpoint_source(backbone))


def read_description(folder: Path) -> Description:
    """What an adapter is.

    Raises:
        ConfigError: The folder holds no adapter of this format; every fault is named.
    """
    file = folder / _DESCRIPTION
    expected = f"the description of an adapter, format {FORMAT}"
    try:
        content = read_json(file)
    except (OSError, ValueError) as error:
        raise config_error(str(file), str(error), expected) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        given = content.get("format") if isinstance(content, dict) else "no object"
        raise config_error(str(file), f"format {given}", expected)
    problems = Problems()
    description = to_record(Description, content, f"{file}: ", problems)
    if description is not None:
        _check_task(description.task, f"{file}: task.", problems)
    problems.raise_if_any()
    assert description is not None
    return description


def _check_task(task: TaskDescription, where: str, problems: Problems) -> None:
    if len(task.labels) < 2 or len(task.label_words) != len(task.labels):
        given = f"{len(task.label_words)} words for {len(task.labels)} labels"
        problems.add(f"{where}words", given, "a word for each of at least two labels")
    scale = task.value_range
    if scale is not None and not (len(scale) == 2 and scale[0] < scale[1]):
        expected = "the two ends of a range, finite numbers, the smaller one first; or null"
        problems.add(f"{where}scale", str(scale[:3])[:_SHOWN_TEXT], expected)


def _read_generator(
    file: Path, sha256: str, prompt: PromptDescription, hidden_size: int
) -> PromptGenerator:
    """The generator with its tensors, once file, names, shapes and types are the described ones.

    Raises:
        ConfigError: They are not.
    """

    def build() -> PromptGenerator:
        return build_generator(
            prompt.kind,
            hidden_size=hidden_size,
            length=prompt.length,
            bottleneck=prompt.bottleneck,
        )

    try:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        if digest != sha256:
            raise ValueError(f"SHA-256 {digest} instead of {sha256:.64}")
        with torch.device("meta"):  # takes no memory, whatever the sizes
            expected = {n: ("F32", list(p.shape)) for n, p in build().named_parameters()}
        with safe_open(file, "pt") as tensors:
            views = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
            found = {n: (v.get_dtype(), v.get_shape()) for n, v in views.items()}
            if found == expected:
                generator = build()
                generator.load_state_dict({name: tensors.get_tensor(name) for name in found})
                return generator
    except (OSError, ValueError, SafetensorError) as error:
        raise config_error(str(file), str(error), "the tensors of an adapter") from error
    raise config_error(
        str(file), _tensor_list(found), f"{_tensor_list(expected)}, as {_DESCRIPTION} says"
    )


def _tensor_list(tensors: Mapping[str, tuple[str, list[int]]]) -> str:
    shown = [f"{name} {dtype} {shape}" for name, (dtype, shape) in sorted(tensors.items())]
    return ", ".join(shown[:_SHOWN]) + (", ..." if len(shown) > _SHOWN else "")


def _refuse_other(folder: Path, trained_on: BackboneIdentity, model: PreTrainedModel) -> None:
    given = fingerprint(model)
    if given == trained_on.fingerprint:
        return
    name = model.config.name_or_path or model.config.model_type
    raise config_error(
        str(folder),
        f"backbone {name} ({model.config.model_type}, {model.dtype}, weights {given})",
        f"the backbone it was trained on: {trained_on.name} from "
        f"{trained_on.path or trained_on.package} ({trained_on.model_type}, "
        f"torch.{trained_on.dtype}, weights {trained_on.fingerprint})",
        "load that backbone in that type; load_adapter(folder) does it by itself",
    )
