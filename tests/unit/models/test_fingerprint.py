"""The fingerprint of a backbone is of what it computes, not of how its config is written."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lpt.errors import ConfigError
from lpt.models.fingerprint import fingerprint
from tests.support.tiny import SIZES, tiny_model

IDS = torch.arange(3, 33)[None].repeat(2, 1)
MASK = torch.ones_like(IDS).tril(19)
# Makes no other model, or changes the order of a sum at most.
OTHER = ("vocab_size", "num_hidden_layers", "n_layer", "chunk_size_feed_forward")


@pytest.mark.parametrize("model_type", SIZES)
def test_a_config_value_that_changes_the_output_changes_it(model_type: str) -> None:
    """Every value that the config of a family has is tried, with the same weights."""
    model = tiny_model(model_type)
    expected, logits, weights = fingerprint(model), output(model), model.state_dict()
    changed = 0
    for key, value in model.config.to_dict().items():
        for other in () if key in OTHER else others(value):
            config = copy.deepcopy(model.config)
            try:
                setattr(config, key, other)
                variant = type(model)(config).eval()
                variant.load_state_dict(weights)
                differs = not torch.equal(output(variant), logits)
            except Exception:  # no value of this key
                continue
            assert not (differs and fingerprint(variant) == expected), f"{key}: {other}"
            changed += differs
    assert changed


def others(value: Any) -> Iterator[Any]:
    if isinstance(value, bool) or value is None:
        yield not value
    elif isinstance(value, int | float):
        yield from (2 * value + 1, value // 2)
    elif isinstance(value, str):
        yield from ("relu", "gelu_new")
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from ({**value, key: other} for other in others(inner))
    elif isinstance(value, list):
        yield value[::-1]


@torch.no_grad()
def output(model: PreTrainedModel) -> Tensor:
    return model(input_ids=IDS, attention_mask=MASK).logits[MASK.bool()]


@pytest.mark.parametrize("model_type", ["bert", "llama", "modernbert"])
def test_it_outlives_a_version_of_transformers(model_type: str) -> None:
    """Which adds keys to a config, drops others, and writes numbers in another way."""
    model = tiny_model(model_type)
    before = fingerprint(model)
    config = model.config
    config.transformers_version, config.new_in_6 = "6.0.0", None
    config._attn_implementation, config.name_or_path = "eager", "elsewhere"
    config.use_cache, config.output_attentions, config.return_dict = False, True, False
    for key in ("initializer_range", "classifier_dropout", "is_decoder"):
        if hasattr(config, key):
            delattr(config, key)
    if model_type == "llama":
        config.rope_parameters = {"new": None, "rope_type": "default", "rope_theta": 10000}
    config.layer_types = getattr(config, "layer_types", ["full_attention"])
    assert fingerprint(model) == before


def held(tensor: Tensor) -> Any:
    """A model whose state dict has one more tensor."""
    model = tiny_model("bert")
    holder = nn.Module()
    holder.register_buffer("held", tensor)
    model.add_module("holder", holder)
    return model


def quantized(numbers: Tensor) -> Tensor:
    return torch.quantize_per_tensor(numbers, 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    "convert",
    [
        *(torch.Tensor.double, torch.Tensor.bfloat16, torch.Tensor.bool, torch.Tensor.char),
        lambda t: t.to(torch.float8_e4m3fn),
        lambda t: torch.complex(t, t).conj(),
        lambda t: t.to_sparse(),
        lambda t: t.to_sparse_csr(),
        lambda t: t.t(),
        lambda t: t[:, ::2],
        lambda t: t[:1].expand(4, 6),
        lambda t: t[0, 0],
        quantized,
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse", "ignore:.*quantiz")
def test_any_kind_of_tensor(convert: Callable[[Tensor], Tensor]) -> None:
    numbers = torch.zeros(4, 6)
    ones = torch.ones(4, 6)
    first = fingerprint(held(convert(numbers)))
    assert first == fingerprint(held(convert(numbers.clone())))
    assert first != fingerprint(held(convert(ones)))
    assert first != fingerprint(tiny_model("bert"))


def test_shape_and_layout() -> None:
    square = torch.arange(9.0).reshape(3, 3)
    as_it_is = fingerprint(held(square))
    assert as_it_is == fingerprint(held(square.t().contiguous().t()))
    assert as_it_is != fingerprint(held(square.t()))
    assert as_it_is != fingerprint(held(square.flatten()))
    assert fingerprint(held(torch.zeros(0, 3))) != fingerprint(held(torch.zeros(0, 4)))
    with pytest.raises(ConfigError, match=r"holder\.held is on the meta device"):
        fingerprint(held(square.to("meta")))


def test_one_weight_or_the_type_of_all() -> None:
    model = tiny_model("gpt2")
    assert model.lm_head.weight is model.transformer.wte.weight
    before = fingerprint(model)
    assert before != fingerprint(copy.deepcopy(model).bfloat16())
    with torch.no_grad():
        model.transformer.h[-1].mlp.c_fc.bias[-1] += 1e-3
    assert before != fingerprint(model)
