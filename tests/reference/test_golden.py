"""Loss curves against recorded ones: a change of arithmetic anywhere in the step shows here.

`python -m tests.reference.test_golden` records them anew after a change that is meant.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lpt.methods.late_prompt import LabelScorer, LatePrompt
from lpt.models.generators import build_generator
from lpt.models.split import SplitModel
from lpt.training.optim import build_optimizer, build_schedule
from tests.support.tiny import tiny_model
from tests.unit.models.test_split import batch_of, text

FILES = Path(__file__).parent / "golden"
CASES = [("roberta", "npg"), ("bert", "mppg"), ("gpt2", "appg"), ("llama", "static")]
STEPS = 12


def curve(family: str, kind: str) -> list[float]:
    """Losses of a few steps on one batch, without dropout."""
    split = SplitModel(tiny_model(family), 3)
    torch.manual_seed(5)
    generator = build_generator(kind, hidden_size=32, length=3, bottleneck=6)
    model = LatePrompt(split, generator, frozen_dropout="none").train()
    batch = batch_of(*text(split.config.pad_token_id, padded=True))
    scorer = LabelScorer(split.family.kind, [7, 8])
    optimizer = build_optimizer(model.trainable(), lr=1e-2, weight_decay=0.1, eps=1e-8)
    schedule = build_schedule(optimizer, steps=STEPS, warmup_ratio=0.25, schedule="linear")
    losses = []
    for _ in range(STEPS):
        loss = scorer.loss(model(batch), batch, "vocabulary")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def file_of(family: str, kind: str) -> Path:
    return FILES / f"{family}-{kind}.txt"


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_curve(family: str, kind: str) -> None:
    recorded = [float(line) for line in file_of(family, kind).read_text().split()]
    assert len(recorded) == STEPS
    assert recorded[-1] < recorded[0]
    assert curve(family, kind) == pytest.approx(recorded, abs=1e-4)


def record() -> None:
    """Write the curves of the code as it is."""
    FILES.mkdir(exist_ok=True)
    for family, kind in CASES:
        losses = "\n".join(f"{loss:.6f}" for loss in curve(family, kind))
        file_of(family, kind).write_text(losses + "\n")


if __name__ == "__main__":
    record()
