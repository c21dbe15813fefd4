"""Weight methods of PEFT: against PEFT's own rule, at their start, and with their own dropout."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import PreTrainedModel

from lpt.methods.base import Method
from lpt.methods.registry import build_method
from lpt.models.inputs import Batch
from tests.support.late_prompts import LAYERS, make_batch, make_text
from tests.support.tiny import tiny_model
from tests.unit.methods.test_methods import WORDS, method_config

PREFIX = "base_model.model."
NOT_THE_IDENTITY = {
    "C3A": {"block_size": 8},
    "FOURIERFT": {"n_frequency": 20},
    "UNILORA": {},
    "VBLORA": {"vector_length": 4, "num_vectors": 16, "topk": 2},
}
FULL_RANK = {  # start at the identity
    "HRA": {},
    "OFT": {"oft_block_size": 8},
    "OSF": {},
}


def padded_batch(model: PreTrainedModel) -> Batch:
    return make_batch(*make_text(model.config.pad_token_id, padded=True))


def plain_logits(model: PreTrainedModel, batch: Batch) -> Tensor:
    with torch.no_grad():
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    return logits[batch.logit_rows, batch.logit_positions]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated")  # PEFT's own
@pytest.mark.parametrize("layer", [1, 3, LAYERS])
@pytest.mark.parametrize(
    ("family", "targets", "name"),
    [
        ("roberta", ["query", "value"], "lora"),
        ("deberta-v2", ["query_proj", "value_proj"], "dora"),
        ("gpt2", ["c_attn"], "lora"),
        ("llama", ["q_proj", "v_proj"], "dora"),
    ],
)
def test_what_trains_is_what_peft_trains(
    family: str, targets: list[str], name: str, layer: int
) -> None:
    """PEFT chooses layers by number, lpt by the names of modules."""
    chosen = LoraConfig(
        r=4,
        target_modules=targets,
        use_dora=name == "dora",
        layers_to_transform=list(range(layer - 1, LAYERS)),
        fan_in_fan_out=family == "gpt2",
    )
    expected = get_peft_model(tiny_model(family), chosen)
    settings = {"r": 4, "alpha": 8.0, "dropout": 0.0}
    method = build_method(method_config(name, layer, **settings), tiny_model(family), WORDS)
    trains = {n.removeprefix(PREFIX): p for n, p in expected.named_parameters() if p.requires_grad}
    found = method.trainable()
    assert {key: p.shape for key, p in found.items()} == {key: p.shape for key, p in trains.items()}
    assert {id(p) for p in method.parameters() if p.requires_grad} == set(map(id, found.values()))


@pytest.mark.parametrize("layer", [1, 3])
@pytest.mark.parametrize("peft_type", [*NOT_THE_IDENTITY, *FULL_RANK])
def test_switched_off_it_is_the_plain_model(peft_type: str, layer: int) -> None:
    """Zero-shot scores: also where PEFT's modules change the output from the start on."""
    options = {"peft_type": peft_type, **(NOT_THE_IDENTITY | FULL_RANK)[peft_type]}
    expected = plain_logits(tiny_model("roberta"), batch := padded_batch(tiny_model("roberta")))
    config = method_config("peft", layer, config=options)
    method = build_method(config, tiny_model("roberta"), WORDS).eval()
    with torch.no_grad():
        untuned, tuned = method(batch, tuned=False), method(batch)
    torch.testing.assert_close(untuned, expected, rtol=1e-5, atol=1e-5)
    assert torch.allclose(tuned, expected, atol=1e-4) == (peft_type in FULL_RANK)
    with torch.no_grad():
        torch.testing.assert_close(method(batch), tuned, rtol=0, atol=0)
    assert all(parameter.requires_grad for parameter in method.trainable().values())


@pytest.mark.parametrize("frozen", ["above", "none"])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("lora", {"r": 4, "alpha": 8.0, "dropout": 0.5}),
        ("vera", {"r": 4, "dropout": 0.5}),
        ("peft", {"config": {"peft_type": "HRA"}}),  # has no dropout
    ],
)
def test_dropout_of_the_method_is_its_own(name: str, settings: Any, frozen: str) -> None:
    """`model.dropout` is about the frozen layers, `method.dropout` about what the method adds."""
    config = method_config(name, 1, **settings)
    config.model.dropout = frozen
    method = build_method(config, tiny_model("roberta"), WORDS)
    for parameter in method.trainable().values():
        torch.nn.init.normal_(parameter, std=0.1)
    for training in (True, False, True):
        method.train(training)
        drops = training and (frozen == "above" or "dropout" in settings)
        assert _is_random(method) == drops


def _is_random(method: Method) -> bool:
    batch = make_batch(*make_text(1, padded=True))
    with torch.no_grad():
        return not torch.equal(method(batch), method(batch))
