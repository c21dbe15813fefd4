"""Label scores of causal models, whose labels share a context."""

from __future__ import annotations

import pytest
import torch

from lpt.models.families import FAMILIES
from tests.support.label_parts import scores_together_and_alone
from tests.support.late_prompts import tiny_late_prompt


@pytest.mark.parametrize("family", [n for n, family in FAMILIES.items() if family.kind == "causal"])
@pytest.mark.parametrize("tuned", [False, True])
@pytest.mark.parametrize("attention", [None, "eager"])
def test_labels_that_share_a_context_score_as_if_alone(
    family: str, tuned: bool, attention: str | None
) -> None:
    """With texts longer than the sliding windows of the tiny models."""
    model = tiny_late_prompt(family, layer=3, attention=attention)
    scores, alone = scores_together_and_alone(model, tuned=tuned)
    torch.testing.assert_close(scores, alone, atol=1e-5, rtol=1e-5)
    assert scores.std() > 0.1
