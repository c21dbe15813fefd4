"""The methods by name: what `method=NAME` builds.

A new one is a line here; see docs/add-a-method.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import nn
from transformers import PreTrainedModel

from lpt.config.method_schema import default_layer
from lpt.config.schema import Config, first_layer
from lpt.errors import ConfigError, Problems, config_error
from lpt.methods.adapter import insert_adapters
from lpt.methods.base import Method, Splitter
from lpt.methods.head import LinearHead
from lpt.methods.in_context import InContext
from lpt.methods.late_prompt import build_late_prompt, check_prompt
from lpt.methods.weights import all_weights, biases
from lpt.models.backbone import Backbone, empty_model
from lpt.models.families import get_family
from lpt.models.split import SplitModel

Builder = Callable[[PreTrainedModel, Config, Splitter], Method]


def _full(model: PreTrainedModel, config: Config, split: Splitter) -> Method:
    trainable = all_weights(model, _layer(config))
    return Method(split(model, trainable), trainable)


def _bitfit(model: PreTrainedModel, config: Config, split: Splitter) -> Method:
    trainable = biases(model, _layer(config))
    if not trainable:
        raise ValueError("the layers have no biases")
    return Method(split(model, trainable), trainable)


def _adapter(model: PreTrainedModel, config: Config, split: Splitter) -> Method:
    method = config.method
    assert method.bottleneck is not None
    assert method.placement is not None
    trainable = insert_adapters(
        model, _layer(config), bottleneck=method.bottleneck, placement=method.placement
    )
    return Method(split(model, trainable), trainable)


def _head(model: PreTrainedModel, config: Config, split: Splitter) -> Method:
    return LinearHead(split(model, {}), len(config.task.labels))


def _in_context(model: PreTrainedModel, config: Config, split: Splitter) -> Method:
    if get_family(model.config.model_type).kind == "masked":
        raise ValueError("a causal model reads demonstrations, a masked one does not")
    if config.task.task_type == "regression":
        raise ValueError("a demonstration cannot show a number: label words are for the two ends")
    if _layer(config) > 1:
        raise ValueError("it has no layer: method.layer=null")
    return InContext(split(model, {}))


def _late_prompt(model: PreTrainedModel, config: Config, split: Splitter) -> Method:
    assert config.prompt is not None
    return build_late_prompt(model, config.prompt, split)


def _peft(model: PreTrainedModel, config: Config, split: Splitter) -> Method:
    from lpt.methods.peft_methods import build_peft_method  # an extra, and takes a second

    return build_peft_method(model, config.method, _layer(config), split)


def _adalora(model: PreTrainedModel, config: Config, split: Splitter) -> Method:
    from lpt.methods.adalora import AdaLora
    from lpt.methods.peft_methods import build_peft_method

    return build_peft_method(model, config.method, _layer(config), split, AdaLora)


def _prefix(model: PreTrainedModel, config: Config, split: Splitter) -> Method:
    from lpt.methods.virtual_tokens import build_prefix

    return build_prefix(model, config.method, _layer(config), split)


def _p_tuning(model: PreTrainedModel, config: Config, split: Splitter) -> Method:
    from lpt.methods.virtual_tokens import build_p_tuning

    return build_p_tuning(model, config.method, split)


METHODS: Mapping[str, Builder] = MappingProxyType(
    {
        "late_prompt": _late_prompt,
        "full": _full,
        "bitfit": _bitfit,
        "adapter": _adapter,
        "head": _head,
        "in_context": _in_context,
        "lora": _peft,
        "dora": _peft,
        "adalora": _adalora,
        "ia3": _peft,
        "ln_tuning": _peft,
        "vera": _peft,
        "prefix": _prefix,
        "ptuning": _p_tuning,
        "peft": _peft,
    }
)

BESIDE_THE_MODEL = ("late_prompt", "head", "in_context", "prefix", "ptuning")
"""Methods that leave the language model as it is: several can share one."""


def build_method(config: Config, model: PreTrainedModel, word_ids: Sequence[int] | None) -> Method:
    """Put a method into a loaded backbone; the backbone is changed.

    Args:
        config: Resolved configuration: method, prompt, model and trainer settings.
        model: The backbone with its language-model head.
        word_ids: Token of each label word.

    Raises:
        ConfigError: The method and the backbone do not fit.
    """
    masked = get_family(model.config.model_type).kind == "masked"

    def split(model: PreTrainedModel, trainable: Mapping[str, nn.Parameter]) -> SplitModel:
        return SplitModel(
            model,
            _layer(config),
            word_ids=word_ids if masked else None,
            trainable=trainable.values(),
            further=config.prompt.layers[1:] if config.prompt is not None else (),
            gradient_checkpointing=config.trainer.gradient_checkpointing,
        )

    try:
        method = METHODS[config.method.name](model, config, split)
    except ConfigError:
        raise
    except ValueError as error:
        raise _refusal(config, error) from error
    method.frozen_dropout = config.model.dropout
    if config.trainer.compile:
        method.split.upper.compile(dynamic=True)
    return method


def check_method(config: Config, backbone: Backbone, problems: Problems) -> None:
    """Check that a method fits a backbone before the weights are loaded.

    It is put into a model without weights, of the same shape.
    """
    if config.method.name == "late_prompt":
        assert config.prompt is not None
        check_prompt(config.prompt, backbone.config.hidden_size, problems)
        return
    if config.strategy.name == "fsdp":
        given = f"fsdp with method={config.method.name}"
        problems.add("strategy.name", given, "a late prompt, or strategy=ddp")
    layer = first_layer(config) or default_layer(config.method.name, backbone.layers)
    config = replace(config, method=replace(config.method, layer=layer))
    model = empty_model(backbone, getattr(torch, config.model.dtype))
    with problems.collect():
        try:
            method = build_method(config, model, None)
        except (NotImplementedError, RuntimeError):
            return  # a method that computes its initial values cannot be built without weights
        if any(p.dtype != torch.float32 for p in method.trainable().values()):
            given = f"{config.model.dtype} with method={config.method.name}, which trains weights"
            hint = "model.dtype=float32 trainer.precision=bf16-mixed"
            problems.add("model.dtype", given, "float32", hint)
        longest, taken = config.data.max_length, method.position_shift
        limit = backbone.max_length
        if taken and limit is not None and longest + taken > limit:
            given = f"{longest}, and {taken} virtual tokens"
            expected = f"{limit} in all, the number of positions of the model"
            problems.add("data.max_length", given, expected)


def _layer(config: Config) -> int:
    layer = first_layer(config)
    assert layer is not None
    return layer


def _refusal(config: Config, error: ValueError) -> ConfigError:
    method = config.method
    settings = f" {method.config}" if method.config else ""
    given = f"{method.name}{settings} in {config.model.name}: {str(error).splitlines()[0]}"
    return config_error("method.name", given, "a method and settings that fit the model")
