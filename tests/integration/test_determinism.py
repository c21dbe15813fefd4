"""Same seed, same machine: the same bits, whoever starts the run and however batches are made."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lpt.experiment import run
from tests.conftest import CONF, compose_run, toy_overrides
from tests.support.outcomes import assert_same, weights

DROPOUT = ("prompt.dropout=0.2", "model.dropout=above", "trainer.max_steps=6")
Again = Callable[..., Path]


@pytest.fixture(scope="module", params=["masked", "causal"])
def settings(
    request: pytest.FixtureRequest, checkpoints: dict[str, Path], toy_data: Path
) -> list[str]:
    """A run with dropout of every kind."""
    return [*toy_overrides(checkpoints, toy_data, request.param), *DROPOUT]


@pytest.fixture(scope="module")
def whole(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a first run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(compose_run(*settings, f"run_dir={folder}"))
    return folder


@pytest.fixture
def again(settings: list[str], tmp_path: Path) -> Again:
    """Run it once more."""

    def start(*overrides: str) -> Path:
        folder = tmp_path / "run"
        run(compose_run(*settings, *overrides, f"run_dir={folder}"))
        return folder

    return start


@pytest.mark.parametrize(
    "override",
    ["seed=13", "data.num_workers=2", "trainer.deterministic=true", "logger=[csv,tensorboard]"],
)
def test_in_one_process(whole: Path, again: Again, override: str) -> None:
    assert_same(again(override), whole, in_settings=override == "seed=13")


@pytest.mark.slow
def test_in_two_processes(settings: list[str], whole: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(CONF.parent / "train.py"), *settings, "run_dir=run"]
    threads = {"OMP_NUM_THREADS": "1"}  # as here: more would add in another order
    subprocess.run(command, check=True, cwd=tmp_path, env=os.environ | threads)
    assert_same(tmp_path / "run", whole)


def test_another_seed_is_another_run(whole: Path, again: Again) -> None:
    here, there = weights(again("seed=14")), weights(whole)
    assert any(not here[name].equal(there[name]) for name in here)
