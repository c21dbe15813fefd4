"""Label scores of causal models, whose labels share a context."""

from __future__ import annotations

import pytest
import torch

from lpt.data.batching import Collator
from lpt.data.packing import PackedTokens
from lpt.data.templates import Encoded
from lpt.models.families import FAMILIES
from lpt.models.scoring import LabelScorer, sequence_losses
from tests.support.late_prompts import tiny_late_prompt


@pytest.mark.parametrize("family", [n for n, family in FAMILIES.items() if family.kind == "causal"])
@pytest.mark.parametrize("tuned", [False, True])
@pytest.mark.parametrize("attention", [None, "eager"])
def test_labels_that_share_a_context_score_as_if_alone(
    family: str, tuned: bool, attention: str | None
) -> None:
    """With texts longer than the sliding windows of the tiny models."""
    model = tiny_late_prompt(family, layer=3, attention=attention)
    contexts = [[1, *range(10, 10 + n)] for n in (12, 3, 7)]
    endings = [[[30, 31, 2], [32, 2]], [[33, 2], [34, 35, 36, 2]], [[37], [38, 2]]]
    encoded = Encoded(contexts, label_parts=endings)
    packed = PackedTokens([encoded], model.split.config.pad_token_id)
    labels, row_ids, words = [0, 1, 1], [0, 1, 2], [30, 32]
    shared = Collator(packed, labels, row_ids, words, score_all=True)([0, 1, 2])
    alone = torch.empty(3, 2)
    with torch.no_grad():
        scores = LabelScorer("causal", words)(model(shared, tuned=tuned), shared)
        for label in (0, 1):
            one = Collator(packed, [label] * 3, row_ids, words, score_all=False)([0, 1, 2])
            assert one.branches is None
            alone[:, label] = -sequence_losses(model(one, tuned=tuned), one, 3)
    torch.testing.assert_close(scores, alone, atol=1e-5, rtol=1e-5)
    assert scores.std() > 0.1
