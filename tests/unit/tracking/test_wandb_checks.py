"""What W&B would refuse after the start is reported before it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import wandb

from lpt.config.schema import WandbConfig
from lpt.errors import ConfigError, Problem, Problems
from lpt.experiment import run
from lpt.tracking.wandb import check_wandb
from tests.conftest import MakeConfig

KEY = "c0ffee" * 7
pytestmark = pytest.mark.usefixtures("wandb_home")


def problems_of(mode: str | None, *, enabled: bool = True) -> list[Problem]:
    problems = Problems()
    check_wandb(WandbConfig(enabled=enabled, mode=mode), problems)
    return problems.found


def test_a_user_who_has_logged_in() -> None:
    """Whatever the default host of the installed wandb: its own login writes the key."""
    wandb.login(key=KEY, verify=False)
    wandb.teardown()  # what follows is another process
    assert problems_of(None) == []
    assert problems_of("online") == []


def test_a_key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert problems_of(None) == []


@pytest.mark.parametrize(("key", "words"), [(None, "no W&B key"), ("short", "WANDB_API_KEY")])
def test_without_a_good_key_only_offline_works(
    key: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if key is not None:
        monkeypatch.setenv("WANDB_API_KEY", key)
    for mode in (None, "online"):
        [problem] = problems_of(mode)
        assert problem.where == "logger.wandb.mode"
        assert words in problem.given
        assert "logger.wandb.mode=offline" in problem.hint
    assert problems_of("offline") == []
    assert problems_of("online", enabled=False) == []


@pytest.mark.parametrize("ambient", ["offline", "disabled"])
def test_the_mode_of_the_environment_is_the_default(
    ambient: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", ambient)
    assert problems_of(None) == []


@pytest.mark.parametrize(
    ("mode", "ambient"), [("online", "offline"), ("offline", "online"), ("online", "disabled")]
)
def test_contradictory_modes(mode: str, ambient: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", ambient)
    [problem] = problems_of(mode)
    assert problem.where == "logger.wandb.mode"
    assert ambient in problem.given
    assert "WANDB_MODE" in problem.hint


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    [problem] = problems_of("offline")
    assert "wandb" in problem.hint


def test_a_missing_key_is_reported_before_training(toy: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no W&B key"):
        run(toy("masked", "logger=wandb"))
    assert not (tmp_path / "run").exists()
