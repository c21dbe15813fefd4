"""Wrong configurations: each names its key, and all of them are reported together."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertModel, T5Config

from lpt.config.schema import Config
from lpt.config.validation import validate
from lpt.errors import ConfigError
from lpt.models.backbone import checkpoint_source, find_backbone, load_model
from lpt.models.families import FAMILIES
from lpt.training.plan import check_machine, prepare
from tests.support.tiny import SIZES
from tests.support.tokenizers import wordpiece
from tests.unit.config.test_config import configured

NO_STEPS = "trainer.max_steps=null"
EPOCHS = "trainer.eval_every_epochs=1"


def limited(node: Any = Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A value outside the limits of each limited field of the schema."""
    outside = {"choices": "zzz", "ge": -1, "gt": 0, "le": 1, "lt": 0}
    for field in dataclasses.fields(node):
        if dataclasses.is_dataclass(field.default_factory):
            yield from limited(field.default_factory, f"{prefix}{field.name}.")
        for name, limit in field.metadata.items():
            value = "zzz" if name == "choices" else limit + outside[name]
            yield f"{prefix}{field.name}", value


def wheres(config: Config) -> set[str]:
    return {problem.where for problem in validate(config).found}


@pytest.mark.parametrize(("key", "value"), limited())
def test_every_choice_and_range_is_checked(key: str, value: Any) -> None:
    problems = validate(configured(f"{key}={value}")).found
    assert any(p.where == key and p.given == repr(value) and p.allowed for p in problems)


def test_every_number_has_a_range() -> None:
    def numbers(node: Any) -> Iterator[tuple[str, bool]]:
        for field in dataclasses.fields(node):
            if dataclasses.is_dataclass(field.default_factory):
                yield from numbers(field.default_factory)
            elif str(field.type).split(" ")[0] in ("int", "float"):
                yield field.name, bool({"ge", "gt"} & set(field.metadata))

    found = dict(numbers(Config))
    assert len(found) > 25
    assert [name for name, has_range in found.items() if not has_range] == []


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        ("model=roberta-base model.path=null", "model.path"),
        ("model=smollm2-135m-gguf model.path=folder", "model.path"),
        ("prompt.layer=0", "prompt.layer"),
        ("prompt.layer=31", "prompt.layer"),
        ("prompt=static prompt.layer=31", "prompt.layer"),
        ("prompt.layer=1", "prompt.layer"),
        ("prompt=static prompt.bottleneck=64", "prompt.bottleneck"),
        ("prompt=mppg prompt.bottleneck=null", "prompt.bottleneck"),
        ("prompt=appg prompt.init=normal", "prompt.init"),
        ("prompt.length=0", "prompt.length"),
        ("prompt.dropout=1.0", "prompt.dropout"),
        ("prompt.kind=ngp", "prompt.kind"),
        ("model.dtype=int8", "model.dtype"),
        ("loss=label_word", "loss"),
        ("optim.lr=0", "optim.lr"),
        ("optim.warmup_ratio=1.5", "optim.warmup_ratio"),
        ("optim.schedule=cosine", "optim.schedule"),
        ("seed=-1", "seed"),
        ("data.protocol=kshot", "data.k"),
        ("data=kshot data.k=1", "data.k"),
        ("data=kshot task=trec data.k=5", "data.k"),
        ("data=full data.k=100", "data.k"),
        ("data.path=no/such/folder", "data.path"),
        ("task=mpqa", "data.path"),
        ("task.label_words=[great]", "task.label_words"),
        ("task.label_words=[bad,good,great]", "task.label_words"),
        ("task.labels=[a,a]", "task.labels"),
        ("task.labels=[a] task.label_words=[great]", "task.labels"),
        ("task.metric=accurcy", "task.metric"),
        ("task.metrics=[accuracy,zzz]", "task.metrics"),
        ("task.test_metrics=[zzz]", "task.test_metrics"),
        ("task=mnli task.extra.ax.metrics=[zzz]", "task.extra.ax.metrics"),
        ("task=mnli task.extra.ax.metrics=[pearson]", "task.extra.ax.metrics"),
        ("task=mnli task.metric=f1", "task.metric"),
        ("task=trec task.metrics=[f1]", "task.metrics"),
        ("task=trec task.test_metrics=[accuracy,f1a]", "task.test_metrics"),
        ("task.metric=pearson", "task.metric"),
        ("task.metrics=[exact_match,record_f1]", "task.metrics"),
        ("task=stsb task.metrics=[accuracy,spearman]", "task.metrics"),
        ("task=stsb task.metric=matthews_correlation", "task.metric"),
        ("task=multirc task.metric=record_em", "task.metric"),
        ("task=multirc task.row_expansion=null", "task.metric task.metrics"),
        ("task=copa task.metric=f1a", "task.metric"),
        ("task=copa task.metrics=[record_f1]", "task.metrics"),
        ("task=copa task.metrics=[f1,macro_f1]", "task.metrics"),
        ("task=copa task.row_expansion=null", "task.task_type"),
        ("task=copa task.row_expansion=wsc", "task.task_type"),
        ("task=multirc task.task_type=multiple_choice", "task.task_type task.metric task.metrics"),
        ("task=copa task.row_expansion=copy", "task.row_expansion task.task_type"),
        ("task=copa task.labels=[0,1,2] task.label_words=[a,b,c]", "task.labels"),
        ("task=stsb task.labels=[0,2.5,5] task.label_words=[No,Maybe,Yes]", "task.labels"),
        ("task=stsb task.labels=[5,0]", "task.labels"),
        ("task=stsb task.labels=[1,1.0]", "task.labels"),
        ("task=stsb task.labels=[low,high]", "task.labels"),
        ("task=stsb task.labels=[0,inf]", "task.labels"),
        ("task=stsb loss=vocabulary", "loss"),
        ("data.path=. data.root=.", "data.root"),
        ("data.root=no/such/folder", "data.root"),
        ("data.path=no/such/folder data.root=nor/this", "data.path data.root"),
        ("data.test=train", "data.test"),
        ("trainer.max_epochs=3", "trainer.max_steps"),
        (NO_STEPS, "trainer.max_steps"),
        (f"trainer.eval_every_steps=null {EPOCHS}", "trainer.eval_every_epochs"),
        ("trainer.eval_every_steps=null", "trainer.eval_every_steps"),
        ("trainer=epochs trainer.eval_every_steps=10", "trainer.eval_every_steps"),
        (EPOCHS, "trainer.eval_every_steps trainer.eval_every_epochs"),
        ("trainer.eval_every_steps=1001", "trainer.eval_every_steps"),
        ("trainer=epochs trainer.eval_every_epochs=11", "trainer.eval_every_epochs"),
        ("strategy.devices=2", "strategy.devices"),
        ("strategy=single strategy.num_nodes=2 run_dir=new", "strategy.devices"),
        ("strategy=fsdp strategy.accelerator=cpu", "strategy.accelerator"),
    ],
)
def test_rules(overrides: str, keys: str) -> None:
    assert wheres(configured(*overrides.split())) == set(keys.split())


@pytest.mark.parametrize(
    "overrides",
    [
        "",
        "prompt=static prompt.layer=1",
        "prompt=static prompt.init=normal",
        "prompt.layer=2",
        "prompt.layer=30",
        "data=kshot data.k=2",
        "data=kshot data.k=1 data.sampling=per_class",
        "task.metric=macro_f1 task.metrics=[f1,matthews_correlation]",
        "task=mpqa data.path=.",
        "task=mpqa data.root=.",
        "task=stsb loss=label_words",
        "task=stsb task.labels=[1,10]",
        "task=stsb task.metric=spearman task.metrics=[]",
        "task=copa loss=vocabulary",
        "task=record task.metrics=[record_em,accuracy]",
        "task=multirc task.metrics=[exact_match,accuracy,f1,macro_f1]",
        "task=mnli task.extra.ax=null data.extra=false data.test=dev",
        "task=mnli task.extra.ax.metrics=[accuracy,macro_f1]",
        "task=rte task.metrics=[gender_parity]",
        f"{NO_STEPS} trainer.max_epochs=2 trainer.eval_every_steps=1000",
        "trainer=epochs trainer.eval_every_epochs=10",
        "strategy=ddp strategy.accelerator=cpu strategy.num_nodes=2 run_dir=new",
        "optim.weight_decay=0 optim.warmup_ratio=0 optim.gradient_clip_val=null prompt.dropout=0",
    ],
)
def test_valid(overrides: str) -> None:
    assert wheres(configured(*overrides.split())) == set()


def test_everything_wrong_is_reported_together() -> None:
    overrides = ["prompt.layer=99", "data=kshot", "data.k=0", "task.metric=zzz", "loss=zzz"]
    keys = {"prompt.layer", "data.k", "task.metric", "loss", "strategy.devices"}
    problems = validate(configured(*overrides, "strategy.devices=8"))
    assert {problem.where for problem in problems.found} == keys
    with pytest.raises(ConfigError) as caught:
        problems.raise_if_any()
    assert all(key in str(caught.value) for key in keys)


@pytest.mark.parametrize(
    ("given", "near"), [("task.metric=acuracy", "accuracy"), ("prompt.kind=ngp", "npg")]
)
def test_near_names_are_offered(given: str, near: str) -> None:
    [problem] = validate(configured(given)).found
    assert f"did you mean {near}" in str(problem)


class TestWandbKey:
    """Logging online needs the package and a key before the training begins, not after."""

    @pytest.fixture(autouse=True)
    def _no_key(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [n for n in os.environ if n.startswith("WANDB_")] + ["NETRC"]:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.chdir(tmp_path)

    def test_without_a_key(self) -> None:
        assert wheres(configured("logger=wandb")) == {"logger.wandb.mode"}
        assert wheres(configured("logger=wandb", "logger.wandb.mode=offline")) == set()

    @pytest.mark.parametrize("mode", ["online", "offline"])
    def test_without_the_package(self, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("lpt.tracking.wandb_login.find_spec", lambda name: None)
        [problem] = validate(configured("logger=wandb", f"logger.wandb.mode={mode}")).found
        assert "pip install wandb" in str(problem)
        assert wheres(configured("logger=csv")) == set()

    @pytest.mark.parametrize("name", ["WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"])
    def test_with_a_key_in_the_environment(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(name, "k")
        assert wheres(configured("logger=wandb")) == set()

    @pytest.mark.parametrize("place", [".netrc", "_netrc", "elsewhere/netrc"])
    def test_with_a_key_in_netrc(
        self, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if "/" in place:
            monkeypatch.setenv("NETRC", f"~/{place}")
            (tmp_path / place).parent.mkdir()
        (tmp_path / place).touch(mode=0o600)
        (tmp_path / place).write_text("machine api.wandb.ai login user password k\n")
        assert wheres(configured("logger=wandb")) == set()
        monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
        assert wheres(configured("logger=wandb")) == {"logger.wandb.mode"}

    def test_only_the_netrc_that_is_named_counts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / ".netrc").touch(mode=0o600)
        (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password k\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "none"))
        assert wheres(configured("logger=wandb")) == {"logger.wandb.mode"}

    @pytest.mark.parametrize("folder", [".config/wandb", "wandb", "given"])
    def test_with_wandbs_own_settings(
        self, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`wandb login --host` writes the server down; a netrc holds the key for that one."""
        if folder == "given":
            monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / folder))
        (tmp_path / folder).mkdir(parents=True)
        settings = tmp_path / folder / "settings"
        settings.write_text("[default]\nbase_url = https://wandb.example.org:8080/\n")
        (tmp_path / ".netrc").touch(mode=0o600)
        (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password k\n")
        assert wheres(configured("logger=wandb")) == {"logger.wandb.mode"}
        (tmp_path / ".netrc").write_text("machine wandb.example.org:8080 login u password k\n")
        assert wheres(configured("logger=wandb")) == set()
        (tmp_path / ".netrc").unlink()
        settings.write_text("[default]\napi_key = 50%k\n")
        assert wheres(configured("logger=wandb")) == set()
        settings.write_text("no section")
        assert wheres(configured("logger=wandb")) == {"logger.wandb.mode"}


def test_finished_run_is_replaced_only_when_told(tmp_path: Path) -> None:
    given = f"run_dir={tmp_path}"
    (tmp_path / "notes.txt").write_text("someone else's")
    assert wheres(configured(given)) == set()
    (tmp_path / "checkpoints").mkdir()
    assert wheres(configured(given)) == {"run_dir"}
    assert wheres(configured(f"{given}/notes.txt/run")) == {"run_dir"}
    (tmp_path / "metrics.json").write_text("{}")
    assert wheres(configured(given)) == {"run_dir"}
    assert wheres(configured(given, "overwrite=true")) == set()


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
    """What `prepare` has to say to each key."""
    with pytest.raises(ConfigError) as caught:
        prepare(config)
    found = caught.value.problems
    assert len({problem.where for problem in found}) == len(found)
    return {problem.where: str(problem) for problem in found}


def test_plan_of_a_valid_run(bert: Path) -> None:
    plan = prepare(local(bert))
    vocabulary = plan.backbone.tokenizer.get_vocab()
    assert plan.word_ids == [vocabulary["terrible"], vocabulary["great"]]
    assert plan.layer == 3
    assert plan.task.template.kind == "masked"
    assert all(len(part) > 0 for _, part in plan.splits.items())
    assert prepare(local(bert, "prompt.layer=4")).layer == 4


def test_faults_of_template_words_and_sizes_come_together(bert: Path) -> None:
    faults = [
        'task.template="{text} It was ."',
        "task.label_words=[terrible,wonderful]",
        "prompt.layer=5",
        "data.max_length=97",
        "optim.lr=0",
    ]
    said = refused(local(bert, *faults))
    assert set(said) == {
        "task.template",
        "task.label_words",
        "prompt.layer",
        "data.max_length",
        "optim.lr",
    }
    assert "<mask> 0 times" in said["task.template"]
    assert "'wonderful' is 'w' + '##o'" in said["task.label_words"]
    assert "1 to 4" in said["prompt.layer"]
    assert "1 to 96" in said["data.max_length"]


@pytest.mark.parametrize(
    ("files", "key", "told"),
    [
        (("train", "dev"), "data.test", ["no test file", "data.test=dev"]),
        (("dev", "test"), "data.path", ["no train split", "present: dev.tsv, test.tsv"]),
    ],
)
def test_faults_of_files_and_lengths_come_together(
    bert: Path, tmp_path: Path, files: tuple[str, str], key: str, told: list[str]
) -> None:
    for split in files:
        (tmp_path / f"{split}.tsv").write_text("negative\tbad\npositive\tgood\n")
    faults = [f"data.path={tmp_path}", "data.max_length=6", "prompt.layer=5", "strategy.devices=2"]
    said = refused(local(bert, *faults))
    assert set(said) == {key, "data.max_length", "prompt.layer", "strategy.devices"}
    assert all(text in said[key] for text in told)
    assert "template alone takes 6" in said["data.max_length"]


@pytest.mark.parametrize(
    ("overrides", "key", "said"),
    [
        (["data=kshot", "data.k=100000"], "data.k", "100000 training examples of"),
        (["data=kshot", "data.sampling=per_class", "data.k=100000"], "data.k", "of each class"),
        (['task.template="{text} <mask> <mask> ."'], "task.template", "<mask> 2 times"),
        (["task.template='It was <mask>'"], "task.template", "uses no column"),
        (
            ["trainer=epochs", "trainer.eval_every_epochs=null", "trainer.eval_every_steps=100000"],
            "trainer.eval_every_steps",
            "training ends after",
        ),
        (["model.layers=12"], "model.layers", "4, as"),
        (["task.label_words=[great,great]"], "task.label_words", "distinct"),
    ],
)
def test_fault_that_needs_the_model_or_the_data(
    bert: Path, overrides: list[str], key: str, said: str
) -> None:
    problems = refused(local(bert, *overrides))
    assert list(problems) == [key]
    assert said in problems[key]


@pytest.mark.parametrize("layer", [1, 5, -1])
def test_layers_to_cache_must_be_there_and_above_the_first(bert: Path, layer: int) -> None:
    problems = refused(local(bert, f"cache.layers=[3,{layer}]"))
    assert list(problems) == ["cache.layers"]
    assert f"cache.layers: {layer}\n" in problems["cache.layers"]
    assert "2 to 4" in problems["cache.layers"]
    assert prepare(local(bert, "cache.layers=[2,4]")).layer == 3


def test_flash_attention_is_for_masked_models(bert: Path, checkpoints: dict[str, Path]) -> None:
    """Label parts side by side need a mask that it does not take."""
    flash = "model.attention=flash_attention_2"
    problems = refused(local(checkpoints["causal"], flash))
    assert list(problems) == ["model.attention"]
    assert "sdpa or eager" in problems["model.attention"]
    assert prepare(local(checkpoints["causal"], "model.attention=eager"))
    assert prepare(local(bert, flash))


@pytest.mark.parametrize("compiler", [None, "no-such-compiler"])
def test_compiling_without_a_compiler_is_refused(
    monkeypatch: pytest.MonkeyPatch, compiler: str | None
) -> None:
    if compiler is None:
        monkeypatch.delenv("CXX", raising=False)
    else:
        monkeypatch.setenv("CXX", compiler)
    there = {"clang++"}
    monkeypatch.setattr(shutil, "which", lambda name: name if name in there else None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    check_machine(configured())
    if compiler is None:
        check_machine(configured("trainer.compile=true"))
        there.clear()
    with pytest.raises(ConfigError, match=compiler or "g\\+\\+") as caught:
        check_machine(configured("trainer.compile=true"))
    assert [problem.where for problem in caught.value.problems] == ["trainer.compile"]


@pytest.mark.parametrize(("capability", "warned"), [("AVX2", True), ("AVX512", False)])
@pytest.mark.parametrize("setting", ["model.dtype=bfloat16", "trainer.precision=bf16-mixed"])
def test_bf16_on_a_processor_without_it_is_told(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capability: str,
    warned: bool,
    setting: str,
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    check_machine(configured("strategy.accelerator=cpu"))
    assert not caplog.text
    check_machine(configured("strategy.accelerator=cpu", setting))
    assert ("no bf16 arithmetic" in caplog.text) == warned


@pytest.mark.parametrize(
    ("settings", "picked"),
    [
        ((), None),
        (("model.dtype=bfloat16",), "eager"),
        (("trainer.precision=bf16-mixed",), "eager"),
        (("model.dtype=bfloat16", "data.max_length=257"), None),
        (("model.dtype=bfloat16", "model.attention=sdpa"), "sdpa"),
        (("model.attention=eager",), "eager"),
    ],
)
@pytest.mark.parametrize("gpus", [0, 1])
def test_attention_that_is_fastest_on_the_device(
    checkpoints: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    settings: tuple[str, ...],
    picked: str | None,
    gpus: int,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    given = next((s.partition("=")[2] for s in settings if "attention" in s), None)
    config = local(checkpoints["causal"], "data.max_length=256", *settings)
    assert prepare(config).attention == (picked if gpus == 0 else given)


def test_template_for_the_other_kind_of_model(bert: Path) -> None:
    with pytest.raises(ConfigError, match="only <mask> for a masked model"):
        prepare(local(bert, 'task.template="{text} It was {word} ."'))


def test_unsupported_family_is_named_with_the_supported_ones(tmp_path: Path) -> None:
    T5Config().save_pretrained(tmp_path)
    said = refused(local(tmp_path))["model.path"]
    assert "'t5'" in said
    assert all(family in said for family in FAMILIES)


def test_folder_without_a_model(tmp_path: Path) -> None:
    said = refused(local(tmp_path, "data.path=no/such/folder"))
    assert set(said) == {"model.path", "data.path"}
    assert "a folder that transformers can load" in said["model.path"]


@pytest.mark.parametrize(("model", "head"), [(BertForMaskedLM, True), (BertModel, False)])
def test_model_without_its_language_model_head_is_refused(
    bert: Path, tmp_path: Path, model: Any, head: bool
) -> None:
    shutil.copytree(bert, tmp_path, dirs_exist_ok=True)
    model(BertConfig.from_pretrained(bert)).save_pretrained(tmp_path)
    backbone = find_backbone(**checkpoint_source(local(tmp_path).model))
    if head:
        assert not load_model(backbone, dtype=torch.float32).training
        return
    with pytest.raises(ConfigError, match="language-model head") as caught:
        load_model(backbone, dtype=torch.float32)
    [problem] = caught.value.problems
    assert problem.where == "model.path"
    assert "cls.predictions" in problem.given
    assert "would be random" in problem.given
