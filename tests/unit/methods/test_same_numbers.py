"""What must not change the numbers: label parts side by side, the cache, checkpointing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lpt.methods.registry import build_method
from lpt.models.scoring import sequence_losses
from tests.support.label_parts import scores_together_and_alone
from tests.support.late_prompts import make_batch, make_text
from tests.support.tiny import tiny_model
from tests.unit.methods.test_methods import SETTINGS, WORDS, build, method_config

PARTS = ("adapter", "bitfit", "dora", "full", "ia3", "ln_tuning", "lora", "vera")


@pytest.mark.parametrize("layer", [1, 3])
@pytest.mark.parametrize("family", ["gpt2", "qwen2"])
@pytest.mark.parametrize("name", PARTS)
def test_labels_that_share_a_context_score_as_if_alone(name: str, family: str, layer: int) -> None:
    model = build(name, tiny_model(family), layer)
    scores, alone = scores_together_and_alone(model)
    torch.testing.assert_close(scores, alone, atol=1e-5, rtol=1e-5)


def losses(name: str, *, cached: bool = False, checkpointing: bool = False) -> Tensor:
    """Of 50 training steps from layer 3 on."""
    torch.manual_seed(0)
    config = method_config(name, 3)
    config.trainer.gradient_checkpointing = checkpointing
    config.model.dropout = "none"
    model = build_method(config, tiny_model("roberta"), WORDS).train()
    batch = make_batch(*make_text(1, padded=True))
    if cached:
        hidden = model.split.forward_lower(batch.input_ids, batch.attention_mask)
        batch = batch._replace(hidden=hidden)
        model.split.release_lower()
    optimizer = torch.optim.AdamW(model.trainable().values(), lr=1e-3, eps=1e-3)
    found = []
    for _ in range(50):
        loss = sequence_losses(model(batch), batch, 3).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.detach())
    return torch.stack(found)


@pytest.mark.parametrize("name", [n for n in SETTINGS if n in PARTS])
def test_fifty_steps_out_of_the_cache_or_checkpointed(name: str) -> None:
    plain = losses(name)
    assert plain[-1] < plain[0]
    torch.testing.assert_close(losses(name, cached=True), plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(losses(name, checkpointing=True), plain, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("layer", [1, 3])
@pytest.mark.parametrize("name", ["adapter", "lora", "ln_tuning"])
def test_compiling_changes_no_gradient(name: str, layer: int) -> None:
    found = []
    for compiled in (False, True):
        model = build(name, tiny_model("roberta"), layer)
        if compiled:
            torch.compiler.reset()
            model.split.upper.compile(dynamic=True, backend="eager")  # needs no C++ compiler
        batch = make_batch(*make_text(1, padded=True))
        sequence_losses(model(batch), batch, 3).mean().backward()
        found.append({key: p.grad for key, p in model.trainable().items()})
    torch.testing.assert_close(found[1], found[0], atol=1e-5, rtol=1e-5)
