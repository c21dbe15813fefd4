"""Gradient accumulation: the step of all examples of its batches, however they are divided."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from lpt.experiment import run
from tests.conftest import MakeConfig, toy_overrides
from tests.support.outcomes import curve
from tests.support.processes import finished

PLAIN = (
    "optim.eps=1e-3",  # a tiny gradient is not blown up to a whole step
    "model.dropout=none",
    "prompt.dropout=0",
    "data.bucketing=false",
    "data.limit_train=10",
)
ONE_STEP = ("trainer.max_steps=1", "trainer.eval_every_steps=1")
EPOCHS = (
    *("trainer=epochs", "trainer.max_epochs=3", "trainer.eval_every_epochs=1"),
    *("trainer.max_steps=null", "trainer.eval_every_steps=null"),
)


def divided(batch_size: int, accumulate: int) -> tuple[str, str]:
    return f"data.batch_size={batch_size}", f"trainer.accumulate_grad_batches={accumulate}"


def trained(run_dir: Path) -> tuple[dict[str, torch.Tensor], list[float], list[float]]:
    """The prompt, the losses and the gradient norms of a run."""
    last = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    curves = (curve(run_dir, f"train/{name}") for name in ("loss", "grad_norm"))
    losses, norms = (list(points.values()) for points in curves)
    return last["state_dict"], losses, norms


def assert_equal_steps(run_dirs: Sequence[Path], steps: int) -> None:
    first, *others = map(trained, run_dirs)
    assert len(first[1]) == len(first[2]) == steps
    for other in others:
        torch.testing.assert_close(other, first, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model", ["masked", "causal"])
def test_the_step_of_ten_examples_is_the_same(toy: MakeConfig, tmp_path: Path, model: str) -> None:
    ways = [(10, 1), (5, 2), (4, 3), (9, 2), (1, 10)]
    folders = [tmp_path / f"{size}x{count}" for size, count in ways]
    for folder, way in zip(folders, ways, strict=True):
        run(toy(model, *PLAIN, *ONE_STEP, *divided(*way), f"run_dir={folder}"))
    assert_equal_steps(folders, 1)


def test_a_partial_last_step_of_an_epoch(toy: MakeConfig, tmp_path: Path) -> None:
    """10 = 3 + 3 | 3 + 1 = 6 | 4, and 4 + 4 + 2 with room for more."""
    for name, ways in {"two": [(6, 1), (3, 2), (2, 3)], "one": [(10, 1), (4, 4)]}.items():
        folders = [tmp_path / name / str(size) for size, _ in ways]
        for folder, way in zip(folders, ways, strict=True):
            run(toy("masked", *EPOCHS, *PLAIN, *divided(*way), f"run_dir={folder}"))
        weights, *_ = zip(*map(trained, folders), strict=True)
        for other in weights[1:]:
            torch.testing.assert_close(other, weights[0], atol=1e-5, rtol=1e-5)


def test_two_ranks_accumulate_the_same_step(
    toy: MakeConfig, checkpoints: dict[str, Path], toy_data: Path, tmp_path: Path
) -> None:
    """10 = (2+2) + (2+2) + (1+1), also as (3+3) + (2+2); the next step has the pass after it."""
    two_steps = (*PLAIN, "trainer.max_steps=2", "trainer.eval_every_steps=1")
    run(toy("masked", *two_steps, *divided(10, 1), f"run_dir={tmp_path / 'one'}"))
    folders = [tmp_path / "one"]
    for way in ((2, 3), (3, 2)):
        folders.append(tmp_path / f"two-{way[0]}")
        more = ("strategy=ddp", "strategy.devices=2", f"run_dir={folders[-1]}")
        given = toy_overrides(checkpoints, toy_data, "masked", *two_steps, *divided(*way), *more)
        finished(given, tmp_path / "output.txt")
    assert_equal_steps(folders, 2)
