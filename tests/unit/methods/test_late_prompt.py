"""The late prompt around a split model: what drops out, what is counted, how it starts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lpt.errors import ConfigError, Problems
from lpt.methods.late_prompt import LatePrompt, check_prompt, sample_embeddings
from lpt.models.families import FAMILIES
from lpt.models.generators import build_generator
from lpt.models.split import SplitModel
from tests.support.configs import configured
from tests.support.late_prompts import LAYERS, make_text, padded_batch, tiny_late_prompt
from tests.support.tiny import tiny_model

families = pytest.mark.parametrize("family", FAMILIES)


@pytest.mark.parametrize("dropout", ["above", "all", "none"])
def test_dropout_modes(dropout: str) -> None:
    model = tiny_late_prompt("bert", 2, dropout=dropout)
    split = model.split
    ids, mask = make_text(0, padded=False)
    for training in (True, False, True):
        model.train(training)
        lower = [split.forward_lower(ids, mask) for _ in range(2)]
        with torch.no_grad():
            upper = [split.forward_upper(lower[0], mask, None) for _ in range(2)]
        assert torch.equal(*lower) == (not training or dropout != "all")
        assert torch.equal(*upper) == (not training or dropout == "none")
        assert model.prompt_dropout.training == training


@families
@pytest.mark.parametrize("layer", [1, LAYERS])
def test_parameters_are_those_of_transformers_and_the_generator(family: str, layer: int) -> None:
    """The copied rows of the label words are no parameters of the model."""
    backbone = tiny_model(family)
    masked = FAMILIES[family].kind == "masked"
    split = SplitModel(backbone, layer, word_ids=[7, 8] if masked else None)
    generator = build_generator("npg", hidden_size=32, length=3, bottleneck=6)
    trainable = sum(parameter.numel() for parameter in generator.parameters())
    assert LatePrompt(split, generator).count_parameters() == {
        "trainable": trainable,
        "total": backbone.num_parameters() + trainable,
    }


@families
@pytest.mark.parametrize("layer", [1, 3, LAYERS])
def test_idpg_reads_the_final_state_of_the_model_itself(family: str, layer: int) -> None:
    """At the summary position, without dropout also in training, whatever the layer."""
    model = tiny_late_prompt(family, layer, "idpg")
    batch = padded_batch(model)
    options = {} if FAMILIES[family].kind == "masked" else {"use_cache": False}
    plain = tiny_model(family).base_model
    states = plain(batch.input_ids, attention_mask=batch.attention_mask, **options)[0]
    state = states[torch.arange(3), batch.summary_index]
    state = torch.nn.functional.pad(state, (0, 32 - state.shape[-1]))[:, None]
    where = torch.zeros(3, dtype=torch.long), torch.ones(3, dtype=torch.long)
    expected = model.generator(state, *where)
    for training in (False, True):
        model.train(training)
        hidden = model.split.forward_lower(batch.input_ids, batch.attention_mask)
        found = model.upper_inputs(hidden, batch)["prompt"]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        assert model.split.upper.training == training
    [ids, mask, *_] = batch
    behind = model.eval().split.forward_lower_layers([LAYERS + 1], ids, mask)[LAYERS + 1]
    final = behind[torch.arange(3), batch.summary_index][:, None]
    cached = model.upper_inputs(hidden, batch._replace(final=final))["prompt"]
    torch.testing.assert_close(cached, expected, atol=1e-5, rtol=1e-5)


@families
@pytest.mark.parametrize("kind", ["npg", "mppg", "idpg", "static"])
def test_further_prompts_replace_the_first_one(family: str, kind: str) -> None:
    """As hooks in front of layers 3 and 4 do, which put another prompt in its place."""
    single = tiny_late_prompt(family, 2, kind)
    model = tiny_late_prompt(family, 2, kind, further=[3, LAYERS])
    batch = padded_batch(model)
    where = batch.summary_index, batch.pool_length
    hidden = model.split.forward_lower(batch.input_ids, batch.attention_mask)
    state = model.final_state(hidden, batch) if kind == "idpg" else None
    single.load_tensors({n: p for n, p in model.trainable().items() if n.startswith("generator")})
    with torch.no_grad():
        found, first_only = model(batch), single(batch)
    hooks = []
    for layer in (3, LAYERS):
        generator = model.further[str(layer)]

        def replace_prompt(
            _: nn.Module, inputs: Any, generator: nn.Module = generator
        ) -> tuple[Tensor, ...]:
            text = inputs[0][:, 3:]
            if state is None:
                prompt = generator(text, *where)
            else:
                prompt = generator(state, torch.zeros_like(where[0]), torch.ones_like(where[1]))
            return torch.cat([prompt, text], 1), *inputs[1:]

        wrapped = single.split.upper.model.get_submodule(
            f"{single.split.family.layers}.{layer - 2}"
        )
        hooks.append(wrapped.register_forward_pre_hook(replace_prompt))
    single.generator.reads_final_state = False  # its pass would meet the hooks
    prompt = model.upper_inputs(hidden, batch)["prompt"]
    single.generator.forward = lambda *_: prompt  # type: ignore[method-assign]
    with torch.no_grad():
        torch.testing.assert_close(found, single(batch), atol=1e-5, rtol=1e-5)
        assert not torch.allclose(found, first_only, atol=1e-3)
        zero_shot = model(batch, tuned=False)
        for hook in hooks:
            hook.remove()
        assert torch.equal(zero_shot, single(batch, tuned=False))


@families
@pytest.mark.parametrize(("layer", "checkpointing"), [(1, False), (2, True)])
def test_gradients_through_several_prompts_are_finite_differences(
    family: str, layer: int, checkpointing: bool
) -> None:
    """Also through the text between two prompts, which the first changes and the next reads."""
    kind, options = "mppg", {"gradient_checkpointing": checkpointing}
    model = tiny_late_prompt(family, layer, kind, further=[3, LAYERS], **options)
    # transformers computes gemma2's softmax in float32, where the mask of float64 is infinite.
    step = 1e-2 if family == "gemma2" else 1e-4
    model = model if family == "gemma2" else model.double()
    batch, parameters = padded_batch(model), list(model.trainable().values())

    def loss() -> Tensor:
        return model(batch).double().log_softmax(-1)[:, 7].sum()

    gradients = torch.autograd.grad(loss(), parameters)
    assert {name.rpartition(".")[0] for name in model.trainable()} == {
        f"{which}.{part}"
        for which in ("generator", "further.3", f"further.{LAYERS}")
        for part in ("down", "up")
    }
    for parameter, gradient in zip(parameters, gradients, strict=True):
        direction = gradient / gradient.norm()
        with torch.no_grad():
            parameter += step * direction
            above = loss()
            parameter -= 2 * step * direction
            below = loss()
            parameter += step * direction
        slope = (above - below) / (2 * step)
        torch.testing.assert_close(slope, gradient.norm().double(), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("kind", "args", "key", "message"),
    [
        ("inception", {"branch": 3}, "prompt.args.branch", "did you mean branches"),
        ("idpg", {}, "prompt.args.n", "no value"),
        ("idpg", {"n": "16"}, "prompt.args.n", "valid integer"),
        ("idpg", {"n": 5}, "prompt.args", "does not divide"),
        ("inception", {"branches": 9}, "prompt.args", "9 branches"),
        ("static", {"n": 16}, "prompt.args.n", "not an argument of static"),
    ],
)
def test_arguments_of_a_generator_are_checked(
    kind: str, args: dict[str, object], key: str, message: str
) -> None:
    prompt, problems = configured(f"prompt={kind}").prompt, Problems()
    assert prompt is not None
    check_prompt(prompt, 64, problems)
    assert not problems.found
    check_prompt(replace(prompt, args=args), 64, problems)
    assert {problem.where for problem in problems.found} >= {key}
    assert any(message in str(problem) for problem in problems.found)


def test_sample_embeddings() -> None:
    split = SplitModel(tiny_model("bert"), 2)
    assert split.lower is not None
    rows = {tuple(row.tolist()) for row in split.lower.get_input_embeddings().weight}
    assert all(tuple(row.tolist()) in rows for row in sample_embeddings(split, 4))
    narrow = SplitModel(tiny_model("electra"), 2)  # embeddings of 16, hidden states of 32
    with pytest.raises(ConfigError, match="width 16"):
        sample_embeddings(narrow, 4)
