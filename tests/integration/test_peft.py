"""LATE_PROMPT through PEFT and transformers: training, resuming, saving, several adapters."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel, get_peft_model
from transformers import Trainer, TrainingArguments

from lpt.peft import LatePromptConfig
from tests.support.tiny import tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated")
families = pytest.mark.parametrize("family", ["roberta", "gpt2", "opt", "llama"])
IDS = torch.arange(5, 41).reshape(3, 12)


def prompted(family: str) -> PeftModel:
    torch.manual_seed(4)
    prompt = LatePromptConfig(kind="mppg", layers=[2, 4], length=3, bottleneck=16)
    return get_peft_model(tiny_model(family), prompt)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def rows(family: str) -> list[dict[str, torch.Tensor]]:
    """Two texts, each with one target: at a mask, or the last token."""
    labels = torch.full((2, 12), -100)
    labels[:, -1] = torch.tensor([7, 8])
    ids = IDS[:2].clone()
    ids[:, -1] = 4 if family == "roberta" else torch.tensor([7, 8])
    mask = torch.ones(12, dtype=torch.long)
    return [
        {"input_ids": text, "attention_mask": mask, "labels": target}
        for text, target in zip(ids, labels, strict=True)
    ]


def trainer(model: PeftModel, family: str, folder: Path) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=8,
        save_steps=4,
        per_device_train_batch_size=2,
        learning_rate=0.03,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    return Trainer(model=model, args=arguments, train_dataset=rows(family))


@families
def test_trainer_trains_the_prompt_and_resumes_exactly(family: str, tmp_path: Path) -> None:
    """With dropout, from its own checkpoints, which hold the adapter only."""
    plain, model = tiny_model(family), prompted(family)
    straight = trainer(model, family, tmp_path)
    straight.train()
    losses = [entry["loss"] for entry in straight.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]
    for name, parameter in model.get_base_model().named_parameters():
        assert "late_prompt" in name or torch.equal(
            parameter, plain.get_parameter(name.replace("base_layer.", ""))
        )
    resumed = prompted(family)
    checkpoint = tmp_path / "checkpoint-4"
    assert not (checkpoint / "model.safetensors").exists()
    trainer(resumed, family, tmp_path / "resumed").train(resume_from_checkpoint=str(checkpoint))
    assert torch.equal(logits(resumed.eval()), logits(model.eval()))


@families
def test_what_is_saved_comes_back(family: str, tmp_path: Path) -> None:
    model = prompted(family).eval()
    model.save_pretrained(tmp_path)
    expected = logits(model)
    for options in ({"adapter_name": "mine"}, {"low_cpu_mem_usage": True}, {"is_trainable": True}):
        back = PeftModel.from_pretrained(tiny_model(family), str(tmp_path), **options).eval()
        assert torch.equal(logits(back), expected)
        trains = any(parameter.requires_grad for parameter in back.parameters())
        assert trains == ("is_trainable" in options)
    assert torch.equal(logits(copy.deepcopy(back)), expected)


def test_the_base_model_is_loaded_with_the_adapter(tmp_path: Path) -> None:
    base = tiny_model("llama")
    base.save_pretrained(tmp_path / "base")
    base.name_or_path = str(tmp_path / "base")
    prompt = LatePromptConfig(layer=3, length=3, bottleneck=16, task_type="CAUSAL_LM")
    model = get_peft_model(base, prompt).eval()
    model.save_pretrained(tmp_path / "adapter")
    back = AutoPeftModelForCausalLM.from_pretrained(str(tmp_path / "adapter"))
    assert torch.equal(logits(back), logits(model))


@families
def test_several_adapters_in_one_model(family: str, tmp_path: Path) -> None:
    """Of different kinds, layers and lengths; unloaded, the model is as it was."""
    model, plain = prompted(family).eval(), logits(tiny_model(family))
    first = logits(model)
    model.add_adapter("b", LatePromptConfig(kind="static", layer=1, length=2))
    assert torch.equal(logits(model), first)
    model.set_adapter("b")
    second = logits(model)
    assert not torch.equal(second, first)
    model.save_pretrained(tmp_path)
    model.set_adapter("default")
    assert torch.equal(logits(model), first)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained
    assert all(".default." in name for name in trained)
    model.load_adapter(str(tmp_path / "b"), "c")
    model.delete_adapter("b")
    model.set_adapter("c")
    assert torch.equal(logits(model), second)
    with model.disable_adapter():
        assert torch.equal(logits(model), plain)
    base = model.unload()
    assert torch.equal(logits(base), plain)
    names = [name for name, _ in tiny_model(family).named_modules()]
    assert [name for name, _ in base.named_modules()] == names


def test_dropout_is_that_of_the_active_adapter() -> None:
    model = get_peft_model(tiny_model("roberta"), LatePromptConfig(layer=3, dropout=0.0))
    model.add_adapter("still", LatePromptConfig(layer=2, dropout=0.0, frozen_dropout="none"))
    for mode, name, same in (
        (False, "default", True),
        (True, "default", False),
        (True, "still", True),
        (True, "default", False),
        (False, "default", True),
    ):
        model.train(mode)
        model.set_adapter(name)
        assert torch.equal(logits(model), logits(model)) == same
