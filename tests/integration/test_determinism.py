"""Same seed, same machine: the same bits, whoever starts the run and however batches are made."""

from __future__ import annotations

from pathlib import Path

import pytest

from lpt.experiment import run
from tests.conftest import toy_overrides
from tests.support.configs import configured
from tests.support.outcomes import assert_same, weights
from tests.support.processes import finished

DROPOUT = ("prompt.dropout=0.2", "model.dropout=above", "trainer.max_steps=6")


@pytest.fixture(scope="module", params=["masked", "causal"])
def whole(
    request: pytest.FixtureRequest,
    checkpoints: dict[str, Path],
    toy_data: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> list[str]:
    """Overrides of a finished run with dropout of every kind, its folder last."""
    run_dir = f"run_dir={tmp_path_factory.mktemp('whole') / 'run'}"
    overrides = toy_overrides(checkpoints, toy_data, request.param, *DROPOUT, run_dir)
    run(configured(*overrides))
    return overrides


def folders(whole: list[str], tmp_path: Path, *overrides: str) -> tuple[Path, Path]:
    """Folders of the same run, started once more with these overrides, and of the first one."""
    again = tmp_path / "run"
    run(configured(*whole[:-1], *overrides, f"run_dir={again}"))
    return again, Path(whole[-1].partition("=")[2])


@pytest.mark.parametrize(
    "override",
    ["seed=13", "data.num_workers=2", "trainer.deterministic=true", "logger=[csv,tensorboard]"],
)
def test_in_one_process(whole: list[str], tmp_path: Path, override: str) -> None:
    assert_same(*folders(whole, tmp_path, override), in_settings=override == "seed=13")


@pytest.mark.slow
def test_in_two_processes(whole: list[str], tmp_path: Path) -> None:
    finished([*whole[:-1], f"run_dir={tmp_path / 'run'}"], tmp_path / "output.txt")
    assert_same(tmp_path / "run", Path(whole[-1].partition("=")[2]))


def test_another_seed_is_another_run(whole: list[str], tmp_path: Path) -> None:
    here, there = map(weights, folders(whole, tmp_path, "seed=14"))
    assert any(not here[name].equal(there[name]) for name in here)
