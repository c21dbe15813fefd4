"""The trained prompt as files: `adapter.safetensors` and `adapter.json`, no pickle.

`save_adapter` is what a run does at its end. `load_adapter(folder)` gives the same model again,
backbone included; `load_adapter(folder, model)` uses a backbone at hand and refuses another one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import PreTrainedModel

from lpt.errors import fail
from lpt.models.backbone import Backbone, find_backbone, fingerprint, load_model, whereabouts
from lpt.models.generators import build_generator
from lpt.models.late_prompt import LatePrompt
from lpt.models.split import SplitModel

FORMAT = 1
_TENSORS = "adapter.safetensors"
_DESCRIPTION = "adapter.json"


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
        attention: Attention implementation asked for.
        fingerprint: SHA-256 of the weights in that type, shortened.
    """

    name: str
    path: str | None
    revision: str | None
    package: str | None
    gguf_file: str | None
    model_type: str
    dtype: str
    attention: str | None
    fingerprint: str


@dataclass(frozen=True)
class PromptDescription:
    """What is needed to build the trainable part: see `lpt.config.PromptConfig`."""

    kind: str
    layer: int
    length: int
    bottleneck: int | None


@dataclass(frozen=True)
class Description:
    """What adapter.json says: the backbone, the prompt, and the task for whoever uses it."""

    backbone: BackboneIdentity
    prompt: PromptDescription
    task: dict[str, Any]


def save_adapter(
    model: LatePrompt,
    folder: Path,
    *,
    backbone: BackboneIdentity,
    prompt: PromptDescription,
    task: dict[str, Any],
) -> None:
    """Write the trainable part and what it belongs to.

    Args:
        model: The trained model.
        folder: Made if it is not there.
        backbone: The frozen weights it was trained on.
        prompt: How to build the trainable part.
        task: Template, labels and words, for whoever uses the adapter.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {n: p.detach().cpu().contiguous() for n, p in model.generator.named_parameters()}
    save_file(tensors, folder / _TENSORS)
    description = {
        "format": FORMAT,
        "backbone": asdict(backbone),
        "prompt": asdict(prompt),
        "task": task,
    }
    (folder / _DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


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
        ConfigError: The folder is no adapter, or the backbone is not the one it was trained on.
    """
    folder = Path(folder)
    description = read_description(folder)
    backbone, prompt = description.backbone, description.prompt
    if model is None:
        found = find_adapter_backbone(backbone)
        dtype = getattr(torch, backbone.dtype)
        model = load_model(found, dtype=dtype, attention=backbone.attention)
    _refuse_other(folder, backbone, model)
    generator = build_generator(
        prompt.kind,
        hidden_size=model.config.hidden_size,
        length=prompt.length,
        bottleneck=prompt.bottleneck,
    )
    generator.load_state_dict(_read_tensors(folder / _TENSORS))
    split = SplitModel(model, prompt.layer, word_ids=word_ids)
    return LatePrompt(split, generator).eval()


def find_adapter_backbone(backbone: BackboneIdentity) -> Backbone:
    """Config and tokenizer of the backbone that an adapter belongs to.

    Raises:
        ConfigError: It is not where it was when the adapter was trained.
    """
    return find_backbone(**whereabouts(backbone))


def read_description(folder: Path) -> Description:
    """What an adapter is.

    Raises:
        ConfigError: The folder holds no adapter of this format.
    """
    file = folder / _DESCRIPTION
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
        if description["format"] != FORMAT:
            raise ValueError(f"format {description['format']}")
        return Description(
            BackboneIdentity(**description["backbone"]),
            PromptDescription(**description["prompt"]),
            description["task"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise fail(
            str(file), str(error), f"the description of an adapter, format {FORMAT}"
        ) from error


def _read_tensors(file: Path) -> dict[str, torch.Tensor]:
    with safe_open(file, "pt") as tensors:
        return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118


def _refuse_other(folder: Path, trained_on: BackboneIdentity, model: PreTrainedModel) -> None:
    given = fingerprint(model)
    if given == trained_on.fingerprint:
        return
    name = model.config.name_or_path or model.config.model_type
    raise fail(
        str(folder),
        f"backbone {name} ({model.config.model_type}, {model.dtype}, weights {given})",
        f"the backbone it was trained on: {trained_on.name} from "
        f"{trained_on.path or trained_on.package} ({trained_on.model_type}, "
        f"torch.{trained_on.dtype}, weights {trained_on.fingerprint})",
        "load that backbone in that type; load_adapter(folder) does it by itself",
    )
