"""A run warns of a collapse, and stops when its loss or gradient is not finite."""

from __future__ import annotations

import logging
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback

from lpt.errors import RunError
from lpt.experiment import run
from lpt.models.inputs import Batch
from tests.conftest import BeforeStep, MakeConfig
from tests.support.outcomes import curve

NINE_STEPS = ("masked", "trainer.max_steps=9", "trainer.eval_every_steps=3")


def test_warns_when_all_predictions_are_the_same(
    toy: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        run(toy("masked", "optim.lr=1e-30"))
    assert len(re.findall(r"All dev predictions are [01]: the model has not", caplog.text)) == 1


def test_gradient_norms_are_logged(toy: MakeConfig, tmp_path: Path) -> None:
    run(toy("masked", "trainer.max_steps=12", "optim.lr=0.05"))
    norms = curve(tmp_path / "run", "train/grad_norm")
    assert norms
    assert all(0 < norm < 1e3 for norm in norms.values())


class Spoiler(Callback):
    """Makes the loss or the gradient of a step non-finite; `rows` are those of the step."""

    def __init__(self, step: int, value: float, part: str) -> None:
        self.step, self.value, self.part = step, value, part
        self.rows: list[str] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, _: int) -> None:
        if trainer.global_step + 1 == self.step:
            self.rows += map(str, batch.row_ids.tolist())
            if self.part == "loss":
                with torch.no_grad():
                    pl_module.model.generator.up.bias.fill_(self.value)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, _: Any) -> None:
        if trainer.global_step + 1 == self.step and self.part == "gradient norm":
            pl_module.model.generator.up.bias.grad[0] = self.value


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("part", "step", "value", "overrides"),
    [
        ("loss", 4, NAN, ()),  # in the middle of an evaluation interval
        ("loss", 6, INF, ()),  # right before an evaluation
        ("gradient norm", 6, INF, ("optim.gradient_clip_val=1.0",)),  # with a finite loss
        (
            *("gradient norm", 6, INF),
            ("optim.gradient_clip_val=null", "trainer.accumulate_grad_batches=2"),
        ),
    ],
)
def test_a_non_finite_value_stops_the_run(
    *,
    toy: MakeConfig,
    tmp_path: Path,
    callbacks: list[Callback],
    part: str,
    step: int,
    value: float,
    overrides: tuple[str, ...],
) -> None:
    """The message names the step, its learning rate and all of its rows."""
    spoiler = Spoiler(step, value, part)
    callbacks.append(spoiler)
    with pytest.raises(RunError, match=rf"Non-finite {part} \(\w+\) at step {step} ") as caught:
        run(toy(*NINE_STEPS, "optim.lr=0.009", "optim.warmup_ratio=0", *overrides))
    assert len(spoiler.rows) == 16 * (1 + ("trainer.accumulate_grad_batches=2" in overrides))
    assert f"rows {', '.join(spoiler.rows)}." in str(caught.value)
    assert f"(learning rate {0.001 * (10 - step):.3g})" in str(caught.value)
    assert not (tmp_path / "run" / "metrics.json").exists()
    assert_saved(tmp_path / "run", 3)


def assert_saved(run_dir: Path, step: int) -> None:
    """Assert that both checkpoints are of that step, with finite weights."""
    for name in ("best", "last"):
        saved = torch.load(run_dir / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert saved["global_step"] == step
        assert all(bool(tensor.isfinite().all()) for tensor in saved["state_dict"].values())


def test_a_signal_does_not_save_a_non_finite_state(
    toy: MakeConfig, tmp_path: Path, callbacks: list[Callback], before_step: BeforeStep
) -> None:
    callbacks.append(Spoiler(5, NAN, "gradient norm"))
    before_step(4, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(RunError, match=r"Non-finite gradient norm \(nan\) at step 5 "):
        run(toy(*NINE_STEPS))
    assert_saved(tmp_path / "run", 3)
