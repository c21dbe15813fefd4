"""A linear probe: a classifier on the frozen model's final state at the scored position.

    input_ids ── all layers ── final states (B,T,D) ── scored position (B,D) ── linear (B,labels)

Shapes: B rows, T tokens, D hidden size.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lpt.methods.base import Method
from lpt.models.inputs import Batch
from lpt.models.scoring import LabelScorer
from lpt.models.split import SplitModel


class LinearHead(Method):
    """A language model with a linear classifier in place of its head.

    The label words have no part in it; of a regression, the two scores are those of the two ends.

    Args:
        split: The frozen language model, with all layers below the split.
        num_labels: Number of labels.
    """

    def __init__(self, split: SplitModel, num_labels: int) -> None:
        width = getattr(split.config, "word_embed_proj_dim", split.hidden_size)  # opt's
        classifier = nn.Linear(width, num_labels)
        for parameter in classifier.parameters():  # the loss is convex
            nn.init.zeros_(parameter)
        super().__init__(split, {f"classifier.{n}": p for n, p in classifier.named_parameters()})
        self.classifier = classifier

    def scorer(self, plain: LabelScorer) -> LabelScorer:
        """The logits are the scores."""
        return replace(plain, kind="masked")

    def forward(self, batch: Batch, *, tuned: bool = True, **options: Any) -> Tensor:
        """Scores of the labels in float32, (B, labels); those of the language model if not tuned.

        The scored position is the mask, or the last token of the context.
        """
        if not tuned:
            return super().forward(batch, tuned=False, **options)
        rows = torch.arange(len(batch.input_ids), device=batch.input_ids.device)
        first = torch.searchsorted(batch.logit_rows, rows)  # of each row's logit positions
        final = self.final_states(batch, (rows, batch.logit_positions[first]))
        return self.classifier(final.float())
