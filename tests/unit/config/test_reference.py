"""The reference of the configuration: each key has a meaning; `--help` shows it."""

from __future__ import annotations

import dataclasses

from lpt.config.reference import all_keys
from lpt.config.resolve import flatten
from lpt.config.schema import Config
from tests.support.configs import GROUPS


def test_every_key_has_a_meaning() -> None:
    keys = {key.name: key for key in all_keys()}
    assert all(key.meaning[-1:] in (".", "`", ")") for key in keys.values()), keys
    settable = {name for name in flatten(dataclasses.asdict(Config())) if "files." not in name}
    assert settable <= {*keys}
    assert {key.group for key in keys.values()} - {""} <= {*GROUPS}


def test_what_is_known_of_a_key() -> None:
    keys = {key.name: key for key in all_keys()}
    assert keys["model.dtype"].limits == "float32, bfloat16, float16"
    assert keys["model.dtype"].default == "float32"
    assert keys["cache.max_gb"].limits == "> 0.0"
    assert keys["method.dropout"].limits == ">= 0.0 and < 1.0"
    assert keys["optim.lr"].default == ""
    assert keys["task.extra.NAME.file"].group == "task"
    assert keys["model.revision"].meaning == "Branch, tag or commit on the Hub."
