"""Parity with numbers measured on the method's reference release: see its README for the format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
)

from lpt.data.fewshot import sample_total
from lpt.methods.late_prompt import LatePrompt
from lpt.models.generators import build_generator
from lpt.models.inputs import Batch
from lpt.models.scoring import LabelScorer, sequence_losses
from lpt.models.split import SplitModel
from tests.support.late_prompts import make_batch
from tests.support.shared import REFERENCE_DIR

FILES = sorted(REFERENCE_DIR.glob("*/*.safetensors"))
needs_files = pytest.mark.skipif(not FILES, reason=f"no reference files in {REFERENCE_DIR}")
OWN_CONFIG = ("generator", "add_prompt_layer", "num_prompt_tokens", "proj_down_size")


def load(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
        return config, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def build(config: dict[str, Any], tensors: dict[str, Tensor], family: str) -> LatePrompt:
    arguments = {k: v for k, v in config.items() if k not in OWN_CONFIG}
    model: PreTrainedModel = (
        RobertaForMaskedLM(RobertaConfig(**arguments))
        if family == "roberta"
        else GPT2LMHeadModel(GPT2Config(**arguments))
    )
    state = {k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")}
    missing, _ = model.load_state_dict(state, strict=False)
    assert set(missing) <= {"lm_head.weight", "lm_head.decoder.weight"}  # tied to the embeddings
    generator = build_generator(
        (config["generator"] or "static").lower(),
        hidden_size=model.config.hidden_size,
        length=config["num_prompt_tokens"],
        bottleneck=config["proj_down_size"],
        init=state.get("prompt_embedding.weight"),
    )
    for name, parameter in generator.named_parameters():
        parameter.data = state[reference_name(name, family)].clone()
    return LatePrompt(SplitModel(model, config["add_prompt_layer"] + 1), generator).eval()


def reference_name(name: str, family: str) -> str:
    if name == "vectors":
        return "prompt_embedding.weight"
    stem = {"roberta": "roberta.encoder", "gpt2": "transformer"}[family]
    part, kind = name.split(".")
    return f"{stem}.prompt_generator.proj_{part}.{kind}"


def roberta_batch(t: dict[str, Tensor]) -> Batch:
    """One mask per row; the first token is pooled."""
    ids, mask, rows = t["input_ids"], t["attention_mask"], torch.arange(len(t["labels"]))
    return make_batch(ids, mask)._replace(
        summary_index=torch.zeros_like(rows),
        pool_length=mask.sum(1),
        logit_positions=t["mask_pos"],
        targets=t["labels"],
        labels=t["labels"],
    )


def gpt2_batch(t: dict[str, Tensor]) -> Batch:
    """A target for each token that counts in the loss."""
    rows, predicted = t["loss_mask"].nonzero(as_tuple=True)
    return make_batch(t["input_ids"], t["attention_mask"])._replace(
        summary_index=t["seq_lengths"],
        pool_length=t["seq_lengths"],
        logit_rows=rows,
        logit_positions=predicted - 1,
        target_to_logit=torch.arange(len(rows)),
        targets=t["input_ids"][rows, predicted],
        sequences=rows,
    )


def layer_outputs(model: LatePrompt, batch: Batch) -> tuple[Tensor, list[Tensor]]:
    """Logits and the output of every layer, below and above, in order."""
    outputs: list[Tensor] = []
    views = (model.split.lower, model.split.upper.model)
    layers = [x for v in views for x in v.get_submodule(model.split.family.layers).children()]
    hooks = [
        layer.register_forward_hook(
            lambda _, __, out: outputs.append(out[0] if isinstance(out, tuple) else out)
        )
        for layer in layers
    ]
    hidden = model.split.forward_lower(batch.input_ids, batch.attention_mask)
    model.split.forward_upper(
        hidden, batch.attention_mask, model.upper_inputs(hidden, batch)["prompt"]
    )
    for hook in hooks:
        hook.remove()
    return model(batch), outputs


def real(x: Tensor, mask: Tensor) -> Tensor:
    """The rows of real tokens; a prompt in front counts as real."""
    extra = x.shape[1] - mask.shape[1]
    return x[torch.cat([mask.new_ones(len(mask), extra), mask], dim=1).bool()]


@needs_files
@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_parity(path: Path) -> None:
    family = path.parent.name
    config, t = load(path)
    model = build(config, t, family)
    batch = roberta_batch(t) if family == "roberta" else gpt2_batch(t)
    mask = batch.attention_mask

    logits, outputs = layer_outputs(model, batch)
    last = len(outputs)
    for i, output in enumerate(outputs, 1):
        if family == "gpt2" and i == last:
            norm = (t[f"state.transformer.ln_f.{name}"] for name in ("weight", "bias"))
            output = nn.functional.layer_norm(output, output.shape[-1:], *norm)
        expected = t[f"hidden.{i}"]
        if i == config["add_prompt_layer"]:  # recorded with the prompt already in front
            prompt = model.upper_inputs(output, batch)["prompt"]
            output = torch.cat([prompt, output], dim=1)
        assert output.shape == expected.shape
        torch.testing.assert_close(real(output, mask), real(expected, mask), atol=2e-5, rtol=0)

    if family == "roberta":
        torch.testing.assert_close(logits, t["logits_at_mask"], atol=2e-5, rtol=0)
    else:
        at = batch.logit_positions + config["num_prompt_tokens"]
        torch.testing.assert_close(logits, t["logits"][batch.logit_rows, at], atol=2e-5, rtol=0)
        per_example = sequence_losses(logits, batch, len(batch.labels))
        torch.testing.assert_close(per_example, t["loss_per_example"], atol=2e-5, rtol=0)

    kind = "masked" if family == "roberta" else "causal"
    loss = LabelScorer(kind, [0]).loss(logits, batch, "vocabulary")
    torch.testing.assert_close(loss[None], t["loss"], atol=2e-5, rtol=0)

    loss.backward()
    names = {f"grad.{reference_name(n, family)}": n for n, _ in model.generator.named_parameters()}
    assert set(names) == {name for name in t if name.startswith("grad.")}
    for grad_name, name in names.items():
        grad = model.generator.get_parameter(name).grad
        assert grad is not None
        torch.testing.assert_close(grad, t[grad_name], atol=1e-5, rtol=0)
    assert set(model.trainable()) == {f"generator.{name}" for name in names.values()}


KSHOT = REFERENCE_DIR / "kshot.json"


@pytest.mark.skipif(not KSHOT.exists(), reason=f"no {KSHOT}")
def test_kshot_row_ids() -> None:
    cases = json.loads(KSHOT.read_text())
    assert cases
    for case in cases.values():
        for seed, expected in case["seeds"].items():
            sample = sample_total(case["labels"], case["k"], case["k_dev"], int(seed))
            assert sample.train == expected["train"]
            assert sample.dev == expected["dev"]
