"""The split of every supported family, on tiny random models."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor

from lpt.models.backbone import attention_implementation
from lpt.models.families import FAMILIES
from lpt.models.generators import GENERATORS
from lpt.models.scoring import sequence_losses
from lpt.models.split import SplitModel
from tests.support.late_prompts import (
    LAYERS,
    make_batch,
    make_text,
    padded_batch,
    tiny_late_prompt,
)
from tests.support.tiny import tiny_model

families = pytest.mark.parametrize("family", FAMILIES)
MASKED = [name for name, family in FAMILIES.items() if family.kind == "masked"]


@pytest.mark.parametrize("layer", [0, LAYERS + 2])
def test_layer_outside_the_model(layer: int) -> None:
    with pytest.raises(ValueError, match=r"outside 1\.\.5"):
        SplitModel(tiny_model("bert"), layer)


@families
@pytest.mark.parametrize("padded", [False, True])
def test_without_prompt_equals_the_unsplit_model(family: str, padded: bool) -> None:
    """Which is itself not modified."""
    model = tiny_model(family)
    ids, mask = make_text(model.config.pad_token_id, padded=padded)
    options = {"use_cache": False} if FAMILIES[family].kind == "causal" else {}
    names, config = [name for name, _ in model.named_modules()], model.config.to_dict()
    with torch.no_grad():
        unsplit = model(input_ids=ids, attention_mask=mask, **options).logits
        for layer in range(1, LAYERS + 1):
            split = SplitModel(model, layer)
            final = split.forward_upper(split.forward_lower(ids, mask), mask, None)
            assert torch.equal(split.logits(final)[mask.bool()], unsplit[mask.bool()])
            assert {id(p) for p in split.parameters()} == {id(p) for p in model.parameters()}
        again = model(input_ids=ids, attention_mask=mask, **options).logits
    assert unsplit.std() > 0.1  # outputs that differ, so that equality says something
    assert torch.equal(again, unsplit)
    assert [name for name, _ in model.named_modules()] == names
    assert model.config.to_dict() == config


@families
@pytest.mark.parametrize("kind", [*GENERATORS, "static"])
def test_only_the_prompt_gets_a_gradient(family: str, kind: str) -> None:
    model = tiny_late_prompt(family, layer=3, kind=kind)
    batch = padded_batch(model)
    hidden = model.split.forward_lower(batch.input_ids, batch.attention_mask)
    assert not hidden.requires_grad
    sequence_losses(model(batch), batch, len(batch.labels)).mean().backward()
    for name, parameter in model.generator.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    assert all(p.grad is None for p in model.split.parameters())
    trainable = {f"generator.{name}" for name, _ in model.generator.named_parameters()}
    assert set(model.trainable()) == trainable


@families
@pytest.mark.parametrize("kind", GENERATORS)
def test_padding_and_order_do_not_change_an_example(family: str, kind: str) -> None:
    model = tiny_late_prompt(family, layer=3, kind=kind)
    ids, mask, *_ = padded_batch(model)
    with torch.no_grad():
        together = model(make_batch(ids, mask))
        order = torch.tensor([2, 0, 1])
        shuffled = model(make_batch(ids[order], mask[order]))
        torch.testing.assert_close(shuffled, together[order], atol=1e-5, rtol=1e-5)
        for row, length in enumerate(mask.sum(1).tolist()):
            alone = model(make_batch(ids[row : row + 1, :length], mask[row : row + 1, :length]))
            torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-5)


@families
def test_eager_attention_gives_the_same_logits(family: str) -> None:
    logits = []
    for attention in (FAMILIES[family].attention, "eager"):
        model = tiny_late_prompt(family, layer=3, attention=attention)
        with torch.no_grad():
            logits.append(model(padded_batch(model)))
    torch.testing.assert_close(logits[1], logits[0], atol=1e-5, rtol=1e-5)
    assert attention_implementation(model.split.config) == "eager"


@pytest.mark.parametrize("family", MASKED)
def test_words_head_gives_rows_of_the_full_head(family: str) -> None:
    words = [7, 90, 8]
    split = SplitModel(tiny_model(family), 2, word_ids=words)
    hidden = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        some, full = split.logits(hidden, words_only=True), split.logits(hidden)
    torch.testing.assert_close(some, full[:, words], atol=1e-6, rtol=1e-5)
    assert some.std() > 0.1
    assert not any(parameter.requires_grad for parameter in split.parameters())


@families
def test_hidden_states_of_several_layers_in_one_pass(family: str) -> None:
    model = tiny_model(family)
    ids, mask = make_text(model.config.pad_token_id, padded=True)
    found = SplitModel(model, 2).forward_lower_layers([4, 2, 3], ids, mask)
    assert sorted(found) == [2, 3, 4]
    for layer, hidden in found.items():
        expected = SplitModel(model, layer).forward_lower(ids, mask)
        assert torch.equal(hidden[mask.bool()], expected[mask.bool()])


@families
@pytest.mark.parametrize("dropout", ["none", "above"])
def test_gradient_checkpointing_changes_no_gradient(family: str, dropout: str) -> None:
    def train(checkpointing: bool) -> tuple[list[Tensor | None], int]:
        """Gradients, and the bytes kept for the backward pass."""
        model = tiny_late_prompt(family, 2, gradient_checkpointing=checkpointing, dropout=dropout)
        batch = padded_batch(model.train())
        sizes: list[int] = []

        def pack(tensor: Tensor) -> Tensor:
            sizes.append(tensor.nbytes)
            return tensor

        torch.manual_seed(3)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = sequence_losses(model(batch), batch, len(batch.labels)).mean()
        loss.backward()
        return [parameter.grad for parameter in model.trainable().values()], sum(sizes)

    (expected, usual), (found, less) = train(checkpointing=False), train(checkpointing=True)
    torch.testing.assert_close(found, expected)
    assert less < 0.7 * usual


@families
def test_releasing_the_lower_stack_frees_its_weights(family: str) -> None:
    """The embeddings too, if the head is not tied to them."""
    model = tiny_model(family, tie_word_embeddings=False)
    words = model.get_input_embeddings()
    layers = list(model.base_model.get_submodule(FAMILIES[family].layers).children())
    lower = [weakref.ref(p) for layer in layers[:2] for p in layer.parameters()]
    upper = [weakref.ref(p) for layer in layers[2:] for p in layer.parameters()]
    if FAMILIES[family].tied_head is None:
        lower.append(weakref.ref(words.weight))
    split = SplitModel(model, 3)
    ids, mask = make_text(split.config.pad_token_id, padded=True)
    hidden = split.forward_lower(ids, mask)
    split.release_lower()
    del model, words, layers
    gc.collect()
    assert not any(reference() is not None for reference in lower)
    assert all(reference() is not None for reference in upper)
    split.logits(split.forward_upper(hidden, mask, None))
