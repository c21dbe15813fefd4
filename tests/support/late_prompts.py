"""Late prompts in tiny models, and batches for them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lpt.methods.late_prompt import LatePrompt
from lpt.models.generators import PromptGenerator, build_generator
from lpt.models.inputs import Batch
from lpt.models.split import SplitModel
from tests.support.configs import configured
from tests.support.tiny import tiny_model

LAYERS = 4


def make_text(pad_id: int, *, padded: bool) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, (3, 20) each."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 120, (3, 20), generator=generator)
    mask = torch.ones_like(ids)
    if padded:
        mask[1, 12:] = 0
        mask[2, 5:] = 0
        ids = ids.masked_fill(mask == 0, pad_id)
    return ids, mask


def make_batch(ids: Tensor, mask: Tensor) -> Batch:
    """One logit position in each row: the last real token."""
    size, lengths = len(ids), mask.sum(1)
    return Batch(
        input_ids=ids,
        attention_mask=mask,
        summary_index=lengths - 2,
        pool_length=lengths - 1,
        logit_rows=torch.arange(size),
        logit_positions=lengths - 1,
        target_to_logit=torch.arange(size),
        targets=torch.arange(size) + 7,
        sequences=torch.arange(size),
        labels=torch.zeros(size, dtype=torch.long),
        row_ids=torch.arange(size),
    )


def padded_batch(model: LatePrompt) -> Batch:
    """A padded batch for a model."""
    return make_batch(*make_text(model.split.config.pad_token_id, padded=True))


def tiny_late_prompt(
    family: str,
    layer: int,
    kind: str = "npg",
    *,
    attention: str | None = None,
    gradient_checkpointing: bool = False,
    dropout: str = "above",
    further: Sequence[int] = (),
) -> LatePrompt:
    """Three prompt vectors in a random model of four layers, in eval mode."""
    model = tiny_model(family)
    if attention is not None:
        model.set_attn_implementation(attention)
    split = SplitModel(model, layer, further=further, gradient_checkpointing=gradient_checkpointing)
    torch.manual_seed(2)
    generator = tiny_generator(kind)
    more = {number: tiny_generator(kind) for number in further}
    return LatePrompt(split, generator, more, frozen_dropout=dropout).eval()


def tiny_generator(kind: str) -> PromptGenerator:
    """A generator of three vectors, with the hyperparameters of its configuration."""
    prompt = configured(f"prompt={kind}").prompt
    assert prompt is not None
    return build_generator(kind, hidden_size=32, length=3, bottleneck=16, args=prompt.args)
