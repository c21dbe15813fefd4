"""Builders: from the typed configuration to the parts of a run, which take plain arguments."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from lightning import Trainer
from torch import Tensor

from lpt.caching.entry import CacheKey
from lpt.caching.precompute import precompute
from lpt.caching.store import HiddenCache
from lpt.config.schema import Config
from lpt.config.validation import reason_not_to_cache
from lpt.data.datamodule import LatePromptData
from lpt.errors import config_error
from lpt.files import cache_dir
from lpt.methods.late_prompt import LabelScorer, LatePrompt
from lpt.models.backbone import checkpoint_source, fingerprint, load_model
from lpt.models.generators import build_generator, vocabulary_start
from lpt.models.split import SplitModel
from lpt.runs.adapter import BackboneIdentity
from lpt.training.module import LatePromptModule
from lpt.training.plan import Plan

logger = logging.getLogger(__name__)
_WORTH_READING = 0.25  # share of a training set that a run sees
_MUCH_CUT = 0.1  # share of texts


def build_data(config: Config, plan: Plan) -> LatePromptData:
    """Encode the sets."""
    steps = config.trainer.max_steps
    data = LatePromptData(
        plan.splits,
        plan.encoder,
        word_ids=plan.word_ids,
        batch_size=config.data.batch_size,
        eval_batch_size=config.data.eval_batch_size,
        seed=config.seed,
        train_batches=steps * config.trainer.accumulate_grad_batches if steps else None,
        score_all_labels=plan.loss == "label_words",
        bucketing=config.data.bucketing,
        num_workers=config.data.num_workers,
        tokens_dir=cache_dir("tokens"),
    )
    for name, packed in data.packed.items():
        share = packed.truncated / len(packed)
        if share > _MUCH_CUT:
            text = "%.0f %% of the %s texts are cut at %d tokens (data.max_length)."
            logger.warning(text, 100 * share, name, config.data.max_length)
    return data


def build_model(config: Config, plan: Plan) -> tuple[LatePrompt, BackboneIdentity]:
    """Load the backbone, split it, and put a fresh generator in."""
    model, prompt = config.model, config.prompt
    loaded = load_model(plan.backbone, dtype=getattr(torch, model.dtype), attention=plan.attention)
    identity = BackboneIdentity(
        **_absolute(checkpoint_source(config.model)),
        model_type=plan.backbone.config.model_type,
        dtype=model.dtype,
        attention=plan.attention,
        fingerprint=fingerprint(loaded),
    )
    split = SplitModel(
        loaded,
        plan.layer,
        word_ids=plan.word_ids if plan.task.template.kind == "masked" else None,
        recompute=config.trainer.gradient_checkpointing,
    )
    if config.trainer.compile:
        split.above.compile(dynamic=True)
    start = vocabulary_start(split, prompt.length) if prompt.init == "vocab" else None
    generator = build_generator(
        prompt.kind,
        hidden_size=split.hidden_size,
        length=prompt.length,
        bottleneck=prompt.bottleneck,
        init=start,
    )
    rate = prompt.dropout if prompt.dropout is not None else plan.backbone.hidden_dropout
    return LatePrompt(split, generator, prompt_dropout=rate, frozen_dropout=model.dropout), identity


def precompute_hidden_states(
    config: Config,
    plan: Plan,
    trainer: Trainer,
    model: LatePrompt,
    identity: BackboneIdentity,
    data: LatePromptData,
) -> dict[str, Any]:
    """Compute once what the frozen lower stack says of every example, unless that is no use.

    Returns:
        Which sets are cached, the seconds it took, and why not, for metrics.json.
    """
    cache = config.cache
    why_not = reason_not_to_cache(config, plan.layer)
    if cache.mode == "off" or why_not:
        if why_not:
            logger.info("Hidden states are not kept: %s.", why_not)
        return {"sets": [], "seconds": 0.0, "why_not": why_not or "cache.mode=off"}
    started = time.perf_counter()
    folder = Path(cache.dir) if cache.dir is not None else cache_dir("hidden")
    split = model.split
    recipe = CacheKey(
        weights=identity.fingerprint,
        layer=plan.layer,
        dtype=config.model.dtype,
        precision=config.trainer.precision,
        attention=str(split.config._attn_implementation),
        tokens="",
        device=trainer.strategy.root_device.type,
        versions=f"torch {torch.__version__}, transformers {transformers.__version__}",
    )
    title = f"{plan.task.name}, {config.model.name}"
    store = HiddenCache(folder, int(cache.max_gb * 1e9))
    why_not = precompute(
        split,
        data,
        trainer,
        store,
        recipe=recipe,
        title=title,
        layers=cache.layers,
        skip=_not_worth_reading(config, plan),
    )
    if why_not and cache.mode == "on":
        raise config_error(
            "cache.mode", f"on, but hidden states cannot be kept: {why_not}", "auto or off"
        )
    if why_not:
        logger.warning("Hidden states are not kept: %s", why_not)
    elif cache.release_lower:
        split.release_lower()
    data.use_hidden(
        load_into_memory(data.hidden, int(cache.memory_gb * 1e9), trainer.strategy.root_device)
    )
    seconds = time.perf_counter() - started
    return {"sets": sorted(data.hidden), "seconds": seconds, "why_not": why_not}


def _not_worth_reading(config: Config, plan: Plan) -> dict[str, str]:
    """A training set of which the run sees little; a larger part is read, for the runs to come."""
    trainer, strategy = config.trainer, config.strategy
    if config.cache.mode == "on" or config.cache.layers or trainer.max_steps is None:
        return {}
    processes = strategy.devices * strategy.num_nodes
    batches = trainer.max_steps * trainer.accumulate_grad_batches * processes
    seen, size = batches * config.data.batch_size, len(plan.splits.train)
    if seen >= size * _WORTH_READING:
        return {}
    return {"train": f"training sees {seen:,} of {size:,} examples (cache.mode=on reads them all)"}


def load_into_memory(
    hidden: Mapping[str, Tensor], max_bytes: int, device: torch.device
) -> Mapping[str, Tensor]:
    """Hidden states in memory, on the GPU if training is there, set by set as far as they fit."""
    placed = dict(hidden)
    for name in sorted(placed, key=lambda name: name != "train"):  # read in every epoch: first
        if placed[name].nbytes > max_bytes:
            continue
        max_bytes -= placed[name].nbytes
        try:
            placed[name] = placed[name].to(device, copy=True)
        except torch.OutOfMemoryError:
            logger.warning("No room on the GPU for hidden states: they are sent batch by batch.")
            break
    return placed


def build_module(config: Config, plan: Plan, model: LatePrompt) -> LatePromptModule:
    """The Lightning module around the model."""
    optim = config.optim
    return LatePromptModule(
        model,
        LabelScorer(plan.backbone.family.kind, plan.word_ids, plan.task.value_range),
        evaluator=plan.evaluator,
        loss=plan.loss,
        lr=optim.lr,
        weight_decay=optim.weight_decay,
        warmup_ratio=optim.warmup_ratio,
        schedule=optim.schedule,
        eps=optim.eps,
    )


def _absolute(arguments: dict[str, Any]) -> dict[str, Any]:
    """With a local path that is good from any directory."""
    path = arguments["path"]
    if path is not None and Path(path).is_dir():
        return {**arguments, "path": str(Path(path).resolve())}
    return arguments
