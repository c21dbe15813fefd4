"""Wrong configurations: each names its key, and all of them are reported together."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest

from lpt.config.extras import EXTRAS
from lpt.config.schema import Config
from lpt.config.task_schema import ExtraSet
from lpt.config.validation import validate
from tests.support.configs import CONF, ROOT, configured
from tests.support.problems import problem_of, problems_of

NO_STEPS = "trainer.max_steps=null"
EPOCHS = "trainer.eval_every_epochs=1"


def fields(node: Any = Config, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any]]]:
    """Every field of the schema that is no group, by its key."""
    for field in dataclasses.fields(node):
        if dataclasses.is_dataclass(field.default_factory):
            yield from fields(field.default_factory, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", field


def outside_of_limits() -> Iterator[tuple[str, Any]]:
    """A value outside each limit of each limited field of the schema."""
    beyond = {"ge": -1, "gt": 0, "le": 1, "lt": 0}
    for key, field in fields():
        for name, limit in field.metadata.items():
            yield key, "zzz" if name == "choices" else limit + beyond[name]


def wheres(config: Config) -> set[str]:
    return {problem.where for problem in validate(config).found}


def test_every_field_is_read() -> None:
    files = [path for path in (ROOT / "lpt").rglob("*.py") if "schema" not in path.name]
    code = "".join(path.read_text("utf-8") for path in (*files, *CONF.rglob("*.yaml")))
    names = {name for key, _ in (*fields(), *fields(ExtraSet)) for name in key.split(".")}
    assert len(names) > 50
    assert [name for name in sorted(names) if not re.search(rf"\.{name}\b", code)] == []


@pytest.mark.parametrize(("key", "value"), list(outside_of_limits()))
def test_every_choice_and_range_is_checked(key: str, value: Any) -> None:
    problems = validate(configured(f"{key}={value}")).found
    assert any(p.where == key and p.given == repr(value) and p.expected for p in problems)


def test_every_number_has_a_range() -> None:
    numbers = {k: f for k, f in fields() if str(f.type).split(" ")[0] in ("int", "float")}
    assert len(numbers) > 25
    assert [k for k, field in numbers.items() if not {"ge", "gt"} & {*field.metadata}] == []


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        ("model=roberta-base model.path=null", "model.path"),
        ("model=smollm2-135m-gguf model.path=folder", "model.path"),
        ("prompt.layer=31", "prompt.layer"),
        ("prompt=static prompt.layer=31", "prompt.layer"),
        ("prompt.layer=1", "prompt.layer"),
        ("prompt.layers=[3]", "prompt.layers"),
        ("prompt.layers=[3,3]", "prompt.layers"),
        ("prompt.layers=[3,31]", "prompt.layers"),
        ("prompt.layers=[1,3]", "prompt.layer"),
        ("prompt.layers=[3,5] prompt.layer=5", "prompt.layer"),
        ("prompt.layers=[3,5] method.layer=5", "method.layer"),
        ("prompt=idpg prompt.layers=[3,5]", "prompt.layer"),
        ("prompt=static prompt.bottleneck=64", "prompt.bottleneck"),
        ("prompt=mppg prompt.bottleneck=null", "prompt.bottleneck"),
        ("prompt=appg prompt.init=normal", "prompt.init"),
        ("data.protocol=kshot", "data.k"),
        ("data=kshot task=trec data.k=5", "data.k"),
        ("data=full data.k=100", "data.k"),
        ("data.path=no/such/folder", "data.path"),
        ("task=mpqa", "data.path"),
        ("task.label_words=[great]", "task.label_words"),
        ("task.labels=[a,a]", "task.labels"),
        ("task.labels=[a] task.label_words=[great]", "task.labels"),
        ("task.metric=accurcy", "task.metric"),
        ("task=mnli task.extra.ax.metrics=[pearson]", "task.extra.ax.metrics"),
        ("task=mnli task.metric=f1", "task.metric"),
        ("task=trec task.test_metrics=[accuracy,f1a]", "task.test_metrics"),
        ("task.metric=pearson", "task.metric"),
        ("task=stsb task.metrics=[accuracy,spearman]", "task.metrics"),
        ("task=multirc task.metric=record_em", "task.metric"),
        ("task=multirc task.row_expansion=null", "task.metric task.metrics"),
        ("task=copa task.metrics=[record_f1]", "task.metrics"),
        ("task=copa task.row_expansion=null", "task.task_type"),
        ("task=copa task.row_expansion=wsc", "task.task_type"),
        ("task=multirc task.task_type=multiple_choice", "task.task_type task.metric task.metrics"),
        ("task=copa task.row_expansion=copy", "task.row_expansion task.task_type"),
        ("task=copa task.labels=[0,1,2] task.label_words=[a,b,c]", "task.labels"),
        ("task=stsb task.labels=[0,2.5,5] task.label_words=[No,Maybe,Yes]", "task.labels"),
        ("task=stsb task.labels=[5,0]", "task.labels"),
        ("task=stsb task.labels=[-1,-1]", "task.labels"),
        ("task=copa task.labels=[1,0]", "task.labels"),
        ("task=stsb loss=vocabulary", "loss"),
        ("task=mrpc task.positive_label=2", "task.positive_label"),
        ("task=stsb task.positive_label=5", "task.positive_label"),
        ("task=trec task.positive_label=1", "task.positive_label"),
        ("data.path=. data.root=.", "data.root"),
        ("data.root=no/such/folder", "data.root"),
        ("trainer.max_epochs=3", "trainer.max_steps"),
        (NO_STEPS, "trainer.max_steps"),
        (f"trainer=epochs {EPOCHS} trainer.eval_every_steps=10", "trainer.eval_every_steps"),
        (EPOCHS, "trainer.eval_every_epochs"),
        (f"{EPOCHS} trainer.eval_every_steps=10", "trainer.eval_every_epochs"),
        (
            "trainer=epochs trainer.eval_every_steps=10 trainer.accumulate_grad_batches=2",
            "trainer.eval_every_steps",
        ),
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
        "prompt.layer=2",
        "data=kshot data.k=1 data.sampling=per_class",
        "task.metric=macro_f1 task.metrics=[f1,matthews_correlation]",
        "task=mpqa data.root=.",
        "task=stsb task.labels=[1,10]",
        "task=stsb task.labels=[-1,1]",
        "task=stsb task.labels=[-3.5,3.5]",
        "task=mrpc task.positive_label=0",
        "task=stsb task.metric=spearman task.metrics=[]",
        "task=record task.metrics=[record_em,accuracy]",
        "task=multirc task.metrics=[exact_match,accuracy,f1,macro_f1]",
        "task=mnli task.extra.ax=null data.extra=false data.test=dev",
        f"{NO_STEPS} trainer.max_epochs=2 trainer.eval_every_steps=1000",
        "trainer=epochs trainer.eval_every_epochs=7",
        "trainer=epochs trainer.eval_every_steps=10",
        "trainer.max_steps=2",
        "trainer.max_steps=7 trainer.eval_every_steps=3",
        "trainer.eval_every_steps=1001",
        "strategy=ddp strategy.accelerator=cpu strategy.num_nodes=2 run_dir=new",
        "optim.weight_decay=0 optim.warmup_ratio=0 optim.gradient_clip_val=null prompt.dropout=0",
    ],
)
def test_valid(overrides: str) -> None:
    assert wheres(configured(*overrides.split())) == set()


def test_all_problems_are_reported_together() -> None:
    overrides = ["prompt.layer=99", "data=kshot", "data.k=0", "task.metric=acuracy", "loss=zzz"]
    problems = problems_of(validate(configured(*overrides, "strategy.devices=8")).raise_if_any)
    keys = {"prompt.layer", "data.k", "task.metric", "loss", "strategy.devices"}
    assert {problem.where for problem in problems} == keys
    assert "did you mean accuracy?" in [problem.hint for problem in problems]


def test_an_extra_has_the_packages_that_pyproject_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for extra, packages in EXTRAS.items():
        declared = project["optional-dependencies"][extra]
        assert [text.partition(">=")[0] for text in declared] == list(packages)
    assert wheres(configured("logger=tensorboard", "model=smollm2-135m-gguf")) == set()
    monkeypatch.setitem(EXTRAS, "demo", ("gguf", "no_such_package"))
    problem = problem_of(validate(configured("model=smollm2-135m-gguf")).raise_if_any)
    assert problem.where == "model.gguf_file"
    assert problem.given == "not installed: no_such_package"
    assert problem.hint == "in the clone: pip install '.[demo]'"
