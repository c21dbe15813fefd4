"""Every method in every family: equal to the plain model, gradients too; what trains, exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lpt.config.method_schema import MethodConfig
from lpt.config.schema import Config
from lpt.errors import ConfigError
from lpt.methods.base import Method
from lpt.methods.registry import METHODS, build_method
from lpt.models.families import FAMILIES
from tests.support.late_prompts import LAYERS, make_batch, make_text
from tests.support.tiny import tiny_model

SETTINGS: dict[str, dict[str, Any]] = {
    "full": {},
    "bitfit": {},
    "adapter": {"bottleneck": 6, "placement": "houlsby"},
    "lora": {"r": 4, "alpha": 8.0, "dropout": 0.0},
    "dora": {"r": 4, "alpha": 8.0, "dropout": 0.0},
    "adalora": {"r": 4, "alpha": 8.0, "dropout": 0.0},
    "ia3": {},
    "ln_tuning": {},
    "vera": {"r": 4, "dropout": 0.0},
    "peft": {"config": {"peft_type": "LOHA", "r": 2}},
}
WORDS = [7, 8]


def method_config(name: str, layer: int = 1, **settings: Any) -> Config:
    """The configuration of a method."""
    chosen = {**SETTINGS.get(name, {}), **settings}
    return Config(method=MethodConfig(name=name, layer=layer, lr=1e-3, **chosen))


def build(name: str, model: PreTrainedModel, layer: int, **settings: Any) -> Method:
    """A method in a model, with parameters that differ from their initial values."""
    method = build_method(method_config(name, layer, **settings), model, WORDS).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in method.trainable().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
    return method


def fits(name: str, family: str) -> bool:
    biases = family not in ("llama", "mistral", "qwen3", "gemma2", "modernbert")
    return {"bitfit": biases, "peft": family != "gpt2"}.get(name, True)


def test_every_method_is_tested() -> None:
    elsewhere = {
        "late_prompt",
        "head",
        "in_context",
        "prefix",
        "ptuning",
    }  # they change no module of the model
    assert set(SETTINGS) | elsewhere == set(METHODS)


@pytest.mark.parametrize("layer", [1, 3, LAYERS])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", SETTINGS)
def test_equals_the_plain_model(name: str, family: str, layer: int) -> None:
    """The model with the method in it, run by transformers: the same logits and gradients."""
    model = tiny_model(family)
    if not fits(name, family):
        with pytest.raises(ConfigError, match="fit"):
            build(name, model, layer)
        return
    method = build(name, model, layer)
    batch = make_batch(*make_text(model.config.pad_token_id, padded=True))
    options = {} if FAMILIES[family].kind == "masked" else {"use_cache": False}

    found = method(batch)
    gradients = _gradients(found, method.trainable())
    plain = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **options)
    expected = plain.logits[batch.logit_rows, batch.logit_positions]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for key, gradient in _gradients(expected, method.trainable()).items():
        torch.testing.assert_close(
            gradients[key], gradient, rtol=1e-4, atol=1e-5, msg=lambda text, key=key: key + text
        )
    if FAMILIES[family].kind == "masked":
        words = method(batch, words_only=True)
        torch.testing.assert_close(words, expected[:, WORDS], rtol=1e-5, atol=1e-5)


def _gradients(logits: Tensor, trainable: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Gradients of a loss; every trainable parameter has one."""
    loss = logits.log_softmax(-1)[:, :3].sum() / len(logits)
    return dict(zip(trainable, torch.autograd.grad(loss, list(trainable.values())), strict=True))
