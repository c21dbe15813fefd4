"""What a run needs besides weights is checked at once, before weights are loaded."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, BertConfig, BertModel, T5Config

from lpt.config.schema import Config
from lpt.models.backbone import checkpoint_source, find_backbone, load_model
from lpt.models.families import FAMILIES
from lpt.training.plan import prepare
from tests.support.configs import configured
from tests.support.problems import problem_of, problems_of
from tests.support.tiny import SIZES, save_tiny
from tests.support.tokenizers import wordpiece


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT of 4 layers and 96 positions, without weights: none are needed to check."""
    folder = tmp_path_factory.mktemp("bert")
    tokenizer = wordpiece()
    tokenizer.save_pretrained(folder)
    BertConfig(**SIZES["bert"], vocab_size=len(tokenizer)).save_pretrained(folder)
    return folder


def local(folder: Path, *overrides: str) -> Config:
    path = [f"model.path={folder}", "data.max_length=64"]
    return configured("model=local", *path, *overrides)


def refused(config: Config) -> dict[str, str]:
    """The message for each key."""
    found = problems_of(lambda: prepare(config))
    assert len({problem.where for problem in found}) == len(found)
    return {problem.where: str(problem) for problem in found}


def test_plan_of_a_valid_run(bert: Path) -> None:
    plan = prepare(local(bert))
    vocabulary = plan.backbone.tokenizer.get_vocab()
    assert plan.word_ids == [vocabulary["terrible"], vocabulary["great"]]
    assert plan.config.prompt.layer == 3
    assert plan.task.template.kind == "masked"
    assert all(len(part) > 0 for part in plan.splits.sets.values())
    assert prepare(local(bert, "prompt.layer=4")).config.prompt.layer == 4


def test_arguments_of_a_generator_are_checked_before_weights_are_loaded(bert: Path) -> None:
    assert prepare(local(bert, "prompt=idpg")).config.prompt.layer == 1
    said = refused(local(bert, "prompt=idpg", "prompt.args.m=16"))
    assert set(said) == {"prompt.args.m"}


def test_the_model_has_a_name_from_python_too(bert: Path) -> None:
    config = local(bert)
    for given, name in (("", bert.name), ("mine", "mine")):
        config.model.name = given
        assert prepare(config).config.model.name == name


def test_problems_of_template_words_and_sizes_come_together(bert: Path) -> None:
    faults = [
        'task.template="{text} It was ."',
        "task.label_words=[terrible,wonderful]",
        "prompt.layer=5",
        "data.max_length=97",
        "optim.lr=0",
    ]
    said = refused(local(bert, *faults))
    assert set(said) == {text.partition("=")[0] for text in faults}
    assert "<mask> 0 times" in said["task.template"]
    assert "'wonderful' is 'w' + '##o'" in said["task.label_words"]
    assert "1 to 4" in said["prompt.layer"]
    assert "1 to 96" in said["data.max_length"]


def test_tokens_that_the_embedding_lacks_may_not_occur(
    bert: Path, tmp_path: Path, toy_data: Path
) -> None:
    """A tokenizer with more tokens than the model is fine as long as the others occur nowhere."""
    shutil.copytree(bert, tmp_path / "larger")
    tokenizer = wordpiece()
    size = len(tokenizer)
    tokenizer.add_tokens(["tedious", "zzz", "superb"])
    tokenizer.save_pretrained(tmp_path / "larger")
    data = tmp_path / "data"
    shutil.copytree(toy_data, data)
    words = ("task.labels=['0','1']", "task.label_words=[terrible,great]")
    given = (*words, f"data.path={data}", "+task.extra={more:{file:more.tsv}}")
    assert prepare(local(tmp_path / "larger", *given)).word_ids
    for split, lines in (("train", "1\tit was zzz\n"), ("test", "0\ttedious\n1\ta tedious day\n")):
        with (data / f"{split}.tsv").open("a") as file:
            file.write(lines)
    (data / "more.tsv").write_text("1\tgood\n0\tnot zzz\n")
    found = problems_of(lambda: prepare(local(tmp_path / "larger", *given)))
    assert [(problem.where, problem.given) for problem in found] == [
        (
            "model.path",
            f"the token 'zzz', in 1 train texts (the first: row 80), has the id {size + 1}",
        ),
        (
            "model.path",
            f"the token 'tedious', in 2 test texts (the first: row 24), has the id {size}",
        ),
        (
            "model.path",
            f"the token 'zzz', in 1 more texts (the first: row 1), has the id {size + 1}",
        ),
    ]
    assert f"ids below {size}" in found[0].expected
    shutil.rmtree(data)
    shutil.copytree(toy_data, data)
    other = (*given[:1], "task.label_words=[terrible,superb]", given[2])
    problem = problem_of(lambda: prepare(local(tmp_path / "larger", *other)))
    assert problem.where == "task.label_words"
    assert problem.given == f"the token 'superb', a label word, has the id {size + 2}"


def test_a_padding_token_that_the_embedding_lacks(bert: Path, tmp_path: Path) -> None:
    shutil.copytree(bert, tmp_path / "padded")
    tokenizer = wordpiece()
    tokenizer.add_special_tokens({"pad_token": "<new pad>"})
    tokenizer.save_pretrained(tmp_path / "padded")
    problem = problem_of(lambda: prepare(local(tmp_path / "padded")))
    assert "the token '<new pad>', the padding" in problem.given


def test_problems_of_files_and_lengths_come_together(bert: Path, tmp_path: Path) -> None:
    for split in ("dev", "test"):
        (tmp_path / f"{split}.tsv").write_text("negative\tbad\npositive\tgood\n")
    faults = [f"data.path={tmp_path}", "data.max_length=6", "prompt.layer=5", "strategy.devices=2"]
    said = refused(local(bert, *faults))
    assert set(said) == {text.partition("=")[0] for text in faults}
    assert "no train split" in said["data.path"]
    assert "template alone takes 6" in said["data.max_length"]


@pytest.mark.parametrize(
    ("overrides", "key", "said"),
    [
        (["data=kshot", "data.k=100000"], "data.k", "100000 training examples of"),
        (["task.template='It was <mask>'"], "task.template", "uses no column"),
        (["model.layers=12"], "model.layers", "4, the depth"),
        (["cache.layers=[3,5]"], "cache.layers", "2 to 4"),
    ],
)
def test_problem_that_needs_the_model_or_the_data(
    bert: Path, overrides: list[str], key: str, said: str
) -> None:
    problems = refused(local(bert, *overrides))
    assert list(problems) == [key]
    assert said in problems[key]


def test_flash_attention_is_for_masked_models(bert: Path, checkpoints: dict[str, Path]) -> None:
    """The label parts of a row need a mask that it does not support."""
    flash = "model.attention=flash_attention_2"
    problems = refused(local(checkpoints["causal"], flash))
    assert list(problems) == ["model.attention"]
    assert "sdpa or eager" in problems["model.attention"]
    assert prepare(local(checkpoints["causal"], "model.attention=eager"))
    assert prepare(local(bert, flash))


def test_unsupported_family_is_named_with_the_supported_ones(tmp_path: Path) -> None:
    T5Config().save_pretrained(tmp_path)
    said = refused(local(tmp_path))["model.path"]
    assert "'t5'" in said
    assert all(family in said for family in FAMILIES)


def test_folder_without_a_model(tmp_path: Path) -> None:
    said = refused(local(tmp_path, "data.path=no/such/folder"))
    assert set(said) == {"model.path", "data.path"}
    assert "a folder that transformers can load" in said["model.path"]


def test_model_without_its_language_model_head_is_refused(bert: Path, tmp_path: Path) -> None:
    shutil.copytree(bert, tmp_path, dirs_exist_ok=True)
    BertModel(BertConfig.from_pretrained(bert)).save_pretrained(tmp_path)
    backbone = find_backbone(**checkpoint_source(local(tmp_path).model))
    problem = problem_of(lambda: load_model(backbone, dtype=torch.float32))
    assert problem.where == "model.path"
    assert "language-model head" in str(problem)
    assert "cls.predictions" in problem.given


@pytest.mark.parametrize("model_type", ["bert", "gpt2", "opt", "llama"])
def test_weights_of_more_layers_than_the_config_has_are_refused(
    model_type: str, tmp_path: Path
) -> None:
    save_tiny(tmp_path, model_type, wordpiece())
    config = AutoConfig.from_pretrained(tmp_path)
    config.num_hidden_layers = 2
    config.layer_types = None
    config.save_pretrained(tmp_path)
    backbone = find_backbone(**checkpoint_source(local(tmp_path).model))
    problem = problem_of(lambda: load_model(backbone, dtype=torch.float32))
    assert problem.where == "model.path"
    assert "4 layers, but num_hidden_layers is 2" in problem.given


def test_weights_that_no_language_model_has_may_be_left_out(tmp_path: Path) -> None:
    save_tiny(tmp_path, "bert", wordpiece())
    weights = load_file(tmp_path / "model.safetensors")
    for name in ("bert.pooler.dense", "cls.seq_relationship", "encoder.layer_norms.9"):
        weights[f"{name}.weight"] = torch.zeros(2, 2)
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    backbone = find_backbone(**checkpoint_source(local(tmp_path).model))
    assert load_model(backbone, dtype=torch.float32).config.num_hidden_layers == 4


def test_a_revision_is_one_of_the_hub(bert: Path) -> None:
    problems = refused(local(bert, "model.revision=v1.0"))
    assert list(problems) == ["model.revision"]
    assert "v1.0" in problems["model.revision"]
    assert "local folder" in problems["model.revision"]
    of_package = {"name": "x", "path": None, "package": "tests", "gguf_file": None}
    problem = problem_of(lambda: find_backbone(**of_package, revision="main"))
    assert problem.where == "model.revision"
