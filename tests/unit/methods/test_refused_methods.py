"""Methods that do not fit are refused with key, value and way out, before weights are loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from lpt.errors import Problem
from lpt.training.plan import prepare
from tests.conftest import toy_overrides
from tests.support.configs import configured
from tests.support.problems import problem_of, problems_of
from tests.support.tiny import save_tiny
from tests.support.tokenizers import causal

OFT = "method.config={peft_type: OFT"
LORA_HINT = "the default is ['attention.self.query', 'attention.self.value']"


@pytest.fixture(scope="module")
def weightless(
    checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Folders with config and tokenizer of models, but no weights."""
    folder = tmp_path_factory.mktemp("weightless")
    save_tiny(folder / "gpt2", "gpt2", causal())
    for kind, source in {**checkpoints, "gpt2": folder / "gpt2"}.items():
        (folder / kind).mkdir(exist_ok=True)
        for file in source.iterdir():
            (folder / kind / file.name).write_bytes(file.read_bytes())
        (folder / kind / "model.safetensors").unlink()
    return {kind: folder / kind for kind in ("masked", "causal", "gpt2")}


def refused(checkpoints: dict[str, Path], data: Path, model: str, *given: str) -> Problem:
    """The only problem."""
    toy = toy_overrides(checkpoints, data, model, "prompt.layer=null", *given)
    return problem_of(lambda: prepare(configured(*toy)))


@pytest.mark.parametrize(
    ("given", "key", "value", "expected", "hint"),
    [
        (("lora", "method.layer=0"), "method.layer", "0", ">= 1", ""),
        (("lora", "method.layer=5"), "method.layer", "5", "1 to 4 for masked", ""),
        (("lora", "method.r=33"), "method.r", "33", "1 to 32, the width of bert.enc", ""),
        (("dora", "method.r=33"), "method.r", "33", "1 to 32", ""),
        (("adapter", "method.r=3"), "method.r", "3", "null: method=adapter has no", ""),
        (("lora", "method.target_modules=[q_proj]"), "method.target_modules", "['q_proj']",
         "modules of layers 1 and above", LORA_HINT),
        (("ln_tuning", "method.target_modules=[query]"), "method.target_modules", "['query']",
         "modules of layers 1 and above that it can adapt", "the default is norms"),
        (("lora", "method.target_modules=3"), "method.target_modules", "3", "ends of names", ""),
        (("lora", "method.target_modules='(('"), "method.target_modules", "((", "regular", ""),
        (("lora", "method.target_modules=[dropout]"), "method.name",
         "lora in masked: Target module Dropout(p=0.1", "a method and settings", ""),
        (("lora", "method.config={lora_alfa: 3}"), "method.config.lora_alfa", "3",
         "an option of LoraConfig: alpha_pattern,", "did you mean lora_alpha"),
        (("lora", "method.config={layers_to_transform: [1]}"), "method.config.layers_to_transform",
         "[1]", "no such key: lpt sets it", "method.layer"),
        (("lora", OFT + "}"), "method.config.peft_type", "OFT", "no such key", "method=peft"),
        (("lora", "method.config={init_lora_weights: pissa}"), "method.config.init_lora_weights",
         "pissa", "True, False, gaussian, orthogonal", ""),
        (("lora", "method.layer=3", "method.config={bias: all}"), "method.name",
         "lora {'bias': 'all'} in masked: parameters below layer 3 would train", "", ""),
        (("peft",), "method.config", "{}", "a config with peft_type", "peft_type: OFT"),
        (("peft", "method.config={peft_type: BOTF}"), "method.config.peft_type", "BOTF",
         "a weight method of PEFT: ADAMSS, BEFT", "did you mean BOFT"),
        (("peft", "method.config={peft_type: oft}"), "method.config.peft_type", "oft", "",
         "did you mean OFT"),
        (("peft", "method.config={peft_type: PREFIX_TUNING}"), "method.config.peft_type",
         "PREFIX_TUNING", "a weight method", "method=prefix"),
        (("peft", "method.config={peft_type: P_TUNING}"), "method.config.peft_type",
         "P_TUNING", "a weight method", "method=ptuning"),
        (("peft", "method.config={peft_type: PROMPT_TUNING}"), "method.config.peft_type",
         "PROMPT_TUNING", "a weight method", "prompt=static prompt.layer=1"),
        (("peft", "method.config={peft_type: POLY}"), "method.config.peft_type", "POLY",
         "a weight method", "it needs task ids"),
        (("peft", "method.config={peft_type: LILY}"), "method.config.peft_type", "LILY",
         "a weight method", "over the batch"),
        (("peft", OFT + ", oft_blok_size: 4}"), "method.config.oft_blok_size", "4",
         "an option of OFTConfig", "did you mean oft_block_size"),
        (("peft", OFT + ", oft_block_size: x}"), "method.name",
         "peft {'peft_type': 'OFT', 'oft_block_size': 'x'} in masked: ", "that fit", ""),
        (("peft", "method.config={peft_type: ADALORA}"), "method.config.peft_type", "ADALORA",
         "a weight method", "method=adalora"),
        (("adalora", "method.config={tfinal: 3}"), "method.config.tfinal", "3", "no such key",
         "they follow from the steps"),
        (("prefix", "method.config={num_virtual_tokens: 3}"), "method.config.num_virtual_tokens",
         "3", "no such key", "method.length"),
        (("prefix", "data.max_length=90"), "data.max_length", "90, and 20 virtual tokens",
         "96 in all", ""),
        (("prefix", "trainer.gradient_checkpointing=true"), "trainer.gradient_checkpointing",
         "True", "false: method=prefix", ""),
        (("ptuning", "method.layer=2"), "method.layer", "2", "1 or null", ""),
        (("ptuning", "method.config={encoder_reparameterization_type: GRU}"), "method.name",
         "ptuning {'encoder_reparameterization_type': 'GRU'} in masked: Prompt encoder type", "",
         ""),
        (("full", "model.dtype=bfloat16"), "model.dtype", "bfloat16 with method=full", "float32",
         "trainer.precision=bf16-mixed"),
        (("lora", "strategy=fsdp", "strategy.accelerator=gpu"), "strategy.name",
         "fsdp with method=lora", "strategy=ddp", ""),
    ],
)  # fmt: skip
def test_what_does_not_fit(
    weightless: dict[str, Path],
    toy_data: Path,
    given: tuple[str, ...],
    key: str,
    value: str,
    expected: str,
    hint: str,
) -> None:
    problem = refused(weightless, toy_data, "masked", f"method={given[0]}", *given[1:])
    assert problem.where == key
    assert problem.given.startswith(value)
    assert expected in problem.expected
    assert hint in problem.hint


@pytest.mark.parametrize(
    ("model", "given", "reason"),
    [
        ("causal", ("method=bitfit",), "the layers have no biases"),
        ("gpt2", ("method=peft", OFT + "}"), "Target module Conv1D(nf=96, nx=32)"),
        ("gpt2", ("method=peft", "method.config={peft_type: LOHA}"), "Conv1D"),
    ],
)
def test_what_a_model_cannot_take(
    weightless: dict[str, Path], toy_data: Path, model: str, given: tuple[str, ...], reason: str
) -> None:
    problem = refused(weightless, toy_data, model, *given)
    assert problem.where == "method.name"
    assert f"in {model}: " in problem.given
    assert reason in problem.given


def test_all_unknown_options_are_reported(weightless: dict[str, Path], toy_data: Path) -> None:
    given = ("method=lora", "method.config={rr: 1, layers_pattern: h}", "prompt.layer=null")
    toy = toy_overrides(weightless, toy_data, "masked", *given)
    found = problems_of(lambda: prepare(configured(*toy)))
    assert [p.where for p in found] == ["method.config.rr", "method.config.layers_pattern"]
