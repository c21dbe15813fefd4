"""The resolved configuration leaves no default open."""

from __future__ import annotations

from typing import Any

import pytest

from lpt.config.resolve import flatten, resolve, to_dict
from tests.support.configs import configured

# A null that is left means none or not applicable, as the schema says of each.
NULL_MEANS_NONE = {
    *("model.path", "model.revision", "model.package", "model.gguf_file", "prompt.bottleneck"),
    *("prompt.init", "task.hub", "task.hub_config", "task.header", "task.row_expansion"),
    *("task.files.train", "task.files.dev", "task.files.test", "task.default_path"),
    *("data.path", "data.root", "data.verify", "data.k", "data.dev_k"),
    *("data.limit_train", "data.limit_dev", "data.limit_test", "optim.gradient_clip_val"),
    *("trainer.max_steps", "trainer.max_epochs", "trainer.eval_every_steps"),
    *("trainer.eval_every_epochs", "trainer.patience", "resume", "run_dir"),
    *("logger.wandb.entity", "logger.wandb.group", "logger.wandb.mode"),
}


def resolved(*overrides: str, **changes: Any) -> dict[str, Any]:
    facts = {"layers": 12, "hidden_dropout": 0.1, "attention": "sdpa", "cache_dir": "cache"}
    facts |= {"template": "{text} <mask>", "dev_k": None}
    return flatten(to_dict(resolve(configured(*overrides), **(facts | changes))))


@pytest.mark.parametrize(
    "overrides", [(), ("task=sst2",), ("model=gpt2", "prompt=static"), ("data=kshot", "data.k=8")]
)
def test_no_null_is_left_that_a_default_fills(overrides: tuple[str, ...]) -> None:
    left = {key for key, value in resolved(*overrides).items() if value is None}
    assert left <= NULL_MEANS_NONE


@pytest.mark.parametrize(
    ("key", "default"),
    [
        ("model.layers", 12),
        ("model.attention", "sdpa"),
        ("prompt.layer", 7),
        ("prompt.dropout", 0.1),
        ("task.folder", "reviews"),
        ("task.template", "{text} <mask>"),
        ("cache.dir", "cache"),
        ("loss", "vocabulary"),
        ("optim.lr", 3e-3),  # of prompt=npg
        ("data.dev_k", 30),
    ],
)
def test_every_default_is_filled_in(key: str, default: object) -> None:
    assert resolved(dev_k=30)[key] == default


def test_the_loss_of_a_number_is_over_its_two_words() -> None:
    assert resolved("task=stsb")["loss"] == "label_words"


@pytest.mark.parametrize(
    "override",
    [
        *("prompt.layer=3", "prompt.dropout=0.0", "model.attention=eager", "loss=label_words"),
        *("data.dev_k=5", "cache.dir=elsewhere", "optim.lr=0.5"),
    ],
)
def test_a_value_that_is_set_stays(override: str) -> None:
    key, _, value = override.partition("=")
    assert str(resolved(override, dev_k=30)[key]) == value


def test_a_resumed_run_stays_in_its_folder() -> None:
    assert resolved("resume=runs/mine")["run_dir"] == "runs/mine"
    assert resolved("resume=auto", "run_dir=runs/mine")["run_dir"] == "runs/mine"


def test_a_sweep_is_no_setting_of_a_run() -> None:
    assert not any(key.startswith("sweep") for key in resolved())
