"""The command line is checked as a whole before Hydra sees it."""

from __future__ import annotations

import re

import pytest
from omegaconf import OmegaConf

from lpt.config.command_line import check_overrides, schema_keys
from lpt.config.schema import Config
from lpt.errors import ConfigError
from tests.unit.config.test_config import CONF, compose_choices

CLASS = "hydra.launcher._target_=os.system"
LOGGING = "hydra.job_logging.handlers.x.class"
CALLBACK = "+hydra.callbacks={x:{_target_:os.system}}"
UNQUOTED = "task.template={text} It was {word} ."


@pytest.mark.parametrize(
    ("argument", "where", "said"),
    [
        # unknown keys, with near names
        ("modle=gpt2", "modle", "did you mean model?"),
        ("prompt.layr=3", "prompt.layr", "did you mean prompt.layer"),
        ("data.protocl=full", "data.protocl", "did you mean data.protocol"),
        ("logger.wandb.projct=x", "logger.wandb.projct", "did you mean logger.wandb.project"),
        ("task.labels.0=a", "task.labels.0", "did you mean task.labels"),
        ("zzz=1", "zzz", "no such key"),
        ("+zzz=1", "zzz", "no such key"),
        ("++prompt.zzz=1", "prompt.zzz", "no such key"),
        ("~zzz", "zzz", "no such key"),
        # unknown choices, with near names
        ("model=roberta-larg", "model=roberta-larg", "did you mean roberta-large"),
        ("task=sst", "task=sst", "did you mean sst2"),
        ("prompt=ngp", "prompt=ngp", "did you mean npg"),
        ("prompt=npg,mpg -m", "prompt=mpg", "did you mean mppg"),
        ("logger=[csv,wandbb]", "logger=wandbb", "did you mean wandb"),
        ("experiment=zzz", "experiment=zzz", "demo"),
        ("logger=null", "logger=None", "no such choice"),
        ("experiment=null", "experiment=None", "no such choice"),
        ("model=[gpt2,roberta-base]", "model=['gpt2', 'roberta-base']", "one of"),
        ("~logger", "~logger", "logger="),
        ("+experiment=demo", "+experiment=demo", "experiment="),
        # wrong types
        ("prompt.layer=abc", "prompt.layer", "int"),
        ("prompt.layer=2,x -m", "prompt.layer", "int"),
        ("prompt.layer=choice(2,x) -m", "prompt.layer", "int"),
        ("seed=1.5", "seed", "int"),
        ("seed=null", "seed", "int"),
        ("optim.lr=fast", "optim.lr", "float"),
        ("overwrite=maybe", "overwrite", "bool"),
        ("task.labels=0", "task.labels", "list"),
        ("logger.wandb=true", "logger.wandb", "WandbConfig"),
        # nothing is made of what a command line names
        (CLASS, CLASS, "names a class"),
        (CALLBACK, CALLBACK, "names a class"),
        ("+optim._target_=os.system", "+optim._target_=os.system", "names a class"),
        ("hydra.launcher={_target_: os.system}", "hydra.launcher={_target_: os.system}", "class"),
        ("hydra.launcher.name={_target_: x}", "hydra.launcher.name={_target_: x}", "class"),
        ("++hydra.launcher._target_=x", "++hydra.launcher._target_=x", "class"),
        ("~hydra.launcher._target_", "~hydra.launcher._target_", "class"),
        # of Hydra's own settings, only those that are documented
        ("hydra.launcher={n_jobs: 4}", "hydra.launcher", "not for the command line"),
        ("hydra.job_logging.handlers.x.class=os.system", LOGGING, "not for the command line"),
        ("hydra.searchpath=[pkg://os]", "hydra.searchpath", "hydra/launcher, hydra.launcher.KEY"),
        ("+hydra.callbacks.x.y=z", "hydra.callbacks.x.y", "not for the command line"),
        ("hydra.job.env_set.LD_PRELOAD=x.so", "hydra.job.env_set.LD_PRELOAD", "not for"),
        ("hydra.launcher.setup=[reboot]", "hydra.launcher.setup", "not for the command line"),
        ("hydra.launcher.submitit_folder=x", "hydra.launcher.submitit_folder", "not for"),
        ("hydra.launcher.partion=x", "hydra.launcher.partion", "hydra.launcher.partition"),
        ("hydra={mode: RUN}", "hydra", "not for the command line"),
        ("hydra/job_logging=default", "hydra/job_logging", "not for the command line"),
        ("+hydra/callbacks=x", "hydra/callbacks", "not for the command line"),
        ("hydra/launcher=submitit_slurm", "hydra/launcher=submitit_slurm", "slurm, slurm_here"),
        ("hydra/launcher=[pool,slurm]", "hydra/launcher=['pool', 'slurm']", "no such choice"),
        ("hydra/launcher=pool,basic -m", "hydra/launcher", "hydra/launcher=VALUE"),
        ("hydra/launcher@hydra.callbacks=pool", "hydra/launcher", "hydra/launcher=VALUE"),
        ("~hydra/launcher", "hydra/launcher", "hydra/launcher=VALUE"),
        ("hydra/sweeper=basic", "hydra/sweeper=basic", "lpt"),
        ("hydra.mode=SOME", "hydra.mode", "RUN, MULTIRUN"),
        ("hydra.verbose={a: b}", "hydra.verbose", "line of text"),
        ("hydra.output_subdir=x", "hydra.output_subdir", "null"),
        ("hydra.launcher.partition=[x]", "hydra.launcher.partition", "line of text"),
        ("hydra.launcher.partition='x\nreboot'", "hydra.launcher.partition", "line of text"),
        ("hydra.launcher.name=${task.files}", "hydra.launcher.name", "line of text"),
        ("hydra.launcher.n_jobs=1,2 -m", "hydra.launcher.n_jobs", "hydra.launcher.n_jobs=VALUE"),
        ("task@hydra.callbacks=sst2", "task", "leave out what is behind @"),
        ("optim.lr@hydra=1", "optim.lr", "leave out what is behind @"),
        # flags by which other files would be read
        ("--experimental-rerun=config.pickle", "--experimental-rerun", "a pickle"),
        ("--experimental-re=config.pickle", "--experimental-re", "no such flag"),
        ("--config-dir=x", "--config-dir", "conf/"),
        ("-cp=x", "-cp", "conf/"),
        ("-cdx", "-cdx", "no such flag"),
        ("--config-name=mine", "--config-name", "train, sweep"),
        ("--mutlirun", "--mutlirun", "--multirun"),
        # not key=value, or badly quoted
        ("prompt.layer", "prompt.layer", "key=value"),
        ("task.label_words=[good,bad", "task.label_words=[good,bad", "quote"),
        (UNQUOTED, UNQUOTED, "quote"),
    ],
)
def test_refused(argument: str, where: str, said: str) -> None:
    arguments = [argument.removesuffix(" -m"), *(["-m"] if argument.endswith(" -m") else [])]
    with pytest.raises(ConfigError) as caught:
        check_overrides(arguments, CONF)
    [problem] = caught.value.problems
    assert problem.where == where
    assert said in str(problem)


@pytest.mark.parametrize(
    "arguments",
    [
        ["prompt.layer=1,2", "-m"],
        ["prompt.layer=choice(1,2)", "--multirun"],
        ["seed=range(1,4)", "-m"],
        ["optim.lr=interval(1e-4,1e-2)", "-m"],
        ["model=gpt2,roberta-base", "prompt=choice(npg,static)", "-m"],
        ["model=glob(*bert*)", "seed=shuffle(1,2)", "-m"],
        ["logger=[csv,tensorboard]"],
        ["hydra.verbose=true", "hydra/launcher=basic", "--cfg", "job"],
        ["hydra/launcher=slurm", "hydra.launcher.partition=gpu", "-m", "-cn", "sweep"],
        ["hydra/launcher=ray_gpu", "+hydra.launcher.ray.init.address=auto", "--info", "-r"],
        ["hydra.mode=MULTIRUN", "hydra.verbose=[lpt,hydra]", "--package=x", "hydra/sweeper=lpt"],
        # what Lightning gives to further ranks
        ['hydra.run.dir="."', "hydra.job.name=train_ddp_process_1", "hydra.output_subdir=null"],
        ["task.files.train=x.tsv", "task.templates.masked='{text} <mask>'"],
        ["++task.files.extra=x.tsv", "+task.aliases.text=[sentence]"],
        ["task.files={train: x.tsv}", "task.header=[label,text]", "task.labels=[0,1]"],
        ["prompt.layer=null", "optim.lr=1", "optim.lr=${prompt.lr}", "model.path=a/b-c.d"],
        ['task.template="{text} It was {word} ."', "task.template='{text}: {word}'"],
    ],
)
def test_accepted(arguments: list[str]) -> None:
    check_overrides(arguments, CONF)


def test_all_problems_in_one_message() -> None:
    arguments = [
        "modle=x",
        "prompt.layr=3",
        "model=nope",
        "seed=abc",
        "task.label_words=[a",
        "seed=2",
    ]
    with pytest.raises(ConfigError, match="5 problems") as caught:
        check_overrides(arguments, CONF)
    expected = ["modle", "prompt.layr", "model=nope", "seed", "task.label_words=[a"]
    assert [problem.where for problem in caught.value.problems] == expected
    assert all(where in str(caught.value) for where in expected)


def test_flags_in_place_of_a_value_are_seen() -> None:
    arguments = ["--info", "--experimental-rerun", "x.pickle", "modle=x", "hydra.searchpath=[x]"]
    with pytest.raises(ConfigError) as caught:
        check_overrides(arguments, CONF)
    wheres = [problem.where for problem in caught.value.problems]
    assert wheres == ["--experimental-rerun", "x.pickle", "modle", "hydra.searchpath"]


def test_what_the_documentation_tells_to_type_is_accepted() -> None:
    texts = [file.read_text() for file in (CONF.parent / "docs").glob("*.md")]
    texts += [file.read_text() for file in (CONF / "hydra" / "launcher").glob("*.yaml")]
    said = re.findall(r"hydra[./][\w./]+=[\w.]+", " ".join(texts))
    assert len(set(said)) >= 7
    check_overrides(said, CONF)


def test_every_value_of_the_default_config_is_accepted() -> None:
    config = compose_choices()
    keys = [key for key, kind in schema_keys(Config).items() if kind in (int, float, bool, str)]
    assert len(keys) > 30
    check_overrides([f"{key}={OmegaConf.select(config, key)}" for key in keys], CONF)


def test_files_of_any_task_can_be_named() -> None:
    needed = ("task.labels=[a,b]", "task.label_words=[bad,good]", "model.path=null")
    choice = compose_choices("task=custom", *needed, "task.files.train=x.tsv")
    assert choice.task.files.train == "x.tsv"
