"""Weight methods of PEFT, injected into the layers from the first layer of the method on.

PEFT puts its modules into the language model before this is split; targets are given to it by their
full names, so that only those layers get any. Prompt methods of PEFT do not work this way.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from peft import PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.constants import (
    TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING,
    TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING,
)
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lpt.config.method_schema import MethodConfig
from lpt.errors import config_error
from lpt.methods.base import Method, Splitter
from lpt.methods.peft_options import check_options, weight_method_config
from lpt.models.families import get_family, layer_paths
from lpt.models.split import SplitModel

_PEFT_TYPES = {
    "lora": "LORA",
    "dora": "LORA",
    "adalora": "ADALORA",
    "ia3": "IA3",
    "ln_tuning": "LN_TUNING",
    "vera": "VERA",
}
ALL_LINEAR, NORMS = "all-linear", "norms"
_EXPECTED_WARNINGS = (  # of PEFT, which does what is right
    "Unsupported layer type",  # a norm, which LN tuning copies whatever its class
    "fan_in_fan_out is set to False but the target module is `Conv1D`",
    "`is_gradient_checkpointing` is deprecated",
)


class PeftMethod(Method):
    """A language model with modules of PEFT in its upper layers.

    Args:
        split: The language model, split after the modules were put in.
        trainable: What trains, by its name in the language model.
        tensors: What PEFT saves, by PEFT's names: these parameters, and constants of some methods.
        peft_config: PEFT's configuration.
    """

    def __init__(
        self,
        split: SplitModel,
        trainable: Mapping[str, nn.Parameter],
        tensors: Mapping[str, Tensor],
        peft_config: PeftConfig,
    ) -> None:
        super().__init__(split, trainable)
        self.peft_config = peft_config
        self._tensors = dict(tensors)

    def save_config(self, folder: Path, base_model: str | None) -> None:
        """Write adapter_config.json, with which PEFT loads the adapter too."""
        config = copy.copy(self.peft_config)
        config.base_model_name_or_path, config.inference_mode = base_model, True
        config.save_pretrained(str(folder))

    def tensors(self) -> dict[str, Tensor]:
        """What is saved, by the names that PEFT loads."""
        return dict(self._tensors)

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """The language model without PEFT's modules; they do nothing meanwhile."""
        layers = self._tuner_layers()
        for layer in layers:
            layer.enable_adapters(False)
        try:
            yield
        finally:
            for layer in layers:
                layer.enable_adapters(True)

    def train(self, mode: bool = True) -> Self:
        """Training mode: dropout of PEFT's modules is the method's own, whatever the frozen one."""
        super().train(mode)
        for layer in self._tuner_layers():
            layer.train(mode)
        return self

    def _tuner_layers(self) -> list[BaseTunerLayer]:
        return [module for module in self.modules() if isinstance(module, BaseTunerLayer)]


def build_peft_method(
    model: PreTrainedModel,
    method: MethodConfig,
    layer: int,
    split: Splitter,
    kind: type[PeftMethod] = PeftMethod,
) -> PeftMethod:
    """Put PEFT's modules into the layers of `model` from `layer` on, and split it.

    Raises:
        ConfigError: PEFT has no such method or option, or no module is a target.
        ValueError: PEFT refuses the model or the settings.
    """
    peft_config = build_peft_config(model, method, layer)
    with warnings.catch_warnings():
        for message in _EXPECTED_WARNINGS:
            warnings.filterwarnings("ignore", message)
        try:
            peft_model = get_peft_model(model, peft_config)
        except TypeError as error:
            raise ValueError(str(error)) from error
    trainable = {
        name: parameter
        for name, parameter in model.named_parameters()
        # AdaLoRA's `ranknum` is a constant, which PEFT takes for a parameter on the meta device.
        if parameter.requires_grad and ".ranknum." not in name
    }
    if not any(parameter.numel() for parameter in trainable.values()):
        raise ValueError("nothing would train")
    tensors = _saved_tensors(peft_model)
    return kind(split(model, trainable), trainable, tensors, peft_config)


def build_peft_config(model: PreTrainedModel, method: MethodConfig, layer: int) -> PeftConfig:
    """The configuration of PEFT, with the full names of the target modules.

    Raises:
        ConfigError: PEFT has no such method or option, or no module is a target.
        ValueError: PEFT refuses the value of an option.
    """
    options = dict(method.config)
    if method.name in _PEFT_TYPES:
        peft_type = _PEFT_TYPES[method.name]
        config_class: Any = PEFT_TYPE_TO_CONFIG_MAPPING[peft_type]
    else:
        peft_type = str(options.pop("peft_type", None))
        config_class = weight_method_config(peft_type)
    check_options(options, config_class)
    options = _named_options(method) | options
    targets = method.target_modules or _default_targets(model, peft_type)
    names = find_targets(model, targets, layer)
    if peft_type == "LN_TUNING":  # PEFT would train a copy of any module
        names = [name for name in names if name in find_targets(model, NORMS, layer)]
    if not names:
        expected = f"modules of layers {layer} and above that it can adapt"
        hint = f"the default is {_default_targets(model, peft_type)}"
        raise config_error("method.target_modules", str(targets), expected, hint)
    if method.r is not None and peft_type != "VERA":  # VeRA's random matrices may be wider
        _check_rank(method.r, model, names)
    if peft_type == "IA3":
        ends = options.get("feedforward_modules") or _feed_forward(model)
        options["feedforward_modules"] = [name for name in names if _matches(name, ends)]
    try:
        config: PeftConfig = config_class(target_modules=names, **options)
    except TypeError as error:
        raise ValueError(str(error)) from error
    return config


def _check_rank(rank: int, model: PreTrainedModel, names: Sequence[str]) -> None:
    for name in names:
        module = model.get_submodule(name)
        if isinstance(module, nn.Linear | Conv1D) and rank > min(module.weight.shape):
            expected = f"1 to {min(module.weight.shape)}, the width of {name}"
            raise config_error("method.r", str(rank), expected)


def find_targets(model: PreTrainedModel, targets: str | Sequence[str], layer: int) -> list[str]:
    """Full names of the target modules in the layers from `layer` on.

    At layer 1 they may be anywhere in the base model, but not in the head.

    Args:
        model: The language model.
        targets: Ends of names, a regular expression, or `all-linear`, as in PEFT; `norms` for all
            layer norms.
        layer: First layer, 1-based.
    """
    inside = [f"{model.base_model_prefix}."] if layer == 1 else layer_paths(model, layer)
    prefixes = tuple(path if path.endswith(".") else f"{path}." for path in inside)
    embeddings = model.get_input_embeddings()
    return [
        name
        for name, module in model.named_modules()
        if name.startswith(prefixes)
        and module is not embeddings
        and (
            isinstance(module, nn.Linear | Conv1D)
            if targets == ALL_LINEAR
            else "Norm" in type(module).__name__
            if targets == NORMS
            else _matches(name, targets)
        )
    ]


def _matches(name: str, targets: str | Sequence[str]) -> bool:
    if isinstance(targets, str):
        return re.fullmatch(targets, name) is not None
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _default_targets(model: PreTrainedModel, peft_type: str) -> str | Sequence[str]:
    """Queries and values, or what is theirs in one module; for some methods, as PEFT has it."""
    family = get_family(model.config.model_type)
    if peft_type == "LN_TUNING":
        return NORMS
    if peft_type == "IA3":
        targets = TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING.get(model.config.model_type)
        return targets or (*family.projections[-2:], *_feed_forward(model))
    return sorted({family.projections[0], family.projections[-1]})


def _feed_forward(model: PreTrainedModel) -> Sequence[str]:
    defaults = TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING
    return defaults.get(model.config.model_type) or ("output.dense", "mlp.Wo")


def _named_options(method: MethodConfig) -> dict[str, Any]:
    """PEFT's names of the settings that the methods share."""
    if method.name in ("lora", "dora"):
        options = {"r": method.r, "lora_alpha": method.alpha, "lora_dropout": method.dropout}
        return options | ({"use_dora": True} if method.name == "dora" else {})
    if method.name == "adalora":
        assert method.r is not None
        return {
            "target_r": method.r,
            "init_r": max(method.r + 1, method.r * 3 // 2),
            "total_step": 2,  # until the steps of the run are known
            "lora_alpha": method.alpha,
            "lora_dropout": method.dropout,
        }
    if method.name == "vera":
        return {"r": method.r, "vera_dropout": method.dropout}
    return {}


def _saved_tensors(peft_model: PeftModel) -> dict[str, Tensor]:
    """What PEFT saves, by its names: the parameters themselves, not copies."""
    state = peft_model.state_dict(keep_vars=True)
    saved: dict[str, Tensor] = get_peft_model_state_dict(
        peft_model, state_dict=state, save_embedding_layers=False
    )
    return saved
