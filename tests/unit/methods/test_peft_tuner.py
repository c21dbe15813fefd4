"""LATE_PROMPT in PEFT: the numbers of lpt's own late prompt, for every family of models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModel, AutoModelForSequenceClassification, DynamicCache, StaticCache

from lpt.methods.late_prompt import LatePrompt
from lpt.models.families import FAMILIES
from lpt.models.generators import GENERATORS
from lpt.models.inputs import Batch
from lpt.peft import LatePromptConfig
from tests.support.configs import configured
from tests.support.late_prompts import LAYERS, make_batch, make_text, tiny_late_prompt
from tests.support.problems import problems_of
from tests.support.tiny import tiny_model

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated"),
    pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated"),
]
CAUSAL = [name for name, family in FAMILIES.items() if family.kind == "causal"]
SETTINGS = [("npg", [3]), ("mppg", [2, LAYERS]), ("idpg", [2, 3]), ("static", [1])]
Layers = Sequence[int]


def config(kind: str, layers: Layers, /, **changes: Any) -> LatePromptConfig:
    prompt = configured(f"prompt={kind}").prompt
    assert prompt is not None
    options: dict[str, Any] = {
        "kind": kind,
        "layer": layers[0],
        "layers": list(layers) if len(layers) > 1 else [],
        "length": 3,
        "bottleneck": None if kind == "static" else 16,
        "args": dict(prompt.args),
        "dropout": 0.0,
    }
    return LatePromptConfig(**options | changes)


def twins(family: str, kind: str, layers: Layers, **changes: Any) -> tuple[LatePrompt, PeftModel]:
    """The same late prompt in lpt and in PEFT."""
    own = tiny_late_prompt(family, layers[0], kind, further=layers[1:])
    model = get_peft_model(tiny_model(family), config(kind, layers, **changes)).eval()
    copy_prompt(own, model)
    return own, model


@torch.no_grad()
def copy_prompt(own: LatePrompt, model: PeftModel) -> None:
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == len(own.trainable())
    for name, parameter in own.trainable().items():
        [twin] = [trained[long] for long in trained if long.endswith(f".default.{name}")]
        twin.copy_(parameter)


def text_of(own: LatePrompt, *, context: int = 0) -> Batch:
    """A padded batch whose prompt is made of all of a text but its last `context` tokens."""
    batch = make_batch(*make_text(own.split.config.pad_token_id, padded=True))
    length = batch.attention_mask.sum(1) - context
    if own.split.family.kind == "masked":
        return batch._replace(summary_index=torch.zeros_like(length), pool_length=length + context)
    return batch._replace(summary_index=length - 1, pool_length=(length - 1).clamp(min=1))


def left_padded(batch: Batch, pad_id: int) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Ids and mask with padding on the left, and the rows without it."""
    rows = [
        ids[mask.bool()] for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True)
    ]
    width = batch.input_ids.shape[1]
    ids = torch.stack([torch.cat([row.new_full((width - len(row),), pad_id), row]) for row in rows])
    return ids, batch.attention_mask.flip(1), rows


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("kind", "layers"), SETTINGS)
def test_logits_are_those_of_lpt(family: str, kind: str, layers: Layers) -> None:
    own, model = twins(family, kind, layers)
    batch = text_of(own)
    ids, mask = batch.input_ids, batch.attention_mask
    with torch.no_grad():
        hidden = own.split.forward_lower(ids, mask)
        final = own.split.forward_upper(hidden, mask, **own.upper_inputs(hidden, batch))[:, 3:]
        logits = model(input_ids=ids, attention_mask=mask).logits
        assert torch.equal(logits[mask.bool()], own.split.logits(final)[mask.bool()])
        # lpt computes the last layer for scored tokens only, in other matrix products.
        scored = logits[batch.logit_rows, batch.logit_positions]
        torch.testing.assert_close(scored, own(batch), atol=1e-5, rtol=1e-5)
        with model.disable_adapter():
            plain = model(input_ids=ids, attention_mask=mask).logits
        assert torch.equal(plain, tiny_model(family)(input_ids=ids, attention_mask=mask).logits)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_frozen_layers_may_be_in_bfloat16(family: str) -> None:
    own = tiny_late_prompt(family, 3, "mppg")
    own.split.to(torch.bfloat16)
    model = get_peft_model(tiny_model(family).bfloat16(), config("mppg", [3])).eval()
    copy_prompt(own, model)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    batch = text_of(own)
    ids, mask = batch.input_ids, batch.attention_mask
    with torch.no_grad():
        hidden = own.split.forward_lower(ids, mask)
        final = own.split.forward_upper(hidden, mask, **own.upper_inputs(hidden, batch))[:, 3:]
        logits = model(input_ids=ids, attention_mask=mask).logits
        assert torch.equal(logits[mask.bool()], own.split.logits(final)[mask.bool()])


def test_all_generators_are_offered() -> None:
    for kind in GENERATORS:
        own, model = twins("bert", kind, [3])
        batch = text_of(own)
        with torch.no_grad():
            logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
            scored = logits[batch.logit_rows, batch.logit_positions]
            torch.testing.assert_close(scored, own(batch), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_lpt(family: str, checkpointing: bool) -> None:
    """A causal model's prompt is made of what comes before the first token with a label."""
    own, model = twins(family, "mppg", [2, LAYERS], frozen_dropout="none")
    if checkpointing:
        model.gradient_checkpointing_enable()
        model.train()
    batch = text_of(own, context=2)
    ids, mask = batch.input_ids, batch.attention_mask
    end = mask.sum(1, keepdim=True)
    places = torch.arange(ids.shape[1])
    labels = ids.masked_fill((places < end - 2) | (places >= end), -100)
    logits = model(input_ids=ids, attention_mask=mask, labels=labels).logits
    cross_entropy(logits[batch.logit_rows, batch.logit_positions], batch.targets).backward()
    cross_entropy(own(batch), batch.targets).backward()
    trained = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    for name, parameter in own.trainable().items():
        [gradient] = [trained[long] for long in trained if long.endswith(f".default.{name}")]
        assert gradient is not None
        torch.testing.assert_close(gradient, parameter.grad, atol=1e-5, rtol=1e-4)
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


@pytest.mark.parametrize("family", CAUSAL)
@pytest.mark.parametrize(("kind", "layers"), [*SETTINGS, ("appg", [LAYERS])])
def test_generate_is_a_loop_without_cache(family: str, kind: str, layers: Layers) -> None:
    """Of rows padded on the left, also in layers with a sliding window."""
    own, model = twins(family, kind, layers)
    pad_id = own.split.config.pad_token_id
    ids, mask, rows = left_padded(text_of(own), pad_id)
    options: dict[str, Any] = {"max_new_tokens": 5, "min_new_tokens": 5, "pad_token_id": pad_id}
    found = model.generate(input_ids=ids, attention_mask=mask, do_sample=False, **options)
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask).logits
        for row, text in enumerate(rows):
            alone = model(input_ids=text[None]).logits[0]
            torch.testing.assert_close(logits[row, -len(text) :], alone, atol=1e-4, rtol=1e-4)
            context = torch.tensor([len(text)])
            for _ in range(5):
                step = model(input_ids=text[None], context_length=context, use_cache=False)
                assert step.past_key_values is None
                best = step.logits[0, -1].index_fill(0, torch.tensor([2]), -torch.inf).argmax()
                text = torch.cat([text, best[None]])
            assert torch.equal(found[row, -5:], text[-5:])


def test_a_cache_is_filled_in_place() -> None:
    """Also one that has no layers yet; beams may be reordered in it."""
    own, model = twins("llama", "npg", [3])
    ids = text_of(own).input_ids[:1]
    with torch.no_grad():
        whole = model(input_ids=ids, context_length=torch.tensor([12]), use_cache=False).logits
        cache = DynamicCache()
        model(input_ids=ids[:, :12], past_key_values=cache)
        rest = model(input_ids=ids[:, 12:], past_key_values=cache)
    torch.testing.assert_close(rest.logits, whole[:, 12:], atol=1e-4, rtol=1e-4)
    assert rest.past_key_values is cache
    beams = model.generate(input_ids=ids, num_beams=3, max_new_tokens=3, pad_token_id=0)
    assert beams.shape[1] > ids.shape[1]


def test_what_a_late_prompt_cannot_do_is_refused() -> None:
    model = get_peft_model(tiny_model("llama"), config("npg", [3]))
    ids = torch.full((1, 4), 7)
    cache = StaticCache(config=model.config, max_cache_len=16)
    with pytest.raises(ValueError, match="dynamic cache"):
        model(input_ids=ids, past_key_values=cache)
    with pytest.raises(ValueError, match="shape \\(rows, tokens\\)"):
        model(input_ids=ids, attention_mask=torch.ones(1, 1, 4, 4))
    with pytest.raises(ValueError, match="cannot be merged"):
        model.merge_and_unload()
    model.add_adapter("b", config("static", [1]))
    with pytest.raises(ValueError, match="only one of them"):
        model.base_model.set_adapter(["default", "b"])


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"kind": "npgg"}, "prompt.kind"),
        ({"layer": 5}, "prompt.layer"),
        ({"layer": 1}, "prompt.layer"),
        ({"layers": [2, 9], "layer": 2}, "prompt.layers"),
        ({"length": 0}, "prompt.length"),
        ({"bottleneck": -1}, "prompt.bottleneck"),
        ({"dropout": 1.5}, "prompt.dropout"),
        ({"frozen_dropout": "below"}, "model.dropout"),
        ({"kind": "idpg", "args": {}}, "prompt.args.n"),
        ({"args": {"width": 3}}, "prompt.args.width"),
    ],
)
def test_a_prompt_that_does_not_fit_is_refused(changes: dict[str, Any], key: str) -> None:
    base = tiny_model("bert")
    problems = problems_of(lambda: get_peft_model(base, config("npg", [3], **changes)))
    assert {problem.where for problem in problems} == {key}
    assert not any("late_prompt" in name for name, _ in base.named_modules())


def test_a_model_that_does_not_fit_is_refused() -> None:
    headless = AutoModel.from_config(tiny_model("bert").config)
    [problem] = problems_of(lambda: get_peft_model(headless, config("npg", [3])))
    assert problem.given == "BertModel"
    spread = tiny_model("bert")
    spread.bert._hf_hook = object()
    [problem] = problems_of(lambda: get_peft_model(spread, config("npg", [3])))
    assert problem.where == "device_map"


def test_defaults_are_those_of_the_paper() -> None:
    model = get_peft_model(tiny_model("bert"), LatePromptConfig())
    found = model.peft_config["default"]
    assert (found.layer, found.length, found.bottleneck, found.dropout) == (3, 5, 128, 0.1)


@pytest.mark.parametrize("family", ["bert", "opt"])
def test_a_new_head_trains_beside_the_prompt(family: str) -> None:
    base = AutoModelForSequenceClassification.from_config(tiny_model(family).config)
    model = get_peft_model(base, config("npg", [3], task_type="SEQ_CLS"))
    model(input_ids=torch.full((2, 4), 7), labels=torch.tensor([0, 1])).loss.backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert {"late_prompt" in name for name in trained} == {True, False}
    assert all("late_prompt" in name or "modules_to_save" in name for name in trained)
