"""Configurations of command lines, composed from conf/."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from lpt.config.command_line import config_groups
from lpt.config.compose import register, typed
from lpt.config.resolve import resolve
from lpt.config.schema import Config

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
GROUPS = config_groups(CONF)


@cache
def compose_choices(*choices: str) -> DictConfig:
    """conf/train.yaml with these choices of groups."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=list(choices))


def configured(*overrides: str) -> Config:
    """The configuration of a command line; what Hydra composes is kept for the next call."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    choices = [override for override in parsed if override.key_or_group in GROUPS]
    config = copy.deepcopy(compose_choices(*(str(choice.input_line) for choice in choices)))
    for override in parsed:
        if override not in choices:
            key, value = override.key_or_group, override.value()
            OmegaConf.update(config, key, value, force_add=override.is_add())
    return typed(config)


def resolved(*overrides: str, dev_k: int | None = None) -> Config:
    """The resolved configuration of a command line, for a backbone of 12 layers."""
    return resolve(
        configured(*overrides),
        layers=12,
        hidden_dropout=0.1,
        attention="sdpa",
        template="{text} <mask>",
        dev_k=dev_k,
        cache_dir="cache/hidden",
    )
