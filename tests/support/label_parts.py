"""Scores of causal models for labels side by side, and for each label by itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lpt.data.batching import Collator
from lpt.data.packing import PackedTokens
from lpt.data.templates import Encoded
from lpt.methods.base import Method
from lpt.models.scoring import LabelScorer, sequence_losses


def scores_together_and_alone(model: Method, **options: Any) -> tuple[Tensor, Tensor]:
    """Scores of two labels of three examples, (3, 2), in one batch and one label at a time."""
    contexts = [[1, *range(10, 10 + n)] for n in (12, 3, 7)]
    endings = [[[30, 31, 2], [32, 2]], [[33, 2], [34, 35, 36, 2]], [[37], [38, 2]]]
    encoded = Encoded(contexts, label_parts=endings)
    packed = PackedTokens([encoded], model.split.config.pad_token_id)
    row_ids, words = [0, 1, 2], [30, 32]
    shared = Collator(packed, [0, 1, 1], row_ids, words, score_all=True)([0, 1, 2])
    alone = torch.empty(3, 2)
    with torch.no_grad():
        together = LabelScorer("causal", words)(model(shared, **options), shared)
        for label in (0, 1):
            one = Collator(packed, [label] * 3, row_ids, words, score_all=False)([0, 1, 2])
            assert one.branches is None
            alone[:, label] = -sequence_losses(model(one, **options), one, 3)
    return together, alone
