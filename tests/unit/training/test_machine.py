"""What depends on the machine: GPUs, attention."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from packaging.version import Version

from lpt.errors import ConfigError
from lpt.models.backbone import attention_implementation, checkpoint_source, find_backbone
from lpt.models.families import FAMILIES
from lpt.training.plan import check_devices, default_attention
from tests.support.configs import configured
from tests.support.tiny import SIZES, tiny_model


def test_more_gpus_than_there_are_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    check_devices(configured("strategy.accelerator=gpu").strategy)
    two = configured("strategy.accelerator=gpu", "strategy=ddp", "strategy.devices=2")
    with pytest.raises(ConfigError, match="up to 1 GPUs"):
        check_devices(two.strategy)


@pytest.mark.parametrize("family", SIZES)
def test_attention_default_is_that_of_transformers(family: str) -> None:
    """Where the configuration leaves it open."""
    if family == "gemma2" and Version(transformers.__version__) < Version("5.20"):
        pytest.skip("this transformers picks sdpa, which leaves out Gemma's soft-capping")
    model = tiny_model(family)
    assert FAMILIES[family].attention == attention_implementation(model.config)


@pytest.mark.parametrize(
    ("settings", "on_cpu"),
    [
        ((), "sdpa"),
        (("trainer.precision=bf16-mixed",), "eager"),
        (("model.dtype=bfloat16", "data.max_length=257"), "sdpa"),
    ],
)
@pytest.mark.parametrize("gpus", [0, 1])
def test_attention_is_the_fastest_on_the_device(
    monkeypatch: pytest.MonkeyPatch,
    checkpoints: dict[str, Path],
    settings: tuple[str, ...],
    on_cpu: str,
    gpus: int,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    config = configured("model=local", f"model.path={checkpoints['causal']}", *settings)
    backbone = find_backbone(**checkpoint_source(config.model))
    assert default_attention(config, backbone) == ("sdpa" if gpus else on_cpu)
