"""Prefix tuning and P-tuning: equal to PEFT's, in all families; from an upper layer on too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from lpt.config.method_schema import MethodConfig
from lpt.config.schema import Config
from lpt.errors import ConfigError
from lpt.methods.base import Method
from lpt.methods.registry import build_method
from lpt.methods.virtual_tokens import VirtualTokens
from lpt.models.families import FAMILIES, layer_paths
from lpt.models.inputs import Batch, Branches
from lpt.models.split import SplitModel
from tests.support.late_prompts import LAYERS, make_batch, make_text
from tests.support.tiny import tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated")
M = 3
WITHOUT_CACHE = ("deberta", "deberta-v2", "modernbert")
WITH_CACHE = [family for family in FAMILIES if family not in WITHOUT_CACHE]


def build(name: str, model: PreTrainedModel, layer: int = 1, **settings: Any) -> VirtualTokens:
    """Three virtual tokens in a model, with visible values."""
    method = MethodConfig(name=name, layer=layer, lr=1e-3, length=M, **settings)
    torch.manual_seed(1)
    built = build_method(Config(method=method), model, [7, 8]).eval()
    assert isinstance(built, VirtualTokens)
    return built


def peft_twin(method: VirtualTokens, family: str) -> PeftModel:
    """PEFT's own model with the same encoder."""
    plain = get_peft_model(tiny_model(family), method.peft_config)
    plain.prompt_encoder["default"].load_state_dict(method.prompt_encoder.state_dict())
    return plain.eval()


def text(method: Method) -> Batch:
    return make_batch(*make_text(method.split.config.pad_token_id, padded=True))


def gradients(logits: Tensor, parameters: Any) -> list[Tensor]:
    return list(torch.autograd.grad(logits.log_softmax(-1)[:, :3].sum(), list(parameters)))


@pytest.mark.parametrize("family", WITH_CACHE)
@pytest.mark.parametrize("settings", [{}, {"bottleneck": 6}], ids=["free", "projected"])
def test_a_prefix_of_the_whole_model_is_that_of_peft(family: str, settings: Any) -> None:
    method = build("prefix", tiny_model(family), **settings)
    _compare_with_peft(method, family, in_front=0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("encoder", ["MLP", "LSTM"])
def test_p_tuning_is_that_of_peft(family: str, encoder: str) -> None:
    options = {"encoder_reparameterization_type": encoder}
    method = build("ptuning", tiny_model(family), bottleneck=6, config=options)
    _compare_with_peft(method, family, in_front=M)


def _compare_with_peft(method: VirtualTokens, family: str, in_front: int) -> None:
    batch, plain = text(method), peft_twin(method, family)
    found = method(batch)
    logits = plain(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    expected = logits[batch.logit_rows, batch.logit_positions + in_front]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    own = gradients(found, method.trainable().values())
    for a, b in zip(own, gradients(expected, plain.prompt_encoder.parameters()), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        assert a.abs().sum() > 0


@pytest.mark.parametrize("family", WITH_CACHE)
@pytest.mark.parametrize("layer", [3, LAYERS])
def test_a_prefix_from_a_layer_on_is_hidden_from_the_layers_below(family: str, layer: int) -> None:
    method = build("prefix", tiny_model(family), layer)
    batch = text(method)
    found = method(batch)
    expected = _whole_model(family, layer, method.upper_inputs(found, batch)["prefix"], batch)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    own, others = (gradients(out, method.trainable().values()) for out in (found, expected))
    for a, b in zip(own, others, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        assert a.abs().sum() > 0


def _whole_model(family: str, layer: int, prefix: Tensor, batch: Batch) -> Tensor:
    """The transformers model with a prefix in all layers, to which those below do not attend."""
    model, size = tiny_model(family), len(batch.input_ids)
    pairs = [prefix[max(0, number - layer)][:, None] for number in range(1, LAYERS + 1)]
    cache = DynamicCache([tuple(pair.expand(-1, size, -1, -1, -1)) for pair in pairs])

    def hide(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dim() != 4:
            return value
        hidden = torch.arange(value.shape[-1]) < M
        low = False if value.dtype == torch.bool else torch.finfo(value.dtype).min
        return value.masked_fill(hidden, low)

    def hook(_: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
        return tuple(map(hide, inputs)), {key: hide(value) for key, value in options.items()}

    for path in layer_paths(model, 1)[: layer - 1]:
        model.get_submodule(path).register_forward_pre_hook(hook, with_kwargs=True)
    options: dict[str, Any] = {}
    if FAMILIES[family].position_limit is not None:
        first = FAMILIES[family].position_offset
        options["position_ids"] = first + torch.arange(batch.input_ids.shape[1])[None]
    base = model.base_model(
        input_ids=batch.input_ids,
        attention_mask=nn.functional.pad(batch.attention_mask, (M, 0), value=1),
        past_key_values=cache,
        **options,
    )
    final = base.last_hidden_state[batch.logit_rows, batch.logit_positions]
    return SplitModel(model, layer).logits(final)


@pytest.mark.parametrize("layer", [1, 3])
@pytest.mark.parametrize("family", [f for f in WITH_CACHE if FAMILIES[f].kind == "causal"])
@pytest.mark.parametrize("name", ["prefix", "ptuning"])
def test_label_parts_side_by_side(name: str, family: str, layer: int) -> None:
    """Two label parts behind one context are scored as two rows."""
    if name == "ptuning" and layer > 1:
        return
    settings = {"bottleneck": 6} if name == "ptuning" else {}
    method = build(name, tiny_model(family), layer, **settings)
    ids = torch.tensor([[5, 6, 7, 8, 9, 10, 11]])
    apart = [[5, 6, 7, 8, 9], [5, 6, 7, 10, 11]]
    together = make_batch(ids, torch.ones_like(ids))._replace(
        branches=Branches(
            torch.tensor([[0, 0, 0, 1, 1, 2, 2]]), torch.tensor([[0, 1, 2, 3, 4, 3, 4]])
        ),
        logit_rows=torch.tensor([0, 0]),
        logit_positions=torch.tensor([4, 6]),
    )
    rows = torch.tensor(apart)
    expected = method(make_batch(rows, torch.ones_like(rows)))
    torch.testing.assert_close(method(together), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["roberta", "gpt2", "llama"])
@pytest.mark.parametrize("name", ["prefix", "ptuning"])
def test_without_the_method_the_model_is_as_it_was(name: str, family: str) -> None:
    method = build(name, tiny_model(family), bottleneck=6)
    batch, plain = text(method), tiny_model(family)
    logits = plain(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    expected = logits[batch.logit_rows, batch.logit_positions]
    torch.testing.assert_close(method(batch, tuned=False), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["prefix", "ptuning"])
def test_only_the_encoder_trains(name: str) -> None:
    method = build(name, tiny_model("roberta"), bottleneck=6)
    trains = {key: p for key, p in method.named_parameters() if p.requires_grad}
    assert set(trains) == {
        f"prompt_encoder.{n}" for n, _ in method.prompt_encoder.named_parameters()
    }
    assert set(map(id, trains.values())) == set(map(id, method.trainable().values()))


@pytest.mark.parametrize("family", WITHOUT_CACHE)
def test_families_without_a_cache_are_refused(family: str) -> None:
    with pytest.raises(ConfigError, match="take no keys and values"):
        build("prefix", tiny_model(family))
