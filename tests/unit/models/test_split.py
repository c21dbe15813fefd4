"""The split of every supported family, on tiny random models."""

from __future__ import annotations

import gc
import itertools
import weakref

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM

from lpt.data.batching import Collator
from lpt.data.packing import PackedTokens
from lpt.data.templates import Encoded
from lpt.errors import ConfigError
from lpt.methods.late_prompt import Batch, LabelScorer, LatePrompt, sequence_losses
from lpt.models.families import FAMILIES, get_family
from lpt.models.generators import GENERATORS, build_generator, vocabulary_start
from lpt.models.split import SplitModel
from lpt.models.views import _DetachText
from tests.support.tiny import SIZES, tiny_model

LAYERS = 4
families = pytest.mark.parametrize("family", FAMILIES)


def text(pad_id: int, *, padded: bool) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 120, (3, 20), generator=generator)
    mask = torch.ones_like(ids)
    if padded:
        mask[1, 12:] = 0
        mask[2, 5:] = 0
        ids = ids.masked_fill(mask == 0, pad_id)
    return ids, mask


def batch_of(ids: Tensor, mask: Tensor) -> Batch:
    """One scored position a row: the last real token."""
    size, lengths = len(ids), mask.sum(1)
    return Batch(
        input_ids=ids,
        attention_mask=mask,
        summary_index=lengths - 2,
        pool_length=lengths - 1,
        rows=torch.arange(size),
        positions=lengths - 1,
        scored=torch.arange(size),
        targets=torch.arange(size) + 7,
        sequences=torch.arange(size),
        labels=torch.zeros(size, dtype=torch.long),
        row_ids=torch.arange(size),
    )


def prompted(
    family: str, layer: int, kind: str = "npg", length: int = 3, attention: str | None = None
) -> LatePrompt:
    model = tiny_model(family)
    if attention is not None:
        model.set_attn_implementation(attention)
    split = SplitModel(model, layer)
    torch.manual_seed(2)
    generator = build_generator(kind, hidden_size=32, length=length, bottleneck=6)
    return LatePrompt(split, generator).eval()


def test_every_family_has_a_tiny_model() -> None:
    assert set(SIZES) == set(FAMILIES)


@families
@pytest.mark.parametrize("padded", [False, True])
def test_without_prompt_equals_the_unsplit_model(family: str, padded: bool) -> None:
    model = tiny_model(family)
    ids, mask = text(model.config.pad_token_id, padded=padded)
    options = {"use_cache": False} if FAMILIES[family].kind == "causal" else {}
    with torch.no_grad():
        whole = model(input_ids=ids, attention_mask=mask, **options).logits
        for layer in range(1, LAYERS + 1):
            split = SplitModel(model, layer)
            parts = split.logits(split.answer(split.read(ids, mask), mask, None))
            assert torch.equal(parts[mask.bool()], whole[mask.bool()])
    assert whole.std() > 0.1  # outputs that differ, so that equality says something


@families
@pytest.mark.parametrize("kind", [*GENERATORS, "static"])
def test_only_the_prompt_gets_a_gradient(family: str, kind: str) -> None:
    model = prompted(family, layer=3, kind=kind)
    ids, mask = text(model.split.config.pad_token_id, padded=True)
    batch = batch_of(ids, mask)
    hidden = model.split.read(ids, mask)
    assert not hidden.requires_grad
    assert hidden.grad_fn is None
    sequence_losses(model(batch), batch, len(batch.labels)).mean().backward()
    for name, parameter in model.generator.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    assert all(p.grad is None for p in model.split.parameters())
    assert set(model.trainable()) == {
        f"generator.{n}" for n, _ in model.generator.named_parameters()
    }


@families
def test_the_prompt_changes_the_answer(family: str) -> None:
    model = prompted(family, layer=2)
    batch = batch_of(*text(model.split.config.pad_token_id, padded=True))
    with torch.no_grad():
        assert (model(batch) - model(batch, prompted=False)).abs().max() > 1e-3


@families
@pytest.mark.parametrize("kind", ["npg", "mppg"])
def test_padding_and_order_do_not_change_an_example(family: str, kind: str) -> None:
    model = prompted(family, layer=3, kind=kind)
    ids, mask = text(model.split.config.pad_token_id, padded=True)
    with torch.no_grad():
        together = model(batch_of(ids, mask))
        order = torch.tensor([2, 0, 1])
        shuffled = model(batch_of(ids[order], mask[order]))
        torch.testing.assert_close(shuffled, together[order], atol=1e-5, rtol=1e-5)
        for row, length in enumerate(mask.sum(1).tolist()):
            alone = model(batch_of(ids[row : row + 1, :length], mask[row : row + 1, :length]))
            torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-5)


@families
def test_the_model_is_left_as_it_was(family: str) -> None:
    model = tiny_model(family)
    ids, mask = text(model.config.pad_token_id, padded=False)
    names = [name for name, _ in model.named_modules()]
    config = model.config.to_dict()
    with torch.no_grad():
        before = model(input_ids=ids, attention_mask=mask).logits
        split = SplitModel(model, 3)
        split.answer(split.read(ids, mask), mask, None)
        assert torch.equal(model(input_ids=ids, attention_mask=mask).logits, before)
    assert [name for name, _ in model.named_modules()] == names
    assert model.config.to_dict() == config
    shared = {id(p) for p in model.parameters()}
    assert {id(p) for p in split.parameters()} == shared


def test_each_layer_is_in_one_part_only() -> None:
    for family, layer in itertools.product(FAMILIES, range(1, LAYERS + 1)):
        split = SplitModel(tiny_model(family), layer)
        path = FAMILIES[family].layers
        below, above = (
            [m for m in view.get_submodule(path) if any(True for _ in m.parameters())]
            for view in (split.below, split.above)
        )
        assert (len(below), len(above)) == (layer - 1, LAYERS - layer + 1)
        assert not {id(m) for m in below} & {id(m) for m in above}


@pytest.mark.parametrize("layer", [0, LAYERS + 1])
def test_layer_outside_the_model(layer: int) -> None:
    with pytest.raises(ValueError, match=r"outside 1\.\.4"):
        SplitModel(tiny_model("bert"), layer)


def test_unknown_family_names_the_known_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        get_family("robertta")
    [problem] = caught.value.problems
    assert "robertta" in problem.given
    assert all(name in problem.allowed for name in FAMILIES)
    assert "did you mean roberta" in problem.allowed


@pytest.mark.parametrize("dropout", ["above", "all", "none"])
def test_dropout_modes(dropout: str) -> None:
    config = BertConfig(vocab_size=120, num_hidden_layers=2, hidden_size=32, num_attention_heads=4)
    split = SplitModel(BertForMaskedLM(config), 2)
    generator = build_generator("npg", hidden_size=32, length=2, bottleneck=4)
    model = LatePrompt(split, generator, prompt_dropout=0.1, frozen_dropout=dropout)
    ids, mask = text(0, padded=False)
    for training in (True, False, True):
        model.train(training)
        below = [split.read(ids, mask) for _ in range(2)]
        hidden = split.read(ids, mask) if dropout != "all" else below[0]
        with torch.no_grad():
            above = [split.answer(hidden, mask, None) for _ in range(2)]
        assert torch.equal(*below) == (not training or dropout != "all")
        assert torch.equal(*above) == (not training or dropout == "none")
        assert model.prompt_dropout.training == training


def test_vocabulary_start() -> None:
    split = SplitModel(tiny_model("bert"), 2)
    rows = {tuple(row.tolist()) for row in split.below.get_input_embeddings().weight}
    assert all(tuple(row.tolist()) in rows for row in vocabulary_start(split, 4))
    narrow = SplitModel(tiny_model("electra"), 2)  # embeddings of 16, hidden states of 32
    with pytest.raises(ConfigError, match="width 16"):
        vocabulary_start(narrow, 4)


# What saves time and memory must not change the answer

MASKED = [name for name, family in FAMILIES.items() if family.kind == "masked"]
CAUSAL = [name for name, family in FAMILIES.items() if family.kind == "causal"]


@pytest.mark.parametrize("family", CAUSAL)
@pytest.mark.parametrize("with_prompt", [False, True])
@pytest.mark.parametrize("attention", [None, "eager"])
def test_labels_that_share_a_context_score_as_if_alone(
    family: str, with_prompt: bool, attention: str | None
) -> None:
    """Longer than the sliding windows of the tiny models."""
    model = prompted(family, layer=3, attention=attention)
    contexts = [[1, *range(10, 10 + n)] for n in (12, 3, 7)]
    endings = [[[30, 31, 2], [32, 2]], [[33, 2], [34, 35, 36, 2]], [[37], [38, 2]]]
    packed = PackedTokens(Encoded(contexts, endings=endings), model.split.config.pad_token_id)
    labels, index, words = [0, 1, 1], [0, 1, 2], [30, 32]
    shared = Collator(packed, labels, index, words, score_all=True)([0, 1, 2])
    scorer = LabelScorer("causal", words)
    alone = torch.empty(3, 2)
    with torch.no_grad():
        scores = scorer(model(shared, prompted=with_prompt), shared)
        for y in (0, 1):
            one = Collator(packed, [y] * 3, index, words, score_all=False)([0, 1, 2])
            assert one.branches is None
            alone[:, y] = -sequence_losses(model(one, prompted=with_prompt), one, 3)
    torch.testing.assert_close(scores, alone, atol=1e-5, rtol=1e-5)
    assert scores.std() > 0.1


@families
def test_eager_attention_answers_the_same(family: str) -> None:
    logits = []
    for attention in (None, "eager"):
        model = prompted(family, layer=3, attention=attention)
        with torch.no_grad():
            logits.append(model(batch_of(*text(model.split.config.pad_token_id, padded=True))))
    torch.testing.assert_close(logits[1], logits[0], atol=1e-5, rtol=1e-5)
    assert model.split.config._attn_implementation == "eager"


@families
@pytest.mark.parametrize("layer", [1, 2, LAYERS])
def test_what_the_ends_are_spared_changes_nothing(
    family: str, layer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = prompted(family, layer=layer)
    split = model.split
    batch = batch_of(*text(split.config.pad_token_id, padded=True))
    rows, tokens = torch.tensor([2, 0, 0, 1]), torch.tensor([4, 19, 3, 0])
    hidden = split.read(batch.input_ids, batch.attention_mask)
    gradients = []
    outputs = []
    for spared in (False, True):
        prompt = model.make_prompt(hidden, batch)
        if spared:
            monkeypatch.undo()
            out = split.answer(hidden, batch.attention_mask, prompt, None, (rows, tokens))
        else:
            monkeypatch.setattr(_DetachText, "forward", lambda self, hidden: self.module(hidden))
            whole = split.answer(hidden, batch.attention_mask, prompt)
            out = whole[rows, tokens + prompt.shape[1]]
        model.zero_grad()
        out.square().sum().backward()
        gradients.append([p.grad for p in model.generator.parameters() if p.grad is not None])
        outputs.append(out.detach())
    torch.testing.assert_close(outputs[1], outputs[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-4, rtol=1e-4)
    assert len(gradients[0]) > 0


@families
def test_the_last_layer_works_for_scored_tokens_only(family: str) -> None:
    model = tiny_model(family)
    split = SplitModel(model, 2)
    ids, mask = text(split.config.pad_token_id, padded=False)
    layer = list(model.base_model.get_submodule(split.family.layers).children())[-1]
    seen: dict[str, list[int]] = {x: [] for chain in split.family.per_token for x in chain}
    for name, counts in seen.items():
        layer.get_submodule(name).register_forward_hook(
            lambda _, inputs, __, counts=counts: counts.append(inputs[0].shape[:-1].numel())
        )
    hidden = split.read(ids, mask)
    split.answer(hidden, mask, None, None, (torch.tensor([0, 2]), torch.tensor([1, 1])))
    split.answer(hidden, mask, None)
    assert all(counts == [2, mask.numel()] for counts in seen.values())


@families
def test_the_first_layer_is_followed_backward_for_the_prompt_only(family: str) -> None:
    model = tiny_model(family)
    split = SplitModel(model, 2)
    ids, mask = text(split.config.pad_token_id, padded=True)
    rows = len(mask)
    layer = model.base_model.get_submodule(f"{split.family.layers}.1")
    followed: dict[str, list[int]] = {x: [] for x in split.family.projections}
    for name, counts in followed.items():
        layer.get_submodule(name).register_forward_hook(
            lambda _, inputs, __, counts=counts: counts.append(
                inputs[0].requires_grad * inputs[0].shape[:-1].numel()
            )
        )
    prompt = torch.randn(rows, 3, 32, requires_grad=True)
    split.answer(split.read(ids, mask), mask, prompt)
    for counts in followed.values():
        assert sum(counts) == rows * 3
    with torch.no_grad():
        split.answer(split.read(ids, mask), mask, prompt)
    assert all(len(counts) in (3, 5) for counts in followed.values())


@pytest.mark.parametrize("family", MASKED)
def test_words_head_gives_the_rows_of_the_whole_head(family: str) -> None:
    model, words = tiny_model(family), [7, 90, 8]
    split = SplitModel(model, 2, word_ids=words)
    hidden = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        some, all_ = split.logits(hidden, words_only=True), split.logits(hidden)
    torch.testing.assert_close(some, all_[:, words], atol=1e-6, rtol=1e-5)
    assert some.std() > 0.1
    assert not any(parameter.requires_grad for parameter in split.parameters())


@families
def test_one_pass_reads_in_front_of_several_layers(family: str) -> None:
    model = tiny_model(family)
    ids, mask = text(model.config.pad_token_id, padded=True)
    found = SplitModel(model, 2).read_layers([4, 2, 3], ids, mask)
    assert sorted(found) == [2, 3, 4]
    for layer, hidden in found.items():
        expected = SplitModel(model, layer).read(ids, mask)
        assert torch.equal(hidden[mask.bool()], expected[mask.bool()])
    assert not any(m._forward_pre_hooks for m in model.modules())


@families
@pytest.mark.parametrize("frozen_dropout", ["none", "above"])
def test_recomputing_changes_no_gradient(family: str, frozen_dropout: str) -> None:
    saved: dict[bool, int] = {}
    gradients: dict[bool, list[Tensor]] = {}
    for recompute in (False, True):
        split = SplitModel(tiny_model(family), 2, recompute=recompute)
        torch.manual_seed(2)
        generator = build_generator("npg", hidden_size=32, length=3, bottleneck=6)
        model = LatePrompt(split, generator, frozen_dropout=frozen_dropout).train()
        batch = batch_of(*text(split.config.pad_token_id, padded=True))
        kept: list[int] = []

        def keep(tensor: Tensor, kept: list[int] = kept) -> Tensor:
            kept.append(tensor.nbytes)
            return tensor

        torch.manual_seed(3)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = sequence_losses(model(batch), batch, len(batch.labels)).mean()
        loss.backward()
        saved[recompute] = sum(kept)
        gradients[recompute] = [p.grad for p in generator.parameters() if p.grad is not None]
    torch.testing.assert_close(gradients[True], gradients[False])
    assert saved[True] < 0.7 * saved[False]


@families
def test_what_is_below_is_freed_with_its_embeddings(family: str) -> None:
    """Where the head is not tied to them."""
    model = tiny_model(family, tie_word_embeddings=False)
    words = model.get_input_embeddings()
    layers = list(model.base_model.get_submodule(FAMILIES[family].layers).children())
    below = [weakref.ref(p) for layer in layers[:2] for p in layer.parameters()]
    above = [weakref.ref(p) for layer in layers[2:] for p in layer.parameters()]
    if FAMILIES[family].tied_head is None:
        below.append(weakref.ref(words.weight))
    split = SplitModel(model, 3)
    ids, mask = text(split.config.pad_token_id, padded=True)
    hidden = split.read(ids, mask)
    split.release_lower()
    del model, words, layers
    gc.collect()
    assert not any(reference() is not None for reference in below)
    assert all(reference() is not None for reference in above)
    split.logits(split.answer(hidden, mask, None))
