"""API keys and tokens appear in no file, output or logger of a run or sweep."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lpt.experiment import run
from tests.conftest import CONF, BeforeStep, MakeConfig, toy_overrides
from tests.support.keys import KEYS, holders, set_keys

TRACKED = ("logger=[csv,tensorboard,wandb]", "logger.wandb.mode=offline")


@pytest.fixture(autouse=True)
def _keys(wandb_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    set_keys(monkeypatch)


def assert_unseen(folder: Path, *printed: str) -> None:
    assert holders(folder) == []
    assert [name for name, key in KEYS.items() if key in "".join(printed)] == []


def test_a_key_that_is_written_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text(f"token {KEYS['HF_TOKEN']}.")
    assert holders(tmp_path) == [("HF_TOKEN", str(tmp_path / "log.txt"))]


def test_a_run(toy: MakeConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(toy("masked", *TRACKED))
    assert_unseen(tmp_path, *capfd.readouterr())
    assert list((tmp_path / "run").glob("wandb/offline-run-*/*.wandb"))


def test_a_run_that_fails(
    toy: MakeConfig,
    tmp_path: Path,
    before_step: BeforeStep,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise KeyError("of somebody's code")

    before_step(2, fail)
    with pytest.raises(KeyError):
        run(toy("masked", *TRACKED))
    assert_unseen(tmp_path, *capfd.readouterr())
    assert "in fail\n" in (tmp_path / "run" / "log.txt").read_text()  # the whole traceback


def test_a_sweep(checkpoints: dict[str, Path], toy_data: Path, tmp_path: Path) -> None:
    """One of its two jobs fails; what each of them prints lies in its folder."""
    folder = tmp_path / "sweep"
    given = [*toy_overrides(checkpoints, toy_data, "masked"), *TRACKED, f"sweep.dir={folder}"]
    done = subprocess.run(
        [sys.executable, str(CONF.parent / "sweep.py"), "sweep=grid", "optim.lr=0.01,1e30", *given],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert_unseen(tmp_path, done.stdout, done.stderr)
    assert len(list(folder.glob("jobs/*/wandb/offline-run-*/*.wandb"))) == 2
    assert len(list(folder.glob("jobs/*/metrics.json"))) == 1
