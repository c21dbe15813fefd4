"""What the late prompt of a run does with its texts, by running the model on some of them.

Shapes: N texts, m prompt vectors (slots), D hidden size, L layers from the prompt's up, H heads.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from lpt.data.batching import Collator, eval_batches
from lpt.data.examples import UNKNOWN
from lpt.data.packing import tokenize
from lpt.data.templates import Encoder, Template
from lpt.data.verbalizer import label_word_ids
from lpt.methods.late_prompt import LatePrompt
from lpt.models.backbone import load_model
from lpt.models.inputs import Batch
from lpt.report.outcomes import Outcome
from lpt.runs.adapter import AdapterDescription, find_adapter_backbone, load_adapter
from lpt.runs.run_dir import ADAPTER

_MOST_TEXTS = 200
_BATCH = 8
_NEAREST = 5


class PromptStates(NamedTuple):
    """What a late prompt does with some texts.

    Attributes:
        layer: Its layer.
        vectors: (N, m, D).
        attention: (L, H) mean share of the attention of the scored token that goes to the prompt.
        even: The share if a token attended to all tokens alike, mean over the texts.
        words: Nearest words of the mean of each slot with their cosines, (m, ...), the closest one
            first; empty where words and hidden states have different widths.
        labels: (N,) gold label of each text.
    """

    layer: int
    vectors: np.ndarray
    attention: np.ndarray
    even: float
    words: list[list[tuple[str, float]]]
    labels: np.ndarray


@torch.no_grad()
def read_prompts(outcome: Outcome, model: str | None = None) -> PromptStates | None:
    """Run the model of a finished run on up to 200 of its examples; None without a late prompt.

    Args:
        outcome: The run and its examples.
        model: Folder or hub id of the backbone; None: as `find_adapter_backbone` finds it.

    Raises:
        ConfigError: The adapter or its backbone cannot be loaded.
    """
    folder = outcome.folder / ADAPTER
    description = AdapterDescription.read(folder)
    if description.prompt is None:
        return None
    if not sys.stderr.isatty():
        disable_progress_bar()  # of loading weights
    found = find_adapter_backbone(folder, model)
    dtype = getattr(torch, description.backbone.dtype)
    loaded = load_model(found, dtype=dtype, attention="eager")  # others keep no attention weights
    loaded.config.output_attentions = found.family.attention == "eager"
    method = load_adapter(folder, loaded)
    assert isinstance(method, LatePrompt)
    frame = outcome.frame
    if len(frame) > _MOST_TEXTS:
        frame = frame.sample(_MOST_TEXTS, random_state=0).sort_index()
    batches = _batches(description, found.tokenizer, frame)
    vectors, shares, even = zip(*(read_batch(method, batch) for batch in batches), strict=True)
    order = torch.cat([batch.row_ids for batch in batches]).argsort()
    prompts = torch.cat(vectors)[order]
    return PromptStates(
        description.layer,
        prompts.numpy(),
        torch.cat(shares).mean(0).numpy(),
        float(torch.cat(even).mean()),
        _nearest_words(method, prompts.mean(0), found.tokenizer),
        frame["label"].to_numpy(),
    )


def _batches(
    description: AdapterDescription, tokenizer: PreTrainedTokenizerBase, frame: pd.DataFrame
) -> list[Batch]:
    task = description.task
    template = Template.parse(task.template, task.kind)
    encoder = Encoder(tokenizer, template, task.label_words, task.max_length)
    packed = tokenize(encoder, {name: frame[name].tolist() for name in template.columns})
    unknown, rows = [UNKNOWN] * len(frame), range(len(frame))
    word_ids = label_word_ids(tokenizer, task.label_words, template)
    collate = Collator(packed, unknown, rows, word_ids, score_all=True)
    return [collate(examples) for examples in eval_batches(packed.row_lengths(), _BATCH)]


def read_batch(method: LatePrompt, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Prompts (B, m, D), attention to them (B, L, H), and its share if it were even (B,)."""
    split, mask = method.split, batch.attention_mask
    hidden = split.forward_lower(batch.input_ids, mask, batch.branches)
    inputs = method.upper_inputs(hidden, batch)
    prompt, rows = inputs["prompt"], torch.arange(len(hidden))
    length = prompt.shape[1]
    scored = batch.logit_positions if batch.branches is None else batch.summary_index
    shares: dict[int, Tensor] = {}

    def record(layer: int, output: Any) -> None:
        for weights in output if isinstance(output, tuple) else ():
            if isinstance(weights, Tensor) and weights.dim() == 4:  # (B, H, S, S)
                shares[layer] = weights[rows, :, length + scored, :length].sum(-1).float()

    with ExitStack() as stack:
        layers = split.upper.model.get_submodule(split.family.layers)
        for place, layer in enumerate(layers.children()):
            for module in layer.modules():
                hook = module.register_forward_hook(
                    lambda _, __, output, at=place: record(at, output)
                )
                stack.callback(hook.remove)
        split.forward_upper(hidden, mask, branches=batch.branches, **inputs)
    seen = mask.sum(1) if batch.branches is None else batch.summary_index + 1
    in_order = torch.stack([shares[layer] for layer in sorted(shares)], dim=1)
    return prompt.float(), in_order, length / (length + seen.float())


def _nearest_words(
    method: LatePrompt, vectors: Tensor, tokenizer: PreTrainedTokenizerBase
) -> list[list[tuple[str, float]]]:
    """Words with the largest cosine to each vector, (m, D)."""
    embeddings = method.split.embed(torch.arange(method.split.config.vocab_size)).float()
    if embeddings.shape[-1] != vectors.shape[-1]:
        return []
    cosines = normalize(vectors, dim=-1) @ normalize(embeddings, dim=-1).T
    found = cosines.topk(_NEAREST)
    return [
        [
            (tokenizer.decode([i]).strip() or str(tokenizer.convert_ids_to_tokens(i)), cosine)
            for i, cosine in zip(ids, values, strict=True)
        ]
        for ids, values in zip(found.indices.tolist(), found.values.tolist(), strict=True)
    ]
