"""Faults during a run are reported, and what was saved before is unchanged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from lightning import Callback
from lightning.pytorch.callbacks import LambdaCallback

from lpt.config.schema import Config
from lpt.errors import ConfigError, RunError
from lpt.experiment import run
from lpt.training.checkpoints import read_checkpoint
from tests.conftest import BeforeStep, MakeConfig, toy_overrides
from tests.support.configs import configured
from tests.support.outcomes import assert_same
from tests.support.processes import no_room

LENGTH = ("trainer.max_steps=12", "trainer.eval_every_steps=3", "seed=5", "prompt.dropout=0.2")


@pytest.fixture(scope="module")
def whole(
    checkpoints: dict[str, Path], toy_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of an undisturbed run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(configured(*toy_overrides(checkpoints, toy_data, "masked", *LENGTH, f"run_dir={folder}")))
    return folder


def broken(toy: MakeConfig, tmp_path: Path, *overrides: str) -> Config:
    """The same run, in which a fault will occur."""
    return toy("masked", *LENGTH, f"run_dir={tmp_path / 'broken'}", "resume=auto", *overrides)


def unfinished(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if "unfinished" in path.name or ".tmp" in path.name]


@pytest.mark.parametrize("step", [1, 7])
def test_a_full_disk_while_a_checkpoint_is_written(
    toy: MakeConfig, tmp_path: Path, whole: Path, before_step: BeforeStep, step: int
) -> None:
    config = broken(toy, tmp_path)
    checkpoints = tmp_path / "broken" / "checkpoints"
    with no_room() as limit:
        before_step(step, lambda: limit(1 << 14))  # the log stays below
        with pytest.raises(RunError, match=r"\.ckpt: File too large.*resume=\S+broken to resume"):
            run(config)
    assert unfinished(tmp_path / "broken") == []
    steps = [read_checkpoint(file)["global_step"] for file in checkpoints.glob("*")]
    assert max(steps, default=0) == (6 if step == 7 else 0)
    assert "The run failed:" in (tmp_path / "broken" / "log.txt").read_text()
    run(config)
    assert_same(tmp_path / "broken", whole)


def test_a_full_disk_at_the_end(
    toy: MakeConfig, tmp_path: Path, whole: Path, callbacks: list[Callback]
) -> None:
    """After the training, when the test set has been predicted."""
    config = broken(toy, tmp_path)
    with no_room() as limit:
        full = LambdaCallback(on_test_end=lambda _, module: module.tuned and limit(16))
        callbacks.append(full)
        with pytest.raises(RunError, match=r"adapter\S*: File too large"):
            run(config)
    assert unfinished(tmp_path / "broken") == []
    assert not (tmp_path / "broken" / "metrics.json").exists()
    callbacks.remove(full)
    run(config)
    assert_same(tmp_path / "broken", whole)


def test_a_run_ends_when_its_folder_is_removed(
    toy: MakeConfig, tmp_path: Path, before_step: BeforeStep
) -> None:
    config = broken(toy, tmp_path)
    before_step(4, lambda: shutil.rmtree(tmp_path / "broken"))
    with pytest.raises(RunError, match="No such file or directory"):
        run(config)
    assert not (tmp_path / "broken" / "metrics.json").exists()


def test_a_run_ends_when_its_best_checkpoint_is_removed(
    toy: MakeConfig, tmp_path: Path, before_step: BeforeStep
) -> None:
    config = broken(toy, tmp_path, "optim.lr=1e-12")  # the first evaluation stays the best
    best = tmp_path / "broken" / "checkpoints" / "best.ckpt"
    before_step(10, best.unlink)
    with pytest.raises(RunError, match=r"best\.ckpt was changed or removed.*Start over"):
        run(config)
    with pytest.raises(ConfigError, match="which will be tested, is missing"):
        run(config)


WEIGHT = "model.generator.up.weight"


def test_a_checkpoint_of_another_model_is_refused(toy: MakeConfig, tmp_path: Path) -> None:
    config = broken(toy, tmp_path)
    run(config)
    (tmp_path / "broken" / "metrics.json").unlink()
    file = tmp_path / "broken" / "checkpoints" / "last.ckpt"
    state = torch.load(file, weights_only=True)
    state["state_dict"][WEIGHT] = state["state_dict"][WEIGHT][1:]
    torch.save(state, file)
    before = file.read_bytes()
    with pytest.raises(RunError, match=rf"{file} does not match this model: .*{WEIGHT}"):
        run(config)
    assert file.read_bytes() == before


def test_a_cache_removed_during_a_run_does_no_harm(
    toy: MakeConfig, tmp_path: Path, whole: Path, before_step: BeforeStep
) -> None:
    cache = tmp_path / "cache"
    before_step(4, lambda: shutil.rmtree(cache))
    metrics = run(broken(toy, tmp_path, f"cache.dir={cache}", "cache.memory_gb=0"))
    assert metrics is not None
    assert metrics.cache.sets
    assert_same(tmp_path / "broken", whole)
    assert not cache.exists()  # the open files were enough
