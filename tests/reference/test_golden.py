"""Loss curves against recorded ones: they show a change of arithmetic anywhere in the step.

`python -m tests.reference.test_golden` records them again after an intended change.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lpt.config.schema import OptimConfig
from lpt.methods.late_prompt import LatePrompt
from lpt.models.generators import build_generator
from lpt.models.scoring import LabelScorer
from lpt.models.split import SplitModel
from lpt.training.module import build_optimizer, build_schedule
from tests.support.late_prompts import padded_batch
from tests.support.tiny import tiny_model

FILES = Path(__file__).parent / "golden"
CASES = [("roberta", "npg"), ("bert", "mppg"), ("gpt2", "appg"), ("llama", "static")]
STEPS = 12


def curve(family: str, kind: str) -> list[float]:
    """Losses of a few steps on one batch, without dropout."""
    split = SplitModel(tiny_model(family), 3)
    torch.manual_seed(5)
    generator = build_generator(kind, hidden_size=32, length=3, bottleneck=6)
    model = LatePrompt(split, generator, frozen_dropout="none").train()
    batch = padded_batch(model)
    scorer = LabelScorer(split.family.kind, [7, 8])
    optim = OptimConfig(lr=1e-2, weight_decay=0.1, warmup_ratio=0.25)
    optimizer = build_optimizer(model.trainable(), optim)
    schedule = build_schedule(optimizer, optim, STEPS)
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
    """Write the curves of the current code."""
    FILES.mkdir(exist_ok=True)
    for family, kind in CASES:
        losses = "\n".join(f"{loss:.6f}" for loss in curve(family, kind))
        file_of(family, kind).write_text(losses + "\n")


if __name__ == "__main__":
    record()
