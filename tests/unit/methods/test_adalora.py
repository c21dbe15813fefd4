"""AdaLoRA trains as PEFT's: the same loss, ranks and parameters; also when it is resumed."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import AdaLoraConfig, get_peft_model
from torch import nn
from torch.optim import AdamW
from transformers import PreTrainedModel

from lpt.config.method_schema import MethodConfig
from lpt.config.schema import Config
from lpt.methods.base import Method
from lpt.methods.registry import build_method
from tests.support.late_prompts import make_batch, make_text
from tests.support.tiny import tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated")
STEPS = 20


def build(model: PreTrainedModel, r: int = 4, **settings: Any) -> Method:
    method = MethodConfig(name="adalora", layer=1, lr=1e-3, r=r, alpha=8.0, dropout=0.0, **settings)
    torch.manual_seed(1)
    return build_method(Config(method=method), model, None).eval()


def train(method: Method, steps: range, optimizer: AdamW) -> None:
    """Steps as the Lightning module takes them."""
    batch = make_batch(*make_text(1, padded=True))
    for step in steps:
        loss = nn.functional.cross_entropy(method(batch), batch.targets + step)
        optimizer.zero_grad()
        (loss + method.regularization()).backward()
        optimizer.step()
        method.after_step(step)


def test_trains_as_in_peft() -> None:
    method = build(tiny_model("roberta"))
    plain = get_peft_model(
        tiny_model("roberta"),
        AdaLoraConfig(
            init_r=6,
            target_r=4,
            lora_alpha=8,
            tinit=2,
            tfinal=10,
            total_step=STEPS,
            target_modules=["query", "value"],
        ),
    ).eval()
    start = {name: p.detach().clone() for name, p in method.trainable().items()}
    own = dict(plain.base_model.model.named_parameters())
    with torch.no_grad():
        for name, value in start.items():
            own[name].copy_(value)

    method.start_training(STEPS)
    train(method, range(1, STEPS + 1), AdamW(method.trainable().values(), lr=0.01))

    batch = make_batch(*make_text(1, padded=True))
    optimizer = AdamW([own[name] for name in start], lr=0.01)
    inner = plain.base_model.model.forward
    for step in range(1, STEPS + 1):

        def forward(*inputs: Any, step: int = step, **options: Any) -> Any:
            logits = inner(*inputs, **options).logits[batch.logit_rows, batch.logit_positions]
            return SimpleNamespace(loss=nn.functional.cross_entropy(logits, batch.targets + step))

        plain.base_model.model.forward = forward
        out = plain.base_model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
        optimizer.zero_grad()
        out.loss.backward()  # with the regularization
        optimizer.step()
        plain.base_model.update_and_allocate(step)

    ranks = []
    for name, parameter in method.trainable().items():
        torch.testing.assert_close(parameter, own[name], rtol=1e-4, atol=1e-5)
        assert not torch.equal(parameter, start[name])
        if "lora_E" in name:
            ranks.append(int((parameter != 0).sum()))
    assert sum(ranks) == 4 * len(ranks)
    assert len(set(ranks)) > 1


@pytest.mark.parametrize("at", [1, 7, 10, 15])
def test_resumes_exactly(at: int) -> None:
    """Before, while and after the budget falls."""
    method = build(tiny_model("roberta"))
    method.start_training(STEPS)
    optimizer = AdamW(method.trainable().values(), lr=0.01)
    train(method, range(1, at + 1), optimizer)
    parameters = {name: p.detach().clone() for name, p in method.trainable().items()}
    saved = copy.deepcopy((method.training_state(), optimizer.state_dict()))
    train(method, range(at + 1, STEPS + 1), optimizer)

    resumed = build(tiny_model("roberta"))
    resumed.load_training_state(saved[0])
    resumed.start_training(STEPS)
    optimizer = AdamW(resumed.trainable().values(), lr=0.01)
    optimizer.load_state_dict(saved[1])
    with torch.no_grad():
        for name, parameter in resumed.trainable().items():
            parameter.copy_(parameters[name])
    train(resumed, range(at + 1, STEPS + 1), optimizer)
    for name, parameter in resumed.trainable().items():
        assert torch.equal(parameter, method.trainable()[name])


@pytest.mark.parametrize(("steps", "r"), [(1, 1), (2, 4), (3, 1), (5, 4)])
def test_short_runs(steps: int, r: int) -> None:
    method = build(tiny_model("roberta"), r)
    method.start_training(steps)
    train(method, range(1, steps + 1), AdamW(method.trainable().values(), lr=0.01))
