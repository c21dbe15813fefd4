"""Every file under conf/ and every field of the schema: composed, described, used."""

from __future__ import annotations

import ast
import copy
import dataclasses
import itertools
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from lpt.config.command_line import check_overrides, config_groups
from lpt.config.schema import Config, PromptConfig, register, to_config
from lpt.config.validation import validate
from lpt.models.generators import GENERATORS

ROOT = Path(__file__).parents[3]
CONF = ROOT / "conf"
GROUPS = config_groups(CONF)
CHOICES = [(group, choice) for group in sorted(GROUPS) for choice in GROUPS[group]]
FILES = [CONF / "train.yaml", *(CONF / group / f"{choice}.yaml" for group, choice in CHOICES)]
DELTAS = ("experiment", "debug")
# What a choice leaves to the user.
NEEDED = {
    "model=local": ["model.path=folder"],
    "task=custom": ["data.path=.", "task.labels=[a,b]", "task.label_words=[bad,good]"],
    "task=mpqa": ["data.path=."],
    "logger=wandb": ["logger.wandb.mode=offline"],
}
PROMISED = {
    "model": "roberta-base roberta-large bert-base deberta-v2-xlarge gpt2 gpt2-large smollm2-135m "
    "smollm2-135m-gguf llama-3.2-1b qwen3-0.6b local",
    "task": "cola sst2 mrpc stsb qqp mnli qnli rte wnli ax boolq cb copa multirc record wic wsc "
    "ax-b ax-g mr mpqa subj trec cr snli custom",
    "prompt": "npg mppg appg static",
    "data": "full kshot",
    "optim": "adamw",
    "trainer": "steps epochs",
    "strategy": "single ddp fsdp",
    "logger": "csv tensorboard wandb none",
    "experiment": "demo roberta_large_fewshot gpt2_large_full",
    "debug": "fast overfit limit",
    "sweep": "grid layers seeds generators prompt_length learning_rate paper_fewshot search",
}
TEXT, CAUSAL = "{text} . It was <mask> .", "{text} It was {word} ."
PAIR, PAIR_CAUSAL = "{s1} ? <mask> , {s2}", "{s1}{s2} They are {word} ."
# The reference has no causal template for mnli and qqp.
REFERENCE_TASKS: dict[str, tuple[str, str | None, list[str], list[str]]] = {
    "sst2": (TEXT, CAUSAL, ["0", "1"], ["terrible", "great"]),
    "mr": (TEXT, CAUSAL, ["0", "1"], ["terrible", "great"]),
    "mpqa": (TEXT, CAUSAL, ["0", "1"], ["terrible", "great"]),
    "subj": (TEXT, CAUSAL, ["0", "1"], ["subjective", "objective"]),
    "trec": (
        "<mask> : {text}",
        CAUSAL,
        ["0", "1", "2", "3", "4", "5"],
        ["Description", "Entity", "Expression", "Human", "Location", "Number"],
    ),
    "mrpc": (PAIR, PAIR_CAUSAL, ["0", "1"], ["No", "Yes"]),
    "qnli": (PAIR, PAIR_CAUSAL, ["entailment", "not_entailment"], ["Yes", "No"]),
    "rte": (PAIR, PAIR_CAUSAL, ["entailment", "not_entailment"], ["Yes", "No"]),
    "mnli": (
        "{premise} ? <mask> , {hypothesis}",
        None,
        ["contradiction", "entailment", "neutral"],
        ["No", "Yes", "Maybe"],
    ),
    "qqp": ("{q1} <mask> , {q2}", None, ["0", "1"], ["No", "Yes"]),
}


register()


@cache
def compose_choices(*choices: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=list(choices))


def configured(*overrides: str) -> Config:
    """The configuration of a command line: Hydra composes the choices, then the keys are set."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    choices = [override for override in parsed if override.key_or_group in GROUPS]
    config = copy.deepcopy(compose_choices(*(str(choice.input_line) for choice in choices)))
    for override in parsed:
        if override not in choices:
            OmegaConf.update(config, override.key_or_group, override.value())
    return to_config(config)


def values(path: Path) -> DictConfig:
    """What a file says, under the keys it is for."""
    text = path.read_text(encoding="utf-8")
    said = OmegaConf.create(text)
    assert isinstance(said, DictConfig)
    said.pop("defaults", None)
    whole = "# @package _global_" in text
    return said if whole else OmegaConf.create({path.parent.name: said})


def rows() -> list[list[str]]:
    """As few command lines as take every choice of every group once: composing takes its time."""
    groups = {group: GROUPS[group] for group in sorted(GROUPS) if group not in DELTAS}
    count = max(map(len, groups.values()))
    return [[f"{name}={c[i % len(c)]}" for name, c in groups.items()] for i in range(count)]


def deltas() -> list[list[str]]:
    """Each choice that changes several groups at once, by itself."""
    return [[f"{group}={choice}"] for group in DELTAS for choice in GROUPS[group]]


@pytest.mark.parametrize("group", PROMISED)
def test_promised_choices_are_there(group: str) -> None:
    assert set(PROMISED[group].split()) <= set(GROUPS[group])


@pytest.mark.parametrize("choices", [*rows(), *deltas()], ids=" ".join)
def test_every_choice_makes_a_valid_config_that_holds_its_values(choices: list[str]) -> None:
    config = configured(*choices, *(given for name in choices for given in NEEDED.get(name, ())))
    assert validate(config).found == []
    said = [values(CONF / f"{choice.replace('=', '/')}.yaml") for choice in choices]
    once_more = OmegaConf.merge(OmegaConf.structured(config), *said)
    assert OmegaConf.to_object(once_more) == config


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_file_begins_with_a_comment(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    said = next(line for line in lines if not line.startswith("# @package"))
    assert re.match(r"# \w.{9}", said)


def commands(path: Path) -> list[list[str]]:
    """Arguments of each `python train.py` command in the comments of a file."""
    comments = re.findall(r"^#(.*)", path.read_text(encoding="utf-8"), re.MULTILINE)
    text = "\n".join(comments).replace("\\\n", " ")
    return [shlex.split(command) for command in re.findall(r"^ *python train.py (.+)", text, re.M)]


@pytest.mark.parametrize("path", [p for p in FILES if commands(p)], ids=lambda path: path.stem)
def test_commands_in_comments_are_accepted(path: Path) -> None:
    for command in commands(path):
        if "[group=choice" not in command:
            check_overrides(command, CONF)


@pytest.mark.parametrize("name", GROUPS["experiment"])
def test_experiments_begin_with_the_command_that_runs_them(name: str) -> None:
    path = CONF / "experiment" / f"{name}.yaml"
    lines = path.read_text(encoding="utf-8").splitlines()
    first = next(line for line in lines if not line.startswith("# @package"))
    assert first.startswith("# python train.py ")
    assert f"experiment={name}" in commands(path)[0]
    one_job = [argument.split(",")[0] for argument in commands(path)[0] if argument != "-m"]
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
    assert (prompt.kind, prompt.layer, prompt.length, prompt.bottleneck) == ("npg", 13, 5, 128)
    assert (fewshot.data.max_length, fewshot.model.dropout) == (512, "all")
    assert (fewshot.trainer.max_steps, fewshot.trainer.eval_every_steps) == (1000, 100)
    assert (fewshot.data.batch_size, fewshot.optim.lr) == (32, 1e-3)
    full = configured("experiment=gpt2_large_full")
    assert (full.model.name, full.prompt.layer, full.data.protocol) == ("gpt2-large", 19, "full")
    assert (full.trainer.max_epochs, full.trainer.max_steps) == (10, None)
    assert (full.data.batch_size, full.trainer.accumulate_grad_batches) == (8, 4)
    assert (full.optim.lr, full.data.max_length) == (5e-4, 256)


def test_loggers_combine() -> None:
    several = configured("logger=[csv,tensorboard,wandb]").logger
    assert (several.csv, several.tensorboard, several.wandb.enabled) == (True, True, True)
    none = configured("logger=none").logger
    assert (none.csv, none.tensorboard, none.wandb.enabled) == (False, False, False)


def test_learning_rate_comes_with_the_prompt_unless_given() -> None:
    rates = {kind: configured(f"prompt={kind}").optim.lr for kind in ("npg", "static")}
    assert rates["static"] >= 10 * rates["npg"]
    assert configured("prompt=static", "optim.lr=0.5").optim.lr == 0.5


@pytest.mark.parametrize("task", REFERENCE_TASKS)
def test_reference_tasks_are_the_reference_ones(task: str) -> None:
    masked, causal, labels, words = REFERENCE_TASKS[task]
    config = OmegaConf.load(CONF / "task" / f"{task}.yaml")
    assert config.templates.get("masked") == masked
    assert causal is None or config.templates.get("causal") == causal
    assert list(config.labels) == labels
    assert list(config.label_words) == words


@cache
def schema_fields() -> dict[tuple[str, str], str]:
    """What stands under each (class, field) of the schema; for a group, in its class."""
    files = (ROOT / "lpt" / "config.py", ROOT / "lpt" / "data" / "config.py")
    bodies = (ast.parse(file.read_text(encoding="utf-8")).body for file in files)
    nodes = itertools.chain(*bodies)
    classes = {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}
    found = {}
    for name, node in classes.items():
        for statement, below in zip(node.body, [*node.body[1:], ast.Pass()], strict=True):
            if isinstance(statement, ast.AnnAssign):
                text = below.value if isinstance(below, ast.Expr) else None
                doc = text.value if isinstance(text, ast.Constant) else None
                group = classes.get(ast.unparse(statement.annotation))
                said = doc if isinstance(doc, str) else group and ast.get_docstring(group)
                found[name, ast.unparse(statement.target)] = said or ""
    return found


@cache
def reads() -> set[tuple[Any, str]]:
    """(object, attribute) of every `object.attribute` in lpt/, but for the schema's own file."""
    found = set()
    for path in (ROOT / "lpt").rglob("*.py"):
        if path.name != "config.py":
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute):
                    owner = node.value
                    name = getattr(owner, "id", None) or getattr(owner, "attr", "")
                    found.add((name, node.attr))
    return found


# What else the code calls such an object.
READ_AS = {"Config": ("base",), "ExtraSet": ("extra", "e")}


def test_the_schema_is_found() -> None:
    assert {("Config", field.name) for field in dataclasses.fields(Config)} <= set(schema_fields())
    assert len(schema_fields()) > 60


@pytest.mark.parametrize(("owner", "field"), schema_fields())
def test_every_field_is_described_and_read(owner: str, field: str) -> None:
    assert len(schema_fields()[owner, field]) > 4
    group = owner.removesuffix("Config").lower() or "config"
    interpolated = any(f"${{{group}.{field}}}" in path.read_text("utf-8") for path in FILES)
    names = {group, "config", *READ_AS.get(owner, ())}
    assert interpolated or {(name, field) for name in names} & reads()


@pytest.mark.parametrize("name", [n for n in GROUPS["task"] if n not in ("custom", "reviews")])
def test_tasks_are_short_and_say_where_templates_come_from(name: str) -> None:
    lines = (CONF / "task" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    [templates] = [line for line in lines if line.startswith("templates:")]
    assert re.match(r"templates: # .*(reference|\(\w.* \d{4}\)|as for|by analogy)", templates)
    assert sum(not line.startswith("#") for line in lines) <= 24


def test_kinds_of_prompt_are_those_that_can_be_built() -> None:
    [kind] = [f for f in dataclasses.fields(PromptConfig) if f.name == "kind"]
    assert set(kind.metadata["choices"]) == {*GENERATORS, "static"}
