"""The resolved configuration leaves no default open."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lpt.config.method_schema import MethodConfig
from lpt.config.resolve import flatten, to_dict
from tests.support.configs import resolved

# A null that is left means none or not applicable, as the schema says of each.
NULL_MEANS_NONE = {
    *(f"method.{field.name}" for field in dataclasses.fields(MethodConfig)),
    *("model.path", "model.revision", "model.package", "model.gguf_file", "prompt.bottleneck"),
    *("prompt.init", "task.hub", "task.hub_config", "task.header", "task.row_expansion"),
    *("task.files.train", "task.files.dev", "task.files.test", "task.default_path"),
    *("data.path", "data.root", "data.verify", "data.k", "data.dev_k"),
    *("data.limit_train", "data.limit_dev", "data.limit_test", "optim.gradient_clip_val"),
    *("trainer.max_steps", "trainer.max_epochs", "trainer.eval_every_steps"),
    *("trainer.eval_every_epochs", "trainer.patience", "resume", "run_dir"),
    *("logger.wandb.entity", "logger.wandb.group", "logger.wandb.mode"),
}


def values(*overrides: str, dev_k: int | None = None) -> dict[str, Any]:
    return flatten(to_dict(resolved(*overrides, dev_k=dev_k)))


@pytest.mark.parametrize(
    "overrides", [(), ("task=sst2",), ("model=gpt2", "prompt=static"), ("data=kshot", "data.k=8")]
)
def test_no_null_is_left_that_a_default_fills(overrides: tuple[str, ...]) -> None:
    left = {key for key, value in values(*overrides).items() if value is None}
    assert left <= NULL_MEANS_NONE


def test_every_default_is_filled_in() -> None:
    defaults = {
        "model.layers": 12,
        "model.attention": "sdpa",
        "prompt.layer": 7,
        "prompt.dropout": 0.1,
        "task.folder": "reviews",
        "task.template": "{text} <mask>",
        "cache.dir": "cache/hidden",
        "loss": "vocabulary",
        "optim.lr": 3e-3,  # of prompt=npg
        "data.dev_k": 30,
    }
    assert values(dev_k=30).items() >= defaults.items()
    assert values("task=mrpc")["task.positive_label"] == "1"
    assert values("task=mrpc", "task.positive_label=0")["task.positive_label"] == "0"
    for name in ("mnli", "copa", "stsb"):  # three labels, candidates, numbers
        assert values(f"task={name}")["task.positive_label"] is None
    assert values("task=stsb")["loss"] == "label_words"  # of a number: over its two words


@pytest.mark.parametrize(
    ("overrides", "steps", "epochs"),
    [
        (("trainer.max_steps=1",), 1, None),
        (("trainer.max_steps=2",), 1, None),
        (("trainer.max_steps=57",), 5, None),
        (("trainer.max_steps=5000",), 100, None),
        (("trainer.max_steps=2", "trainer.eval_every_steps=50"), 50, None),
        (("trainer=epochs",), None, 1),
        (("trainer=epochs", "trainer.eval_every_epochs=3"), None, 3),
        (("trainer=epochs", "trainer.eval_every_steps=30"), 30, None),
    ],
)
def test_the_evaluation_interval_fits_the_length(
    overrides: tuple[str, ...], steps: int | None, epochs: int | None
) -> None:
    trainer = resolved(*overrides).trainer
    assert (trainer.eval_every_steps, trainer.eval_every_epochs) == (steps, epochs)


def test_values_that_are_set_stay() -> None:
    given = "prompt.layer=3 prompt.dropout=0.0 model.attention=eager loss=label_words data.dev_k=5"
    overrides = [*given.split(), "cache.dir=elsewhere", "optim.lr=0.5"]
    found = values(*overrides, dev_k=30)
    for key, _, value in (override.partition("=") for override in overrides):
        assert str(found[key]) == value


def test_a_resumed_run_stays_in_its_folder() -> None:
    assert values("resume=runs/mine")["run_dir"] == "runs/mine"
    assert values("resume=auto", "run_dir=runs/mine")["run_dir"] == "runs/mine"


def test_a_sweep_is_no_setting_of_a_run() -> None:
    assert not any(key.startswith("sweep") for key in values())


def test_the_lowest_of_several_layers_is_the_layer_of_the_prompt() -> None:
    prompt = resolved("prompt.layers=[9,5,7]").prompt
    assert (prompt.layer, prompt.layers) == (5, [5, 7, 9])
