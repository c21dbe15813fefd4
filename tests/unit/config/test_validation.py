"""Wrong configurations: each names its key, and all of them are reported together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from lpt.config.schema import Config
from lpt.config.validation import validate
from lpt.errors import ConfigError
from tests.support.configs import configured

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


@pytest.mark.parametrize(("key", "value"), list(limited()))
def test_every_choice_and_range_is_checked(key: str, value: Any) -> None:
    problems = validate(configured(f"{key}={value}")).found
    assert any(p.where == key and p.given == repr(value) and p.expected for p in problems)


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
        ("prompt.layer=31", "prompt.layer"),
        ("prompt=static prompt.layer=31", "prompt.layer"),
        ("prompt.layer=1", "prompt.layer"),
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
        ("task=stsb loss=vocabulary", "loss"),
        ("data.path=. data.root=.", "data.root"),
        ("data.root=no/such/folder", "data.root"),
        ("trainer.max_epochs=3", "trainer.max_steps"),
        (NO_STEPS, "trainer.max_steps"),
        (f"trainer.eval_every_steps=null {EPOCHS}", "trainer.eval_every_epochs"),
        ("trainer.eval_every_steps=null", "trainer.eval_every_steps"),
        ("trainer=epochs trainer.eval_every_steps=10", "trainer.eval_every_steps"),
        (EPOCHS, "trainer.eval_every_steps trainer.eval_every_epochs"),
        ("trainer.eval_every_steps=1001", "trainer.eval_every_steps"),
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
        "task=stsb task.metric=spearman task.metrics=[]",
        "task=record task.metrics=[record_em,accuracy]",
        "task=multirc task.metrics=[exact_match,accuracy,f1,macro_f1]",
        "task=mnli task.extra.ax=null data.extra=false data.test=dev",
        f"{NO_STEPS} trainer.max_epochs=2 trainer.eval_every_steps=1000",
        "trainer=epochs trainer.eval_every_epochs=10",
        "strategy=ddp strategy.accelerator=cpu strategy.num_nodes=2 run_dir=new",
        "optim.weight_decay=0 optim.warmup_ratio=0 optim.gradient_clip_val=null prompt.dropout=0",
    ],
)
def test_valid(overrides: str) -> None:
    assert wheres(configured(*overrides.split())) == set()


def test_everything_wrong_is_reported_together() -> None:
    overrides = ["prompt.layer=99", "data=kshot", "data.k=0", "task.metric=acuracy", "loss=zzz"]
    keys = {"prompt.layer", "data.k", "task.metric", "loss", "strategy.devices"}
    problems = validate(configured(*overrides, "strategy.devices=8"))
    assert {problem.where for problem in problems.found} == keys
    with pytest.raises(ConfigError, match="did you mean accuracy") as caught:
        problems.raise_if_any()
    assert all(key in str(caught.value) for key in keys)
