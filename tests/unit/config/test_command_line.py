"""Names and values of the command line are checked together before Hydra composes them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lpt.config.command_line import check_overrides, config_groups, expand_all_keyword
from tests.support.configs import CONF
from tests.support.problems import problem_of

UNQUOTED = "task.template={text} It was {word} ."


@pytest.mark.parametrize(
    ("override", "where", "message"),
    [
        # unknown keys, with close matches
        ("modle=gpt2", "modle", "did you mean model?"),
        ("prompt.layr=3", "prompt.layr", "did you mean prompt.layer"),
        ("logger.wandb.projct=x", "logger.wandb.projct", "did you mean logger.wandb.project"),
        ("+zzz=1", "zzz", "no such key"),
        # unknown choices, with close matches
        ("model=roberta-larg", "model=roberta-larg", "did you mean roberta-large"),
        ("prompt=npg,mpg", "prompt=mpg", "did you mean mppg"),
        ("logger=[csv,wandbb]", "logger=wandbb", "did you mean wandb"),
        ("prompt@other=zzz", "prompt=zzz", "no such choice"),
        # a list would merge the choices into one
        ("model=[gpt2,roberta-base]", "model=['gpt2', 'roberta-base']", "several choices"),
        # wrong types
        ("prompt.layer=abc", "prompt.layer", "Integer"),
        ("prompt.layer=2,x", "prompt.layer", "Integer"),
        ("seed=null", "seed", "Optional"),
        ("task.labels=0", "task.labels", "list"),
        ("logger.wandb=true", "logger.wandb", "WandbConfig"),
        # keys of Hydra without an effect
        ("hydra.run.dir=x", "hydra.run.dir", "use run_dir=FOLDER"),
        ("hydra.sweep.dir=x", "hydra.sweep.dir", "use sweep.dir=FOLDER"),
        # not key=value, or badly quoted
        ("prompt.layer", "prompt.layer", "key=value"),
        (UNQUOTED, UNQUOTED, "quote"),
    ],
)
def test_refused(override: str, where: str, message: str) -> None:
    problem = problem_of(lambda: check_overrides([override], CONF))
    assert problem.where == where
    assert message in str(problem)


@pytest.mark.parametrize(
    "override",
    [
        *("prompt.layer=choice(1,2)", "seed=range(1,4)", "optim.lr=interval(1e-4,1e-2)"),
        *("prompt.layer=all", "model=glob(*bert*)", "seed=shuffle(1,2)", "prompt.layer=null"),
        "task.labels.0=a",
        *("logger=[csv,tensorboard]", "logger=null", "experiment=null", "~logger"),
        *("task.files.train=x.tsv", "++task.files.extra=x.tsv", "+task.aliases.text=[sentence]"),
        *("task.files={train: x.tsv}", "optim.lr=${prompt.lr}", "model.path=a/b-c.d"),
        *('task.template="{text} It was {word} ."', "task.template='{text}: {word}'"),
        # keys and groups of Hydra are left to Hydra
        *("hydra/sweeper=basic", "hydra.launcher.setup=[module load cuda]", "hydra.verbose=true"),
        *("+hydra.callbacks.x._target_=my.Callback", "hydra/launcher@hydra.other=pool"),
    ],
)
def test_accepted(override: str) -> None:
    check_overrides([override], CONF)


def test_groups_and_choices_of_another_folder_are_known(tmp_path: Path) -> None:
    for name in ("task/mine.yaml", "task/nested/other.yaml", "corpus/small.yaml", "hydra/x/y.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    known = ("task=mine", "task=nested/other", "task/nested=other", "+corpus=small", "task=sst2")
    check_overrides(known, CONF, tmp_path)
    groups = config_groups(CONF, tmp_path)
    assert groups["corpus"] == ["small"]
    assert {"mine", "nested/other", "sst2"} < set(groups["task"])
    assert not any(name.startswith("hydra") for name in groups)
    problem = problem_of(lambda: check_overrides(["task=mien"], CONF, tmp_path))
    assert "did you mean mine" in problem.hint


def test_all_layers_are_a_sweep_for_hydra() -> None:
    assert expand_all_keyword("prompt.layer=all") == "prompt.layer=choice(all)"
    assert expand_all_keyword("prompt.layer=2") == "prompt.layer=2"


def test_every_override_in_the_docs_is_accepted() -> None:
    texts = [file.read_text() for file in (CONF.parent / "docs").glob("*.md")]
    texts += [file.read_text() for file in (CONF / "hydra" / "launcher").glob("*.yaml")]
    overrides = re.findall(r"hydra[./][\w./]+=[\w.]+", " ".join(texts))
    assert len(set(overrides)) >= 7
    check_overrides(overrides, CONF)
