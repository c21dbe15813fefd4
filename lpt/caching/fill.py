"""What a run does with the cache: fill it, hold it in memory, release the lower stack."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
import transformers
from lightning import Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lpt.caching.entry import CacheKey, SetLayer
from lpt.caching.policy import reads_final_state, reason_not_to_cache, sets_to_skip
from lpt.caching.precompute import HiddenStatePrecomputer
from lpt.caching.store import HiddenCache
from lpt.config.schema import Config
from lpt.data.datamodule import TaskDataModule
from lpt.errors import config_error
from lpt.files import GB, cache_dir
from lpt.models.backbone import attention_implementation
from lpt.models.split import SplitModel
from lpt.runs.record import CacheRecord

logger = logging.getLogger(__name__)


def cache_hidden_states(
    config: Config, trainer: Trainer, split: SplitModel, data: TaskDataModule, fingerprint: str
) -> CacheRecord:
    """Compute the hidden states of all sets once, unless the policy says otherwise.

    Args:
        config: Configuration of the run.
        trainer: Its devices share the work.
        split: The model; if everything is cached, its lower stack is released.
        data: The sets; receives the hidden states.
        fingerprint: Fingerprint of the backbone's weights.

    Returns:
        The sets whose hidden states are cached, and why others are not.

    Raises:
        ConfigError: `cache.mode=on`, but not everything can be cached.
    """
    cache = config.cache
    reason = "cache.mode=off" if cache.mode == "off" else reason_not_to_cache(config, split.layer)
    if reason:
        logger.info("Hidden states are not cached: %s.", reason)
        return CacheRecord(sets=[], reason=reason)
    folder = Path(cache.dir) if cache.dir is not None else cache_dir("hidden")
    own = [split.layer] if split.layer > 1 else []  # layers whose input the run itself reads
    last = split.config.num_hidden_layers + 1
    if reads_final_state(config):
        own.append(last)
    layers = dict.fromkeys((*own, *config.cache.layers))  # the run's own first
    precomputer = HiddenStatePrecomputer(
        split,
        data.packed,
        config.data.eval_batch_size,
        HiddenCache(folder, max_bytes=int(cache.max_gb * GB)),
        hidden_state_keys(config, trainer, split, data, fingerprint, layers),
        f"{config.task.name}, {config.model.name}",
        sets_to_skip(config, len(data.splits.sets["train"])),
    )
    with isolate_rng():  # filling the cache must not change the training that follows
        hidden = precomputer.compute(trainer)
    reason = _explain_missing(precomputer, hidden, own)
    if reason and cache.mode == "on":
        given = f"on, but hidden states cannot be cached: {reason}"
        raise config_error("cache.mode", given, "auto or off")
    if reason:
        logger.warning("Hidden states are not cached: %s", reason)
    elif cache.release_lower and split.layer > 1:
        split.release_lower()
    inputs = {
        layer: {name.set: states for name, states in hidden.items() if name.layer == layer}
        for layer in own
    }
    device = trainer.strategy.root_device
    if split.layer in inputs:
        data.hidden = load_into_memory(inputs[split.layer], int(cache.memory_gb * GB), device)
    if reads_final_state(config):
        data.final = inputs[last]
    return CacheRecord(sets=sorted(set.intersection(*map(set, inputs.values()))), reason=reason)


def load_into_memory(
    hidden: Mapping[str, Tensor], max_bytes: int, device: torch.device
) -> dict[str, Tensor]:
    """Copy hidden states to the training device, whole sets up to `max_bytes`, train first.

    The rest stays memory-mapped.
    """
    loaded = dict(hidden)
    for name in sorted(loaded, key=lambda name: name != "train"):  # train is read in every epoch
        if loaded[name].nbytes > max_bytes:
            continue
        max_bytes -= loaded[name].nbytes
        loaded[name] = loaded[name].to(device, copy=True)
    return loaded


def hidden_state_keys(
    config: Config,
    trainer: Trainer,
    split: SplitModel,
    data: TaskDataModule,
    fingerprint: str,
    layers: Iterable[int],
) -> dict[SetLayer, CacheKey]:
    """The key of every set, of one layer after the other."""
    digests = {name: packed.digest() for name, packed in data.packed.items()}
    return {
        SetLayer(name, layer): CacheKey(
            fingerprint=fingerprint,
            layer=layer,
            tokens=digest,
            shape=(data.packed[name].num_tokens, split.hidden_size),
            dtype=config.model.dtype,  # type: ignore[arg-type]  # one of its choices
            precision=config.trainer.precision,
            attention=attention_implementation(split.config),
            device=trainer.strategy.root_device.type,
            versions=f"torch {torch.__version__}, transformers {transformers.__version__}",
        )
        for layer in layers
        for name, digest in digests.items()
    }


def _explain_missing(
    precomputer: HiddenStatePrecomputer, hidden: Mapping[SetLayer, Tensor], own: Sequence[int]
) -> str | None:
    """Why hidden states of the run's own layers are missing; of other layers this is logged."""
    reasons: list[str] = []
    for name in sorted(precomputer.keys.keys() - hidden.keys()):
        reason = precomputer.reasons.get(precomputer.keys[name], "removed by another process")
        if name.layer in own:
            reasons.append(f"{name.set}: {reason}")
        else:
            logger.warning("Layer %d of %s is not cached: %s", name.layer, name.set, reason)
    return "; ".join(reasons) or None
