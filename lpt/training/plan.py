"""What a run needs besides weights, checked: all that can fail because of the user's input."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property, partial

import torch
from omegaconf import OmegaConf
from rich.console import Console

from lpt.caching.policy import check_cache
from lpt.config.method_checks import check_layer
from lpt.config.resolve import resolve, to_dict
from lpt.config.schema import Config, StrategyConfig, first_layer, with_model_name
from lpt.config.task_schema import OF_THE_DATA
from lpt.config.validation import validate
from lpt.data.packing import tokenize
from lpt.data.sources import Source
from lpt.data.split_file import SplitDescription, describe_splits
from lpt.data.splits import Splits, read_splits
from lpt.data.suggestions import suggest_from_data
from lpt.data.tasks import Task, build_task
from lpt.data.templates import Encoder
from lpt.data.verbalizer import label_word_ids
from lpt.errors import HubError, Problems, config_error, literal_text
from lpt.files import cache_dir
from lpt.methods.registry import check_method
from lpt.models.backbone import Backbone, checkpoint_source, find_backbone, read_embeddings
from lpt.runs.environment import uses_gpu
from lpt.runs.run_dir import check_run_dir
from lpt.tracking.wandb import check_wandb

_SHORT_TEXT = 256  # tokens


@dataclass(frozen=True)
class Plan:
    """Everything a run needs besides weights, checked.

    Attributes:
        config: The resolved configuration.
        backbone: Config and tokenizer of the frozen model.
        task: The task, for that kind of model.
        splits: The sets.
        encoder: Renders and tokenizes rows.
        word_ids: Token of each label word.
    """

    config: Config
    backbone: Backbone
    task: Task
    splits: Splits
    encoder: Encoder
    word_ids: list[int]

    @cached_property
    def split_description(self) -> SplitDescription:
        """Content of split.json."""
        return describe_splits(self.splits, self.task)


def prepare(config: Config, *, source: Source | None = None, any_method: bool = False) -> Plan:
    """Check configuration, backbone, label words, template and data.

    Args:
        config: Configuration of the run.
        source: Source of the rows; None: the one that the configuration names.
        any_method: Whether to leave out if the method fits the backbone.

    Raises:
        ConfigError: Every problem found, in one message.
    """
    config = with_model_name(config)  # from Python it may have none
    problems = validate(config, has_rows=source is not None)
    check_run_dir(config, problems)
    check_wandb(config.logger.wandb, problems)
    backbone = task = splits = encoder = ids = None
    with problems.collect():
        backbone = find_backbone(**checkpoint_source(config.model))
        _check_backbone(config, backbone, problems)
    with problems.collect():
        task = build_task(config, backbone.family.kind if backbone is not None else None)
    labeled = not problems.mentions(*OF_THE_DATA)
    if backbone is not None and labeled:
        with problems.collect():
            template = task.template if task is not None else None
            words, read = config.task.label_words, cache(partial(read_embeddings, backbone))
            ids = label_word_ids(backbone.tokenizer, words, template, read)
    if backbone is not None and task is not None and labeled:
        with problems.collect():
            words, max_length = config.task.label_words, config.data.max_length
            encoder = Encoder(backbone.tokenizer, task.template, words, max_length)
    if task is not None and not problems.mentions("data.path", "data.root", "data.k", "task."):
        with problems.collect():
            splits = read_splits(config, task, source)
            _check_sizes(config, splits, problems)
    check_cache(config, backbone.layers if backbone is not None else None, problems)
    unfit = any_method or not labeled or problems.mentions("method.", "prompt.", "model.dtype")
    if backbone is not None and not unfit:
        check_method(config, backbone, problems)
    kind = backbone.family.kind if backbone is not None else None
    suggest_from_data(config, source, kind, problems)
    problems.raise_if_any()
    assert backbone is not None
    assert task is not None
    assert splits is not None
    assert encoder is not None
    assert ids is not None
    _check_token_ids(backbone, splits, encoder, ids)
    resolved = resolve(
        config,
        layers=backbone.layers,
        hidden_dropout=backbone.hidden_dropout,
        attention=default_attention(config, backbone),
        template=task.template.text,
        dev_k=splits.dev_k,
        cache_dir=str(cache_dir("hidden")),
    )
    return Plan(resolved, backbone, task, splits, encoder, ids)


def dry_run(config: Config) -> None:
    """Print the resolved configuration after checking it without loading weights.

    Raises:
        ConfigError: A problem other than an unreachable hub.
    """
    try:
        plan = prepare(config)
    except HubError as error:
        _show(OmegaConf.to_yaml(to_dict(config)))
        _show(f"Skipped because the Hugging Face Hub is unreachable:\n{error.listing}")
        return
    _show(OmegaConf.to_yaml(to_dict(plan.config)))
    sizes = ", ".join(f"{len(part)} {name}" for name, part in plan.splits.sets.items())
    method = f"{plan.config.method.name} from layer {first_layer(plan.config)}"
    _show(f"All checks passed: {sizes}, {method}. The run was not started.")


def _show(text: str) -> None:
    Console().print(literal_text(text), soft_wrap=True)


def _check_backbone(config: Config, backbone: Backbone, problems: Problems) -> None:
    name = config.model.name
    if config.model.layers is None:
        check_layer(config, backbone.layers, problems)
    if config.model.layers is not None and config.model.layers != backbone.layers:
        expected = f"{backbone.layers}, the depth of {name}"
        problems.add("model.layers", str(config.model.layers), expected, "null")
    if backbone.family.kind == "causal" and config.model.attention == "flash_attention_2":
        problems.add(
            "model.attention",
            "flash_attention_2 with a causal model",
            "sdpa or eager: the labels share their context through a mask, which it does not take",
        )
    if backbone.max_length is not None and config.data.max_length > backbone.max_length:
        expected = f"1 to {backbone.max_length}, the number of positions of {name}"
        problems.add("data.max_length", str(config.data.max_length), expected)


def _check_sizes(config: Config, splits: Splits, problems: Problems) -> None:
    """Every rank needs examples."""
    ranks = config.strategy.devices * config.strategy.num_nodes
    for name, part in splits.sets.items():
        if len(part) < ranks:
            problems.add("strategy.devices", f"{ranks} for {len(part)} {name} examples")


def _check_token_ids(
    backbone: Backbone, splits: Splits, encoder: Encoder, word_ids: list[int]
) -> None:
    """A tokenizer may have more tokens than the embedding has rows, but none of them may occur.

    Raises:
        ConfigError: One is a label word, in a text or the padding: an index error in the model.
    """
    size, tokenizer = int(backbone.config.vocab_size), backbone.tokenizer
    if max(tokenizer.get_vocab().values()) < size:
        return
    problems = Problems()
    expected = f"ids below {size}, the size of the model's embedding"
    hint = "the tokenizer that the model was pretrained with"

    def add(key: str, token_id: int, where: str) -> None:
        token = tokenizer.convert_ids_to_tokens(token_id)
        problems.add(key, f"the token {token!r}, {where}, has the id {token_id}", expected, hint)

    for token_id in word_ids:
        if token_id >= size:
            add("task.label_words", token_id, "a label word")
    if encoder.pad_id >= size:
        add("model.path", encoder.pad_id, "the padding")
    for name, examples in splits.sets.items():
        found = tokenize(encoder, examples.columns).examples_beyond(size)
        for token_id, having in found.items():
            row = examples.row_ids[having[0]]
            where = f"in {len(having)} {name} texts (the first: row {row})"
            add("model.path", token_id, where)
    problems.raise_if_any()


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


def check_devices(strategy: StrategyConfig) -> None:
    """Check that this machine has the GPUs that are configured.

    Raises:
        ConfigError: It has fewer.
    """
    available = torch.cuda.device_count()
    if strategy.accelerator == "gpu" and strategy.devices > available:
        given = f"{strategy.devices} with strategy.accelerator=gpu"
        expected = f"up to {available} GPUs on this machine"
        hint = "fewer devices, or strategy.accelerator=cpu"
        raise config_error("strategy.devices", given, expected, hint)
