"""What this machine offers a run: devices, bf16 arithmetic, fast attention."""

from __future__ import annotations

import logging

import torch

from lpt.config.schema import Config
from lpt.errors import config_error
from lpt.models.backbone import Backbone
from lpt.runs.environment import uses_gpu

logger = logging.getLogger(__name__)
_SHORT_TEXT = 256  # tokens


def check_machine(config: Config) -> None:
    """Check that this machine has the GPUs that are configured; warn of slow bf16.

    Raises:
        ConfigError: It has fewer.
    """
    strategy, available = config.strategy, torch.cuda.device_count()
    if strategy.accelerator == "gpu" and strategy.devices > available:
        raise config_error(
            "strategy.devices",
            f"{strategy.devices} with strategy.accelerator=gpu",
            f"up to {available} GPUs on this machine",
            "fewer devices, or strategy.accelerator=cpu",
        )
    bf16 = config.model.dtype == "bfloat16" or config.trainer.precision == "bf16-mixed"
    slow = torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "NO AVX", "AVX2")
    if bf16 and slow and not uses_gpu(strategy.accelerator):
        logger.warning(
            "This processor has no bf16 arithmetic: bf16 will be many times slower than float32."
        )


def default_attention(config: Config, backbone: Backbone) -> str:
    """The attention implementation used where `model.attention` is null.

    It is the one that transformers picks for the family. On a CPU, however, torch's SDPA has a slow
    backward pass in half precision: for short texts, both passes take 3 to 7 times as long as the
    products and the softmax by themselves; at 256 tokens it is about the same.
    """
    half = config.model.dtype != "float32" or config.trainer.precision != "32-true"
    short = config.data.max_length <= _SHORT_TEXT
    slow_sdpa = half and short and not uses_gpu(config.strategy.accelerator)
    return "eager" if slow_sdpa else backbone.family.attention
