"""What trains: names by rules written by hand, and the published counts."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedModel

from lpt.config.method_schema import PromptConfig
from lpt.config.schema import Config
from lpt.methods.registry import build_method
from tests.support.tiny import tiny_model
from tests.unit.methods.test_methods import SETTINGS, WORDS, method_config

BERT_NORMS = r"bert\.encoder\.layer\.(\d)\.(attention\.)?output\.LayerNorm"
GPT2_BLOCK = r"transformer\.h\.(\d)\."
ADAPTED_BERT = r"bert\.encoder\.layer\.(\d)\.(attention\.)?output\.dropout\.adapter"
ADAPTED_LLAMA = r"model\.layers\.(\d)\.(self_attn\.o_proj|mlp)\.adapter"
DENSE = r"\.(down|up)\.(weight|bias)"

# Of each layer, and what trains besides at layer 1.
RULES: dict[tuple[str, str], tuple[str, int, set[str]]] = {
    ("bert", "full"): (
        r"bert\.encoder\.layer\.(\d)\..*", 16,
        {f"bert.embeddings.{name}" for name in (
            "word_embeddings.weight", "position_embeddings.weight", "token_type_embeddings.weight",
            "LayerNorm.weight", "LayerNorm.bias")}
        | {f"cls.predictions.{name}" for name in (
            "bias", "transform.dense.weight", "transform.dense.bias",
            "transform.LayerNorm.weight", "transform.LayerNorm.bias")},
    ),
    ("bert", "bitfit"): (
        r"bert\.encoder\.layer\.(\d)\..*\.bias", 8,
        {"bert.embeddings.LayerNorm.bias", "cls.predictions.transform.dense.bias",
         "cls.predictions.transform.LayerNorm.bias"},
    ),
    ("bert", "ln_tuning"): (
        BERT_NORMS + r"\.ln_tuning_layers\.default\.(weight|bias)", 4,
        {f"bert.embeddings.LayerNorm.ln_tuning_layers.default.{w}" for w in ("weight", "bias")},
    ),
    ("bert", "adapter"): (ADAPTED_BERT + DENSE, 8, set()),
    ("gpt2", "full"): (
        GPT2_BLOCK + ".*", 12,
        {f"transformer.{name}" for name in (
            "wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias")},
    ),
    ("gpt2", "bitfit"): (GPT2_BLOCK + r".*\.bias", 6, {"transformer.ln_f.bias"}),
    ("gpt2", "ln_tuning"): (
        GPT2_BLOCK + r"ln_\d\.ln_tuning_layers\.default\.(weight|bias)", 4,
        {f"transformer.ln_f.ln_tuning_layers.default.{w}" for w in ("weight", "bias")},
    ),
    ("llama", "ln_tuning"): (
        r"model\.layers\.(\d)\.(input|post_attention)_layernorm\.ln_tuning_layers\.default\.weight",
        2, {"model.norm.ln_tuning_layers.default.weight"},
    ),
    ("llama", "adapter"): (ADAPTED_LLAMA + DENSE, 8, set()),
    ("llama", "full"): (
        r"model\.layers\.(\d)\..*", 9,
        {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("layer", [1, 3])
@pytest.mark.parametrize(("family", "name"), RULES)
def test_names(family: str, name: str, layer: int) -> None:
    rule, count, besides = RULES[family, name]
    method = build_method(method_config(name, layer), tiny_model(family), WORDS)
    found = set(method.trainable())
    in_layers = {key: match for key in found if (match := re.fullmatch(rule, key))}
    numbers = [int(match[1]) for match in in_layers.values()]
    assert {n: numbers.count(n) for n in numbers} == dict.fromkeys(range(layer - 1, 4), count)
    assert found - set(in_layers) == (besides if layer == 1 else set())
    trains = {id(p) for p in method.parameters() if p.requires_grad}
    assert trains == set(map(id, method.trainable().values()))


def roberta(size: str) -> PreTrainedModel:
    """RoBERTa-base or -large without weights."""
    width, depth = {"base": (768, 12), "large": (1024, 24)}[size]
    config = AutoConfig.for_model(
        "roberta",
        hidden_size=width,
        num_hidden_layers=depth,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
        vocab_size=50265,
        max_position_embeddings=514,
        type_vocab_size=1,
    )
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForMaskedLM.from_config(config)
    return model


def peft(peft_type: str, **options: Any) -> dict[str, Any]:
    return {"config": {"peft_type": peft_type, **options}}


@pytest.mark.parametrize(
    ("name", "settings", "base", "large"),
    [
        ("full", {}, 124_697_433, 355_412_057),
        ("bitfit", {}, 103_680, 273_408),  # without the bias over the vocabulary
        ("adapter", {"bottleneck": 64, "placement": "houlsby"}, 2_379_264, 6_343_680),
        ("adapter", {"bottleneck": 64, "placement": "pfeiffer"}, 1_189_632, 3_171_840),
        ("lora", {"r": 8}, 294_912, 786_432),
        # PEFT's own all-linear takes the head's dense layer, too: 12,288 and 16,384 more.
        ("lora", {"r": 8, "target_modules": "all-linear"}, 1_327_104, 3_538_944),
        ("dora", {"r": 8}, 313_344, 835_584),
        ("adalora", {"r": 8}, 442_656, 1_180_224),
        ("prefix", {"length": 20}, 368_640, 983_040),
        ("prefix", {"length": 20, "bottleneck": 128}, 2_491_520, 6_492_288),
        ("ptuning", {"length": 20, "bottleneck": 128}, 229_376, 300_288),
        ("ia3", {}, 64_512, 172_032),
        ("ln_tuning", {}, 38_400, 100_352),
        ("vera", {"r": 256}, 24_576, 61_440),
        ("peft", peft("OFT", oft_block_size=32), 285_696, 761_856),
        ("peft", peft("MISS", r=64), 1_179_648, 3_145_728),
        pytest.param(  # draws a permutation of each matrix
            "peft", peft("FOURIERFT", n_frequency=1000), 24_000, 48_000, marks=pytest.mark.slow
        ),
        ("peft", peft("RANDLORA", r=32), 460_800, 1_622_016),
    ],
)  # fmt: skip
def test_counts_of_roberta(name: str, settings: dict[str, Any], base: int, large: int) -> None:
    """On the whole model."""
    for size, expected in (("base", base), ("large", large)):
        config = method_config(name, 1, **{**SETTINGS.get(name, {}), **settings})
        method = build_method(config, roberta(size), None)
        assert method.count_parameters()["trainable"] == expected


@pytest.mark.parametrize(
    ("kind", "base", "large"), [("npg", 593_792, 791_680), ("mppg", 197_504, 263_296)]
)
def test_counts_of_late_prompts_in_roberta(kind: str, base: int, large: int) -> None:
    for size, expected in (("base", base), ("large", large)):
        prompt = PromptConfig(kind=kind, layer=7, length=5, bottleneck=128, lr=1e-3)
        config = Config(method=method_config("late_prompt").method, prompt=prompt)
        method = build_method(config, roberta(size), None)
        assert method.count_parameters()["trainable"] == expected
