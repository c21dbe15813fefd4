"""What the upper stack leaves out at both ends is really left out, and changes no result."""

from __future__ import annotations

import pytest
import torch

from lpt.models.families import FAMILIES
from lpt.models.split import SplitModel
from tests.support.late_prompts import LAYERS, make_text, padded_batch, tiny_late_prompt
from tests.support.tiny import tiny_model

families = pytest.mark.parametrize("family", FAMILIES)


@families
@pytest.mark.parametrize("layer", [1, 2, LAYERS])
def test_states_and_gradients_are_those_of_a_full_pass(family: str, layer: int) -> None:
    model = tiny_late_prompt(family, layer=layer)
    split, batch = model.split, padded_batch(model)
    mask, rows, tokens = batch.attention_mask, torch.tensor([2, 0, 1]), torch.tensor([4, 19, 0])
    hidden = split.forward_lower(batch.input_ids, mask)
    prompt = model.upper_inputs(hidden, batch)["prompt"]
    length = prompt.shape[1]
    partial = split.forward_upper(hidden, mask, prompt, None, (rows, tokens))

    options = {"use_cache": False} if split.family.kind == "causal" else {}
    inputs = torch.cat([prompt, hidden], dim=1)
    mask = torch.cat([torch.ones(len(mask), length, dtype=mask.dtype), mask], dim=1)
    # As if all of it were the prompt: every position is computed and differentiated.
    full = split.upper(inputs.shape[1], None, inputs_embeds=inputs, attention_mask=mask, **options)
    full = full[rows, tokens + length]

    torch.testing.assert_close(partial, full, atol=1e-5, rtol=1e-5)
    weights = torch.arange(full.shape[-1]) / full.shape[-1]
    parameters = list(model.trainable().values())
    gradients = [
        torch.autograd.grad((final * weights).sum(), parameters, retain_graph=True)
        for final in (partial, full)
    ]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)
    assert all(gradient.abs().max() > 1e-3 for gradient in gradients[0])


@families
def test_the_last_layer_runs_for_scored_tokens_only(family: str) -> None:
    model = tiny_model(family)
    split = SplitModel(model, 2)
    ids, mask = make_text(split.config.pad_token_id, padded=False)
    layer = list(model.base_model.get_submodule(split.family.layers).children())[-1]
    counts: dict[str, list[int]] = {name: [] for chain in split.family.per_token for name in chain}
    for name, tokens in counts.items():
        layer.get_submodule(name).register_forward_hook(
            lambda _, inputs, __, tokens=tokens: tokens.append(inputs[0].shape[:-1].numel())
        )
    hidden = split.forward_lower(ids, mask)
    split.forward_upper(hidden, mask, None, None, (torch.tensor([0, 2]), torch.tensor([1, 1])))
    split.forward_upper(hidden, mask, None)
    assert {tuple(tokens) for tokens in counts.values()} == {(2, mask.numel())}


@families
def test_the_first_layer_is_differentiated_for_the_prompt_only(family: str) -> None:
    model = tiny_model(family)
    split = SplitModel(model, 2)
    ids, mask = make_text(split.config.pad_token_id, padded=True)
    layer = model.base_model.get_submodule(f"{split.family.layers}.1")
    counts: dict[str, list[int]] = {name: [] for name in split.family.projections}
    for name, tokens in counts.items():
        layer.get_submodule(name).register_forward_hook(
            lambda _, inputs, __, tokens=tokens: tokens.append(
                inputs[0].requires_grad * inputs[0].shape[:-1].numel()
            )
        )
    prompt = torch.randn(len(mask), 3, 32, requires_grad=True)
    split.forward_upper(split.forward_lower(ids, mask), mask, prompt)
    assert {sum(tokens) for tokens in counts.values()} == {prompt.shape[:2].numel()}
