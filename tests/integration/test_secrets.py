"""API keys and tokens appear in no file, output or logger of a run or sweep."""

from __future__ import annotations

from pathlib import Path

import pytest

from lpt.errors import FAILURE
from lpt.experiment import run
from tests.conftest import BeforeStep, MakeConfig, toy_overrides
from tests.support.keys import KEYS, holders
from tests.support.processes import SWEEP, finished

TRACKED = ("logger=[csv,tensorboard,wandb]", "logger.wandb.mode=offline")


@pytest.fixture(autouse=True)
def _keys(wandb_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, key in KEYS.items():
        monkeypatch.setenv(name, key)


def assert_unseen(folder: Path, *printed: str) -> None:
    assert holders(folder) == []
    assert [name for name, key in KEYS.items() if key in "".join(printed)] == []


def test_a_key_that_is_written_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text(f"token {KEYS['HF_TOKEN']}.")
    assert holders(tmp_path) == [("HF_TOKEN", str(tmp_path / "log.txt"))]


def test_a_run_that_fails(
    toy: MakeConfig, tmp_path: Path, before_step: BeforeStep, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise KeyError("of somebody's code")

    before_step(2, fail)
    with pytest.raises(KeyError):
        run(toy("masked", *TRACKED))
    assert_unseen(tmp_path, *capfd.readouterr())
    assert "in fail\n" in (tmp_path / "run" / "log.txt").read_text()  # the whole traceback


def test_a_sweep(checkpoints: dict[str, Path], toy_data: Path, tmp_path: Path) -> None:
    """One of its jobs finishes and one fails; what each of them prints lies in its folder."""
    folder = tmp_path / "sweep"
    given = ("sweep=grid", "optim.lr=0.01,1e30", *TRACKED, f"sweep.dir={folder}")
    overrides = toy_overrides(checkpoints, toy_data, "masked", *given)
    finished(overrides, tmp_path / "output.txt", SWEEP, FAILURE)
    assert_unseen(tmp_path)  # what it prints is there, too
    assert len(list(folder.glob("jobs/*/wandb/offline-run-*/*.wandb"))) == 2
    assert len(list(folder.glob("jobs/*/metrics.json"))) == 1
