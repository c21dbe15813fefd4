"""The linear probe: equal to torch's layer on the states that transformers gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lpt.config.method_schema import MethodConfig
from lpt.config.schema import Config
from lpt.config.task_schema import TaskConfig
from lpt.errors import ConfigError
from lpt.methods.base import Method
from lpt.methods.registry import build_method
from lpt.models.families import FAMILIES
from lpt.models.inputs import Branches
from lpt.training.plan import prepare
from tests.conftest import MakeConfig
from tests.support.late_prompts import LAYERS, make_batch, make_text
from tests.support.tiny import tiny_model

LABELS = ["a", "b", "c"]


def build(family: str) -> Method:
    """A head with random weights."""
    config = Config(
        method=MethodConfig(name="head", layer=LAYERS + 1), task=TaskConfig(labels=LABELS)
    )
    method = build_method(config, tiny_model(family), [7, 8, 9]).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in method.trainable().values():
            parameter.normal_(generator=generator)
    return method


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_a_linear_layer_on_the_last_hidden_states(family: str) -> None:
    model, method = tiny_model(family), build(family)
    batch = make_batch(*make_text(model.config.pad_token_id, padded=True))
    trainable = method.trainable()
    assert set(trainable) == {"classifier.weight", "classifier.bias"}

    found = method(batch)
    base = model.base_model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, output_hidden_states=True
    )
    states = base.hidden_states[-1][batch.logit_rows, batch.logit_positions]
    weight, bias = (trainable[f"classifier.{name}"] for name in ("weight", "bias"))
    expected = nn.functional.linear(states, weight, bias)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for own, plain in zip(
        *(
            torch.autograd.grad(out.log_softmax(1)[:, 0].sum(), [weight, bias], retain_graph=True)
            for out in (found, expected)
        ),
        strict=True,
    ):
        torch.testing.assert_close(own, plain, rtol=1e-5, atol=1e-5)
    language_model = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    expected = language_model[batch.logit_rows, batch.logit_positions]
    torch.testing.assert_close(method(batch, tuned=False), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_label_parts_do_not_change_the_scores(family: str) -> None:
    """The head reads the last token of the context, whatever stands behind it."""
    method = build(family)
    ids, mask = make_text(0, padded=False)
    context = 15
    plain = method(make_batch(ids[:, :context], mask[:, :context]))
    position_ids = torch.arange(20).expand(3, -1)
    branch_ids = (position_ids >= context).long()
    rows, columns = ((position_ids >= context - 1) & (position_ids < 19)).nonzero(as_tuple=True)
    batch = make_batch(ids, mask)._replace(
        branches=Branches(branch_ids, position_ids), logit_rows=rows, logit_positions=columns
    )
    torch.testing.assert_close(method(batch), plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("width", "expected"), [(768, 1538), (1024, 2050)])
def test_number_of_parameters(width: int, expected: int) -> None:
    with torch.device("meta"):
        model = tiny_model("roberta", hidden_size=width)
    config = Config(
        method=MethodConfig(name="head", layer=LAYERS + 1), task=TaskConfig(labels=["0", "1"])
    )
    assert build_method(config, model, None).count_parameters()["trainable"] == expected


@pytest.mark.parametrize("override", ["method.layer=3", "loss=vocabulary"])
def test_what_does_not_fit_is_refused(toy: MakeConfig, override: str) -> None:
    with pytest.raises(ConfigError, match=override.partition("=")[0]):
        prepare(toy("masked", "method=head", "prompt.layer=null", override))


def test_it_fits_before_the_depth_is_known(toy: MakeConfig) -> None:
    plan = prepare(toy("causal", "method=head", "prompt.layer=null"))
    assert (plan.config.method.layer, plan.config.loss) == (LAYERS + 1, "label_words")
