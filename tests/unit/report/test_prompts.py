"""Attention to a late prompt: that of transformers, for every family."""

from __future__ import annotations

import pytest
import torch

from lpt.models.families import FAMILIES
from lpt.report.prompts import read_batch
from tests.support.late_prompts import make_batch, make_text, padded_batch, tiny_late_prompt
from tests.support.tiny import tiny_model


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_tells_its_attention(family: str) -> None:
    model = tiny_late_prompt(family, 3, attention="eager")
    model.split.upper.model.config.output_attentions = FAMILIES[family].attention == "eager"
    prompts, shares, even = read_batch(model, padded_batch(model))
    assert prompts.shape == (3, 3, 32)
    assert shares.shape == (3, 2, 4)
    # Local attention of a long text does not reach the prompt.
    assert ((shares >= 0) & (shares < 1)).all()
    assert (shares[2] > 0).all()
    assert even.tolist() == pytest.approx([3 / 23, 3 / 15, 3 / 8])


def test_it_is_the_attention_of_transformers() -> None:
    """Where the prompt stands in place of word embeddings, the whole model can be asked."""
    model = tiny_late_prompt("llama", 1, "static", attention="eager")
    ids, mask = make_text(0, padded=False)
    prompts, shares, _ = read_batch(model, make_batch(ids, mask))
    plain = tiny_model("llama")
    plain.set_attn_implementation("eager")
    inputs = torch.cat([prompts, plain.get_input_embeddings()(ids)], dim=1)
    with torch.no_grad():
        found = plain(inputs_embeds=inputs, output_attentions=True).attentions
    expected = torch.stack([layer[:, :, -1, :3].sum(-1) for layer in found], dim=1)
    torch.testing.assert_close(shares, expected)
