"""How the time of a step grows with the prompt layer and the length of the text.

One process and one model, without a trainer.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from transformers import AutoModelForMaskedLM, PreTrainedModel

from bench.baselines import PeftLora
from bench.clock import synchronize
from bench.synthetic import make_batch
from lpt.methods.late_prompt import LatePrompt
from lpt.models.generators import build_generator
from lpt.models.scoring import sequence_losses
from lpt.models.split import SplitModel

_ROWS = 8
_TOKENS = 32
_LENGTHS = (16, 32, 64, 128)
_REPEATS = 3


def measure_growth(
    folder: Path, device: str, late_vectors: int, input_vectors: int
) -> dict[str, Any]:
    """Seconds per step by layer, at 32 tokens, and by length, at the middle layer.

    Args:
        folder: Checkpoint of a masked language model.
        device: `cpu` or `cuda`.
        late_vectors: Prompt vectors of late prompts.
        input_vectors: Prompt vectors at the input.

    Returns:
        `layers` and `lengths`, each a list of points.
    """
    dtype = torch.bfloat16 if device == "cuda" else torch.float32

    def load() -> PreTrainedModel:
        return AutoModelForMaskedLM.from_pretrained(folder, dtype=dtype).to(device)

    model = load()
    depth = model.config.num_hidden_layers
    middle = depth // 2 + 1
    layers = sorted({2, max(2, depth // 4), middle, max(2, 3 * depth // 4), depth})
    late = {layer: _late(model, layer, "npg", late_vectors).to(device) for layer in layers}
    at_input = _late(model, 1, "static", input_vectors).to(device)
    lora = PeftLora(load()).to(device).eval()
    steps: dict[tuple[str, Any], Callable[[], None]] = {}
    for layer in layers:
        steps["layer", layer] = _step(late[layer], _TOKENS, cached=True)
    for tokens in _LENGTHS:
        steps["LPT, cached", tokens] = _step(late[middle], tokens, cached=True)
        steps["LPT, uncached", tokens] = _step(late[middle], tokens, cached=False)
        steps["prompt at the input", tokens] = _step(at_input, tokens, cached=False)
        steps["LoRA, r = 8", tokens] = _lora_step(lora, device, tokens)
    points = [(*key, seconds) for key, seconds in _time_in_turns(steps, device).items()]
    return {
        "rows": _ROWS,
        "tokens": _TOKENS,
        "layers": [{"layer": x, "seconds": s} for what, x, s in points if what == "layer"],
        "lengths": [
            {"method": what, "tokens": x, "seconds": s} for what, x, s in points if what != "layer"
        ],
    }


def _time_in_turns(
    steps: dict[tuple[str, Any], Callable[[], None]], device: str
) -> dict[tuple[str, Any], float]:
    """Median seconds of each step."""
    seen: dict[tuple[str, Any], list[float]] = {key: [] for key in steps}
    for _ in track(range(_REPEATS), "growth"):
        for key, step in steps.items():
            synchronize(device)
            started = time.perf_counter()
            step()
            synchronize(device)
            seen[key].append(time.perf_counter() - started)
    return {key: statistics.median(times) for key, times in seen.items()}


def _late(model: PreTrainedModel, layer: int, kind: str, length: int) -> LatePrompt:
    split = SplitModel(model, layer)
    bottleneck = None if kind == "static" else 128
    generator = build_generator(
        kind, hidden_size=split.hidden_size, length=length, bottleneck=bottleneck
    )
    return LatePrompt(split, generator, frozen_dropout="none").train()


def _step(model: LatePrompt, tokens: int, *, cached: bool) -> Callable[[], None]:
    device = next(model.parameters()).device
    batch = make_batch(_ROWS, tokens, str(device))
    if cached:
        shape = (_ROWS, tokens, model.split.hidden_size)
        hidden = torch.randn(shape, device=device, dtype=model.split.dtype)
        batch = batch._replace(hidden=hidden)

    def step() -> None:
        sequence_losses(model(batch), batch, _ROWS).mean().backward()
        model.zero_grad(set_to_none=True)

    return step


def _lora_step(model: PeftLora, device: str, tokens: int) -> Callable[[], None]:
    batch = make_batch(_ROWS, tokens, device)

    def step() -> None:
        model(batch).backward()
        model.zero_grad(set_to_none=True)

    return step
