"""What a run needs besides weights, checked: all that can fail because of the user's input."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from lpt.config.schema import Config
from lpt.config.validation import check_layer, validate
from lpt.data.batching import ShuffledBatches
from lpt.data.build import build_task, read_splits
from lpt.data.split_file import describe
from lpt.data.splits import Splits
from lpt.data.tasks import Task
from lpt.data.templates import Encoder
from lpt.data.verbalizer import word_ids
from lpt.errors import Problems
from lpt.models.backbone import Backbone, checkpoint_source, find_backbone
from lpt.training.evaluation import Evaluator

logger = logging.getLogger(__name__)
_SHORT_TEXT = 256  # tokens


@dataclass(frozen=True)
class Plan:
    """Everything a run needs besides weights, checked.

    Attributes:
        backbone: The frozen model's config and tokenizer.
        task: The task for that kind of model.
        splits: Train, dev and test rows.
        encoder: Renders and tokenizes them.
        word_ids: Token of each label's word.
        layer: First layer that sees the prompt.
        loss: What the loss is over: `vocabulary` or `label_words`.
        attention: Attention implementation; None: what transformers picks for the model.
    """

    backbone: Backbone
    task: Task
    splits: Splits
    encoder: Encoder
    word_ids: list[int]
    layer: int
    loss: str
    attention: str | None

    @cached_property
    def split(self) -> dict[str, Any]:
        """What split.json says of the sets."""
        return describe(self.splits, self.task)

    @cached_property
    def evaluator(self) -> Evaluator:
        """EvalOutput and scores the sets."""
        return Evaluator(self.task, dict(self.splits.items()))


def prepare(config: Config) -> Plan:
    """Check configuration, backbone, label words, template and data.

    Raises:
        ConfigError: Every problem found, in one message.
    """
    problems = validate(config)
    backbone = task = splits = encoder = ids = None
    depth = config.model.layers
    with problems.collect():
        backbone = find_backbone(**checkpoint_source(config.model))
        depth = backbone.layers
        _check_backbone(config, backbone, problems)
    with problems.collect():
        task = build_task(config, backbone.family.kind if backbone is not None else None)
    if backbone is not None:
        with problems.collect():
            ids = word_ids(backbone.tokenizer, config.task.label_words)
    if backbone is not None and task is not None:
        with problems.collect():
            encoder = Encoder(
                backbone.tokenizer, task.template, task.label_words, config.data.max_length
            )
    if task is not None and not problems.concern("data.path", "data.root", "data.k", "task."):
        with problems.collect():
            splits = read_splits(config, task)
            _check_interval(config, splits, problems)
            _check_ranks(config, splits, problems)
    problems.raise_if_any()
    assert backbone is not None
    assert task is not None
    assert splits is not None
    assert encoder is not None
    assert ids is not None
    layer = config.prompt.layer if config.prompt.layer is not None else depth // 2 + 1
    loss = config.loss or ("label_words" if task.value_range is not None else "vocabulary")
    attention = config.model.attention or _attention(config)
    return Plan(backbone, task, splits, encoder, ids, layer, loss, attention)


def resolve(config: Config, run_dir: str | None, layer: int) -> Config:
    """The configuration with every default filled in."""
    prompt = dataclasses.replace(config.prompt, layer=layer)
    return dataclasses.replace(config, prompt=prompt, run_dir=run_dir)


def check_machine(config: Config) -> None:
    """Check that this machine has the GPUs and the compiler that are asked for.

    Raises:
        ConfigError: It has not.
    """
    strategy, have = config.strategy, torch.cuda.device_count()
    problems = Problems()
    if strategy.accelerator == "gpu" and strategy.devices > have:
        problems.add(
            "strategy.devices",
            f"{strategy.devices} with strategy.accelerator=gpu",
            f"up to {have} GPUs on this machine",
            "fewer devices, or strategy.accelerator=cpu",
        )
    on_cpu = _on_cpu(config)
    named = os.environ.get("CXX" if on_cpu else "CC")
    compilers = [named] if named else ["g++", "clang++"] if on_cpu else ["gcc", "clang", "cc"]
    if config.trainer.compile and not any(map(shutil.which, compilers)):
        problems.add(
            "trainer.compile",
            f"true, but there is no compiler ({' or '.join(compilers)})",
            "false, or a compiler: torch.compile needs one",
        )
    problems.raise_if_any()
    bf16 = config.model.dtype == "bfloat16" or config.trainer.precision == "bf16-mixed"
    if bf16 and on_cpu and torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "NO AVX", "AVX2"):
        logger.warning(
            "This processor has no bf16 arithmetic: bf16 will be many times slower than float32."
        )


def _on_cpu(config: Config) -> bool:
    return config.strategy.accelerator == "cpu" or not torch.cuda.device_count()


def _attention(config: Config) -> str | None:
    """What is fastest: on a CPU, torch's SDPA has a slow backward pass in half precision.

    In bf16 and for short texts, both passes take 3 to 7 times as long as the products and the
    softmax by themselves; at 256 tokens it is about the same.
    """
    half = config.model.dtype != "float32" or config.trainer.precision != "32-true"
    short = config.data.max_length <= _SHORT_TEXT
    return "eager" if half and short and _on_cpu(config) else None


def _check_backbone(config: Config, backbone: Backbone, problems: Problems) -> None:
    prompt, name = config.prompt, config.model.name
    if prompt.layer is not None and config.model.layers is None:
        check_layer(prompt.kind, prompt.layer, backbone.layers, name, problems)
    if config.model.layers is not None and config.model.layers != backbone.layers:
        problems.add(
            "model.layers", str(config.model.layers), f"{backbone.layers}, as {name} has", "null"
        )
    for layer in config.cache.layers:
        if not 2 <= layer <= backbone.layers:
            problems.add("cache.layers", str(layer), f"2 to {backbone.layers} for {name}")
    if backbone.family.kind == "causal" and config.model.attention == "flash_attention_2":
        problems.add(
            "model.attention",
            "flash_attention_2 with a causal model",
            "sdpa or eager: the labels share their context through a mask that it does not take",
        )
    if backbone.max_length is not None and config.data.max_length > backbone.max_length:
        problems.add(
            "data.max_length",
            str(config.data.max_length),
            f"1 to {backbone.max_length} for {name}: it has no more positions",
        )


def _check_ranks(config: Config, splits: Splits, problems: Problems) -> None:
    processes = config.strategy.devices * config.strategy.num_nodes
    for name, part in splits.items():
        if len(part) < processes:
            problems.add("strategy.devices", f"{processes} for {len(part)} {name} examples")


def _check_interval(config: Config, splits: Splits, problems: Problems) -> None:
    """Training counted in epochs must last until its first evaluation."""
    trainer, strategy = config.trainer, config.strategy
    if trainer.max_epochs is None or trainer.eval_every_steps is None:
        return
    world_size = strategy.devices * strategy.num_nodes
    sampler = ShuffledBatches(
        len(splits.train), config.data.batch_size, config.seed, world_size=world_size
    )
    steps = trainer.max_epochs * sampler.batches_a_pass
    if trainer.eval_every_steps > steps:
        problems.add(
            "trainer.eval_every_steps",
            f"{trainer.eval_every_steps}, but training ends after {steps}",
            f"1 to {steps}: without an evaluation no checkpoint can be picked",
        )
