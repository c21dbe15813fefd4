"""A run warns when it does not learn, and stops when its loss or gradient is not finite."""

from __future__ import annotations

import logging
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lpt.errors import RunError
from lpt.experiment import run
from lpt.models.inputs import Batch
from lpt.models.scoring import LabelScorer
from lpt.training.module import LatePromptModule
from tests.conftest import MakeConfig
from tests.support.csv_curves import read_curves

NINE_STEPS = ("masked", "trainer.max_steps=9", "trainer.eval_every_steps=3")


def test_warns_when_nothing_is_learned(toy: MakeConfig, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        run(toy("masked", "optim.lr=1e-30"))
    assert "generator.up.weight" in caplog.text
    assert "did not move" in caplog.text
    assert re.search(r"All dev predictions are [01]: the prompt has not learned", caplog.text)


def test_warns_when_the_gradient_vanishes(
    toy: MakeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a saturated model."""
    loss = LabelScorer.loss

    def flat(*given: Any) -> Tensor:
        found = loss(*given)
        return found.detach() + (found - found.detach()) * 1e-12

    monkeypatch.setattr(LabelScorer, "loss", flat)
    with caplog.at_level(logging.WARNING):
        run(toy("masked", "trainer.max_steps=6"))
    assert caplog.text.count("The gradient vanishes: since the last evaluation its norm was") == 1


def test_a_healthy_run_is_not_warned_of(
    toy: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        run(toy("masked", "trainer.max_steps=12", "optim.lr=0.05"))
    assert not re.search("vanishes|did not move", caplog.text)
    rows = read_curves(tmp_path / "run")
    norms = [float(row["train/grad_norm"]) for row in rows if row["train/grad_norm"]]
    assert norms
    assert all(0 < norm < 1e3 for norm in norms)


@pytest.mark.parametrize(("at", "value"), [(4, float("nan")), (6, float("inf"))])
def test_a_non_finite_loss_stops_the_run(
    toy: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, value: float
) -> None:
    """In the middle of an evaluation interval, and right before an evaluation."""
    batches: list[list[int]] = []
    loss = LabelScorer.loss

    def broken(scorer: LabelScorer, logits: Tensor, batch: Batch, over: str) -> Tensor:
        batches.append(batch.row_ids.tolist())
        found = loss(scorer, logits, batch, over)
        return found * value if len(batches) == at else found

    monkeypatch.setattr(LabelScorer, "loss", broken)
    with pytest.raises(RunError, match=f"Non-finite loss .* at step {at} ") as caught:
        run(toy(*NINE_STEPS, "optim.lr=0.009", "optim.warmup_ratio=0"))
    assert f"rows {', '.join(map(str, batches[at - 1]))}." in str(caught.value)
    assert f"(learning rate {0.001 * (10 - at):.3g})" in str(caught.value)
    assert not (tmp_path / "run" / "metrics.json").exists()
    for name in ("best", "last"):
        saved = torch.load(tmp_path / "run" / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert saved["global_step"] == 3
        assert all(bool(tensor.isfinite().all()) for tensor in saved["state_dict"].values())


@pytest.mark.parametrize(("clip", "parts"), [("1.0", 1), ("null", 2)])
def test_a_non_finite_gradient_stops_the_run(
    toy: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip: str, parts: int
) -> None:
    """In the step before an evaluation, with a finite loss; all rows of the step are named."""
    rows: list[str] = []
    train, step = LatePromptModule.training_step, LatePromptModule.on_before_optimizer_step

    def noting(module: LatePromptModule, batch: Batch, index: int) -> Any:
        if module.trainer.global_step == 5:
            rows.extend(map(str, batch.row_ids.tolist()))
        return train(module, batch, index)

    def broken(module: LatePromptModule, optimizer: Any) -> None:
        if module.trainer.global_step == 5:
            next(iter(module.model.trainable().values())).grad.view(-1)[0] = float("inf")
        step(module, optimizer)

    monkeypatch.setattr(LatePromptModule, "training_step", noting)
    monkeypatch.setattr(LatePromptModule, "on_before_optimizer_step", broken)
    more = (f"optim.gradient_clip_val={clip}", f"trainer.accumulate_grad_batches={parts}")
    with pytest.raises(RunError, match=r"Non-finite gradient norm \(inf\) at step 6 ") as caught:
        run(toy(*NINE_STEPS, *more))
    assert len(rows) == 16 * parts
    assert f"rows {', '.join(rows)}." in str(caught.value)
    for file in (tmp_path / "run" / "checkpoints").iterdir():
        assert torch.load(file, weights_only=True)["global_step"] == 3


def test_a_signal_does_not_save_a_non_finite_state(
    toy: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = LatePromptModule.on_before_optimizer_step

    def broken(module: LatePromptModule, optimizer: Any) -> None:
        if module.trainer.global_step == 4:
            next(iter(module.model.trainable().values())).grad.view(-1)[0] = float("nan")
            os.kill(os.getpid(), signal.SIGTERM)
        step(module, optimizer)

    monkeypatch.setattr(LatePromptModule, "on_before_optimizer_step", broken)
    with pytest.raises(RunError, match=r"Non-finite gradient norm \(nan\) at step 5 "):
        run(toy(*NINE_STEPS))
    for file in (tmp_path / "run" / "checkpoints").iterdir():
        assert torch.load(file, weights_only=True)["global_step"] == 3
