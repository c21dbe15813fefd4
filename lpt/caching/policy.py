"""Which configurations cannot be cached, and which sets are not worth it.

Imports neither torch nor Lightning: configurations are checked before anything is loaded.
"""

from __future__ import annotations

from lpt.config.method_schema import READS_FINAL_STATE
from lpt.config.schema import Config, first_layer
from lpt.errors import Problems

_MIN_SHARE_SEEN = 0.25  # of the training set: below, computing all of it does not pay


def reason_not_to_cache(config: Config, layer: int | None) -> str | None:
    """Why no hidden states can be cached; None if they can.

    Args:
        config: Configuration of a run.
        layer: First layer that the method changes, if known.
    """
    if config.model.dropout == "all":
        return "model.dropout=all changes them in every step"
    if config.strategy.name == "fsdp":
        return "strategy=fsdp shards the layers that compute them"
    if layer == 1 and not reads_final_state(config):
        return "at layer 1 there is nothing below but the embeddings"
    return None


def reads_final_state(config: Config) -> bool:
    """Whether the prompt is made of final states of the unprompted model, which are cached too."""
    prompt = config.prompt if config.method.name == "late_prompt" else None
    return prompt is not None and prompt.kind in READS_FINAL_STATE


def check_cache(config: Config, num_layers: int | None, problems: Problems) -> None:
    """Check the configuration of the cache; `num_layers` of the backbone, if known."""
    reason = reason_not_to_cache(config, first_layer(config))
    if config.cache.mode == "on" and reason:
        problems.add("cache.mode", f"on, but {reason}", "auto or off")
    for layer in config.cache.layers:
        if num_layers is not None and not 2 <= layer <= num_layers:
            expected = f"2 to {num_layers} for {config.model.name}"
            problems.add("cache.layers", str(layer), expected)


def sets_to_skip(config: Config, train_size: int) -> dict[str, str]:
    """Sets that are not worth computing, and why: a training set of which a run sees little.

    With a larger share all of it is computed, for the benefit of later runs.
    """
    trainer, strategy = config.trainer, config.strategy
    if config.cache.mode == "on" or config.cache.layers or trainer.max_steps is None:
        return {}
    batch_size = config.data.batch_size * strategy.devices * strategy.num_nodes
    seen = trainer.max_steps * trainer.accumulate_grad_batches * batch_size
    if seen >= train_size * _MIN_SHARE_SEEN:
        return {}
    reason = f"training sees {seen:,} of {train_size:,} examples (cache.mode=on caches them all)"
    return {"train": reason}
