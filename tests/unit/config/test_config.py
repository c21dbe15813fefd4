"""Every file under conf/ is composed, and holds in the configuration."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from lpt.config.command_line import check_overrides
from lpt.config.method_schema import READS_FINAL_STATE
from lpt.config.schema import PromptConfig
from lpt.config.validation import validate
from lpt.models.generators import GENERATORS, build_generator
from tests.support.configs import CONF, GROUPS, configured, resolved

CHOICES = [(group, choice) for group in sorted(GROUPS) for choice in GROUPS[group]]
FILES = [CONF / "train.yaml", *(CONF / group / f"{choice}.yaml" for group, choice in CHOICES)]
DELTAS = ("experiment", "debug")
# What a choice leaves to the user.
NEEDED = {
    "model=local": ["model.path=folder"],
    "task=custom": ["data.path=.", "task.labels=[a,b]", "task.label_words=[bad,good]"],
    "task=mpqa": ["data.path=."],
    "method=peft": ["method.config={peft_type: OFT}"],
    "logger=wandb": ["logger.wandb.mode=offline"],
}


def values(path: Path) -> DictConfig:
    """The values in a file, under the keys of their group."""
    text = path.read_text(encoding="utf-8")
    content = OmegaConf.create(text)
    assert isinstance(content, DictConfig)
    content.pop("defaults", None)
    whole = "# @package _global_" in text
    return content if whole else OmegaConf.create({path.parent.name: content})


def rows() -> list[list[str]]:
    """As few command lines as cover every choice of every group, because composing is slow."""
    groups = {group: GROUPS[group] for group in sorted(GROUPS) if group not in DELTAS}
    count = max(map(len, groups.values()))
    return [[f"{name}={c[i % len(c)]}" for name, c in groups.items()] for i in range(count)]


def deltas() -> list[list[str]]:
    """Each choice that changes several groups at once, by itself."""
    return [[f"{group}={choice}"] for group in DELTAS for choice in GROUPS[group]]


@pytest.mark.parametrize("choices", [*rows(), *deltas()], ids=" ".join)
def test_every_choice_makes_a_valid_config_that_holds_its_values(choices: list[str]) -> None:
    config = configured(*choices, *(given for name in choices for given in NEEDED.get(name, ())))
    assert validate(config).found == []
    files = [values(CONF / f"{choice.replace('=', '/')}.yaml") for choice in choices]
    assert OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(config), *files)) == config


def commands(path: Path) -> list[list[str]]:
    """Arguments of each `python train.py` command in the comments of a file."""
    comments = re.findall(r"^#(.*)", path.read_text(encoding="utf-8"), re.MULTILINE)
    text = "\n".join(comments).replace("\\\n", " ")
    return [shlex.split(command) for command in re.findall(r"^ *python train.py (.+)", text, re.M)]


def test_commands_in_comments_are_accepted() -> None:
    for command in (command for path in FILES for command in commands(path)):
        if "[group=choice" not in command:
            check_overrides([word for word in command if word != "-m"], CONF)


@pytest.mark.parametrize("name", GROUPS["experiment"])
def test_experiments_name_the_command_that_runs_them(name: str) -> None:
    command = commands(CONF / "experiment" / f"{name}.yaml")[0]
    assert f"experiment={name}" in command
    one_job = [argument.split(",")[0] for argument in command if argument != "-m"]
    assert validate(configured(*one_job)).found == []


@pytest.mark.parametrize("debug", GROUPS["debug"])
@pytest.mark.parametrize("length", ["trainer=epochs", "experiment=roberta_large_fewshot"])
def test_debugging_fits_any_length(debug: str, length: str) -> None:
    config = configured(length, f"debug={debug}")
    assert validate(config).found == []
    assert config.trainer.max_steps is not None
    assert config.trainer.max_steps <= 100


def test_paper_settings_are_the_papers() -> None:
    fewshot = configured("experiment=roberta_large_fewshot")
    assert (fewshot.model.name, fewshot.data.protocol) == ("roberta-large", "kshot")
    prompt = fewshot.prompt
    assert (prompt.kind, prompt.length, prompt.bottleneck) == ("npg", 5, 128)
    assert (fewshot.data.max_length, fewshot.model.dropout) == (512, "all")
    trainer = resolved("experiment=roberta_large_fewshot").trainer
    assert (trainer.max_steps, trainer.eval_every_steps) == (1000, 100)
    assert fewshot.data.batch_size == 32
    full = configured("experiment=gpt2_large_full")
    assert (full.model.name, full.data.protocol) == ("gpt2-large", "full")
    assert (full.trainer.max_epochs, full.trainer.max_steps) == (10, None)
    assert (full.data.batch_size, full.trainer.accumulate_grad_batches) == (8, 4)
    assert full.data.max_length == 256


@pytest.mark.parametrize("experiment", GROUPS["experiment"])
@pytest.mark.parametrize("prompt", GROUPS["prompt"])
def test_in_every_experiment_a_prompt_has_its_own_rate_and_layer(
    experiment: str, prompt: str
) -> None:
    config = configured(f"experiment={experiment}", f"prompt={prompt}")
    assert config.optim.lr == configured(f"prompt={prompt}").optim.lr
    assert config.prompt.layer == (1 if prompt == "idpg" else None)


def test_learning_rate_comes_with_the_prompt_unless_given() -> None:
    rates = {kind: configured(f"prompt={kind}").optim.lr for kind in ("npg", "static")}
    assert rates["static"] >= 10 * rates["npg"]
    assert configured("prompt=static", "optim.lr=0.5").optim.lr == 0.5


def test_kinds_of_prompt_are_those_that_can_be_built() -> None:
    [kind] = [f for f in dataclasses.fields(PromptConfig) if f.name == "kind"]
    assert set(kind.metadata["choices"]) == {*GENERATORS, "static"}
    for name in GENERATORS:
        args = configured(f"prompt={name}").prompt.args
        generator = build_generator(name, hidden_size=16, length=1, bottleneck=16, args=args)
        assert generator.reads_final_state == (name in READS_FINAL_STATE)
