"""The late prompt around a split model: what drops out, what is counted, how it starts."""

from __future__ import annotations

import pytest
import torch

from lpt.errors import ConfigError
from lpt.methods.late_prompt import LatePrompt, sample_embeddings
from lpt.models.families import FAMILIES
from lpt.models.generators import build_generator
from lpt.models.split import SplitModel
from tests.support.late_prompts import LAYERS, make_text, tiny_late_prompt
from tests.support.tiny import tiny_model


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


@pytest.mark.parametrize("family", FAMILIES)
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


def test_sample_embeddings() -> None:
    split = SplitModel(tiny_model("bert"), 2)
    assert split.lower is not None
    rows = {tuple(row.tolist()) for row in split.lower.get_input_embeddings().weight}
    assert all(tuple(row.tolist()) in rows for row in sample_embeddings(split, 4))
    narrow = SplitModel(tiny_model("electra"), 2)  # embeddings of 16, hidden states of 32
    with pytest.raises(ConfigError, match="width 16"):
        sample_embeddings(narrow, 4)
