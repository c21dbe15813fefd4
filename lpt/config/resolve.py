"""The resolved configuration: what config.yaml, metrics.json and the loggers hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lpt.config.method_schema import default_layer
from lpt.config.schema import Config, TrainerConfig, first_layer

_MAX_EVAL_EVERY = 100  # steps, as in the few-shot setting of the reference implementation
_EVALUATIONS = 10  # of a shorter run


def resolve(
    config: Config,
    *,
    layers: int,
    hidden_dropout: float,
    attention: str,
    template: str,
    dev_k: int | None,
    cache_dir: str,
) -> Config:
    """The configuration of a run with every default filled in.

    A null that remains means none (`optim.gradient_clip_val`) or not applicable (`data.k` of a
    full run, `prompt` of a method without one), and only `run_dir` is filled in later, when the
    folder is created.

    Args:
        config: Configuration as composed and validated.
        layers: Depth L of the backbone.
        hidden_dropout: Hidden dropout rate of the backbone.
        attention: Default attention implementation on this machine.
        template: Template used for this kind of backbone.
        dev_k: Size of the dev set that was sampled; None if the official one is used.
        cache_dir: Default directory of the hidden-state cache.
    """
    model, task, data = config.model, config.task, config.data
    run_dir = config.run_dir
    layer = _or(first_layer(config), default_layer(config.method.name, layers))
    prompt, method = None, replace(config.method, layer=layer)
    if config.prompt is not None and config.method.name == "late_prompt":
        dropout = _or(config.prompt.dropout, hidden_dropout)
        several = sorted(config.prompt.layers)
        prompt = replace(config.prompt, layer=layer, layers=several, dropout=dropout)
        method = replace(config.method, layer=None)  # said once
    labels_only = task.task_type == "regression" or config.method.name == "head"
    two_classes = task.task_type == "classification" and len(task.labels) == 2
    if config.resume not in (None, "auto"):
        run_dir = config.resume
    return replace(
        config,
        model=replace(model, layers=layers, attention=_or(model.attention, attention)),
        method=method,
        prompt=prompt,
        task=replace(
            task,
            folder=_or(task.folder, task.name),
            template=template,
            positive_label=_or(task.positive_label, task.labels[1] if two_classes else None),
        ),
        data=replace(data, dev_k=_or(data.dev_k, dev_k)),
        trainer=_with_interval(config.trainer),
        cache=replace(config.cache, dir=_or(config.cache.dir, cache_dir)),
        loss=_or(config.loss, "label_words" if labels_only else "vocabulary"),
        run_dir=run_dir,
    )


def _with_interval(trainer: TrainerConfig) -> TrainerConfig:
    if trainer.eval_every_steps is not None or trainer.eval_every_epochs is not None:
        return trainer
    if trainer.max_steps is None:
        return replace(trainer, eval_every_epochs=1)
    every = min(_MAX_EVAL_EVERY, max(1, trainer.max_steps // _EVALUATIONS))
    return replace(trainer, eval_every_steps=every)


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def to_dict(config: Config) -> dict[str, Any]:
    """A resolved configuration as plain types; without `sweep`, which is no setting of a run."""
    return {key: value for key, value in dataclasses.asdict(config).items() if key != "sweep"}


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted key (`prompt.layer`) to value, of a nested configuration as plain types."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{key}": inner for key, inner in flatten(value).items()}
        else:
            flat[name] = value
    return flat
