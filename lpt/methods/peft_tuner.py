"""Late prompt tuning as a method of PEFT; `lpt.peft` is the public name.

In the language model, the base model is replaced with a tuner layer, as PEFT calls it, that puts a
late prompt in between its layers; the head stays as it is. Importing this module registers the
method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from peft import PeftConfig
from peft.mapping import (
    PEFT_TYPE_TO_CONFIG_MAPPING,
    PEFT_TYPE_TO_PREFIX_MAPPING,
    PEFT_TYPE_TO_TUNER_MAPPING,
)
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel

from lpt.config.checks import check_limits
from lpt.config.method_checks import validate_method
from lpt.config.method_schema import MethodConfig, PromptConfig, default_layer
from lpt.config.schema import Config, ModelConfig
from lpt.errors import config_error
from lpt.methods.late_prompt import check_prompt, make_generator
from lpt.models.families import Family, get_family
from lpt.models.prompted import LatePromptGenerators, PromptedModel

PREFIX = "late_prompt_"
GENERATORS = "late_prompt_generators"
_BOTTLENECK = 128  # of the paper


class _PeftType(str):
    """The name of a method, used like a member of PEFT's enum, which cannot be extended."""

    __slots__ = ()

    @property
    def value(self) -> str:
        """The name."""
        return str(self)


LATE_PROMPT = _PeftType("LATE_PROMPT")


@dataclass
class LatePromptConfig(PeftConfig):
    """A late prompt, as `lpt.config.method_schema.PromptConfig`.

    Attributes:
        kind: npg, mppg, appg, attention, inception, idpg or static.
        layer: First layer that sees the prompt, 1-based; None: L // 2 + 1.
        layers: Layers that a prompt enters at, if several; `layer` is then the lowest.
        length: Number of prompt vectors m.
        bottleneck: Bottleneck width of a generator; None: 128, and none for static.
        args: Hyperparameters of the generator's own.
        dropout: Dropout rate of the prompt vectors; None: the hidden dropout of the model.
        frozen_dropout: Which frozen layers apply dropout in training: those `above` the prompt,
            `all` or `none`.
        modules_to_save: Modules of the model to train and save as well, such as a new head.
        lpt_adapter: Content of adapter.json, of an adapter that lpt trained.
    """

    kind: str = "npg"
    layer: int | None = None
    layers: list[int] = field(default_factory=list)
    length: int = 5
    bottleneck: int | None = None
    args: dict[str, Any] = field(default_factory=dict)
    dropout: float | None = None
    frozen_dropout: str = "above"
    modules_to_save: list[str] | None = None
    lpt_adapter: dict[str, Any] | None = None
    target_modules: ClassVar[None] = None  # PEFT looks at it; it is always the base model

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = LATE_PROMPT

    def resolve(self, model: Any) -> None:
        """Fill in the defaults for a model, and check that they fit.

        Raises:
            ConfigError: They do not.
        """
        depth = model.num_hidden_layers
        self.layers = sorted(self.layers)
        if self.layer is None:
            self.layer = self.layers[0] if self.layers else default_layer("late_prompt", depth)
        if self.bottleneck is None and self.kind != "static":
            self.bottleneck = _BOTTLENECK
        if self.dropout is None:
            self.dropout = get_family(model.model_type).hidden_dropout(model)
        prompt = self.prompt()
        config = Config(
            model=ModelConfig(name=model.model_type, layers=depth, dropout=self.frozen_dropout),
            method=MethodConfig(name="late_prompt"),
            prompt=prompt,
        )
        problems = validate_method(config)
        check_limits(config.model, "model.", problems)
        check_limits(prompt, "prompt.", problems)
        problems.raise_if_any()
        check_prompt(prompt, model.hidden_size, problems)
        problems.raise_if_any()

    def prompt(self) -> PromptConfig:
        """The prompt in lpt's schema."""
        return PromptConfig(
            kind=self.kind,
            layer=self.layer,
            layers=self.layers,
            length=self.length,
            bottleneck=self.bottleneck,
            args=self.args,
            dropout=self.dropout,
        )

    def build(self, hidden_size: int) -> LatePromptGenerators:
        """New generators."""
        prompt = self.prompt()
        return LatePromptGenerators(
            make_generator(prompt, hidden_size),
            {layer: make_generator(prompt, hidden_size) for layer in prompt.layers[1:]},
            length=prompt.length,
            dropout=prompt.dropout or 0.0,
        )


class LatePromptLayer(nn.Module, BaseTunerLayer):
    """Stands for the base model of a language model; see `lpt.models.prompted`."""

    adapter_layer_names = (GENERATORS,)
    other_param_names = ("late_prompt_models",)

    def __init__(self, base: PreTrainedModel) -> None:
        super().__init__()
        self.base_layer = base
        self.late_prompt_generators = nn.ModuleDict()
        # Not submodules: they share all of their parameters with the base model.
        self.late_prompt_models: dict[str, PromptedModel] = {}
        self.training = base.training

    def add(self, name: str, config: LatePromptConfig) -> None:
        """Add an adapter."""
        base, family = self.base_layer, get_family(self.base_layer.config.model_type).of_stack()
        assert config.layer is not None
        generators = config.build(base.config.hidden_size)
        self.late_prompt_generators[name] = generators
        self.late_prompt_models[name] = PromptedModel(
            base, family, config.layer, generators, frozen_dropout=config.frozen_dropout
        )
        self._move_adapter_to_device_of_base_layer(name, base.device)

    def __getattr__(self, name: str) -> Any:
        """Heads and `generate` look at attributes of the base model, such as its embeddings."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base_layer"), name)

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        """Make one adapter the active one.

        Raises:
            ValueError: There are several.
        """
        if len(names := [adapter_names] if isinstance(adapter_names, str) else adapter_names) > 1:
            raise ValueError(f"late prompts {names} cannot be active together, only one of them")
        super().set_adapter(names, inference_mode)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Training mode for the generators, and for the layers that apply dropout."""
        super().train(mode)
        for model in self.late_prompt_models.values():
            model.train(False)
        for name in self.active_adapters:  # last, because adapters share layers
            if name in self.late_prompt_models:
                self.late_prompt_models[name].train(mode)
        return self

    def forward(self, input_ids: Any = None, *, context_length: Any = None, **inputs: Any) -> Any:
        """See `PromptedModel`."""
        if self.disable_adapters or not self.active_adapters:
            return self.base_layer(input_ids, **inputs)
        [name] = self.active_adapters
        model = self.late_prompt_models[name]
        return model(input_ids, context_length=context_length, **inputs)


class LatePromptModel(BaseTuner):
    """The tuner that PEFT builds around a language model."""

    prefix = PREFIX
    tuner_layer_cls = LatePromptLayer
    target_module_mapping: ClassVar[dict[str, list[str]]] = {}

    def _prepare_adapter_config(self, peft_config: Any, model_config: dict[str, Any]) -> Any:
        model = self.model
        path = stack_path(type(model), get_family(model.config.model_type))
        try:
            base = model.get_submodule(path)
        except AttributeError:
            expected = "a model with a head, such as AutoModelForMaskedLM loads"
            raise config_error("model", type(model).__name__, expected) from None
        if hasattr(base, "_hf_hook"):
            given = "spread over several devices by accelerate"
            raise config_error("device_map", given, "a model on one device")
        peft_config.resolve(model.config)
        return peft_config

    def _check_target_module_exists(self, config: Any, key: str) -> bool:
        return key == stack_path(type(self.model), get_family(self.model.config.model_type))

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: Any,
        target_name: str,
        parent: Any,
        current_key: str,
        **_: Any,
    ) -> None:
        if not isinstance(target, LatePromptLayer):
            target = LatePromptLayer(target)
            setattr(parent, target_name, target)
            causal = get_family(self.model.config.model_type).kind == "causal"
            if causal and self.model.can_generate():
                self._hook = self.model.register_forward_pre_hook(_read_context, with_kwargs=True)
        target.add(adapter_name, peft_config)

    def _replace_module(self, parent: Any, child_name: str, new_module: Any, child: Any) -> None:
        setattr(parent, child_name, new_module)

    def _check_merge_allowed(self) -> None:
        raise ValueError("a late prompt cannot be merged into weights; unload() takes it off")

    def _unload_and_optionally_merge(self, *args: Any, **options: Any) -> Any:
        model = super()._unload_and_optionally_merge(*args, **options)
        if hasattr(self, "_hook"):
            self._hook.remove()
        return model

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        own, short = f".{GENERATORS}.{adapter_name}.", f".{GENERATORS}."
        if own in key:
            return key.replace(own, short)
        name: str = super()._remove_adapter_name_from_key(key, adapter_name)
        return name


def stack_path(model_class: type[PreTrainedModel], family: Family) -> str:
    """Path in a language model of the module whose output the head takes."""
    return f"{model_class.base_model_prefix}.{family.stack}".rstrip(".")


def _read_context(
    model: PreTrainedModel, args: Sequence[Any], inputs: dict[str, Any]
) -> tuple[Sequence[Any], dict[str, Any]]:
    """In training, a prompt is made of what comes before the first token with a label."""
    labels = inputs.get("labels")
    if labels is not None and inputs.get("context_length") is None:
        inputs["context_length"] = (labels != -100).cumsum(1).eq(0).sum(1)
    return args, inputs


# PEFT's `register_peft_method` takes members of its enum only.
PEFT_TYPE_TO_CONFIG_MAPPING[LATE_PROMPT] = LatePromptConfig
PEFT_TYPE_TO_TUNER_MAPPING[LATE_PROMPT] = LatePromptModel
PEFT_TYPE_TO_PREFIX_MAPPING[LATE_PROMPT] = PREFIX
