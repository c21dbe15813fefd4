"""A tracker that fails half-way costs its curves; the run and its results are as without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wandb
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lpt.experiment import run
from tests.conftest import BeforeStep, MakeConfig, toy_overrides
from tests.support.faulty import kill_wandb
from tests.support.outcomes import assert_same
from tests.support.ranked import result, started, told
from tests.support.wandb_files import OfflineRun

LENGTH = ("trainer.max_steps=12", "trainer.eval_every_steps=3", "seed=5", "prompt.dropout=0.2")
OFFLINE = ("logger=[csv,wandb]", "logger.wandb.mode=offline")
Tracked = Callable[..., Path]


@pytest.fixture
def tracked(toy: MakeConfig, tmp_path: Path) -> Tracked:
    """A run in a folder of that name."""

    def make(name: str, *overrides: str) -> Path:
        run(toy("masked", *LENGTH, f"run_dir={tmp_path / name}", *overrides))
        return tmp_path / name

    return make


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Those of the trackers."""
    named = [r for r in caplog.records if r.name.endswith("tracking") and r.levelname == "WARNING"]
    return [record.getMessage() for record in named]


def given_up(tracker: str, reason: str) -> str:
    return f"The tracker {tracker} fails and gets nothing more; the run goes on ({reason})."


@pytest.mark.parametrize(
    ("tracker", "name"), [(CSVLogger, "Csv"), (TensorBoardLogger, "TensorBoard")]
)
def test_a_disk_or_server_that_refuses(
    tracked: Tracked,
    before_step: BeforeStep,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tracker: type,
    name: str,
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to host")

    whole = tracked("whole")
    before_step(4, lambda: monkeypatch.setattr(tracker, "log_metrics", refuse))
    broken = tracked("broken", "logger=[csv,tensorboard]")
    assert warnings_of(caplog) == [given_up(name, "ConnectionError: no route to host")]
    assert_same(broken, whole, in_curves=tracker is not CSVLogger)


@pytest.mark.parametrize(
    "error",
    [
        wandb.errors.CommError("the service is gone"),
        BrokenPipeError(32, "Broken pipe"),
        RuntimeError("anything"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.usefixtures("wandb_home")
def test_wandb_that_refuses_a_point(
    tracked: Tracked,
    before_step: BeforeStep,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    whole = tracked("whole")
    before_step(4, lambda: monkeypatch.setattr(wandb.run, "log", refuse))
    broken = tracked("broken", *OFFLINE)
    assert warnings_of(caplog) == [given_up("Wandb", f"{type(error).__name__}: {error}")]
    assert wandb.run is None
    found = OfflineRun(broken / "wandb")
    assert [step for step, _ in found.curve("dev/accuracy")] == [2]  # what came before
    assert found.exit_code == 0
    assert_same(broken, whole)


@pytest.mark.usefixtures("wandb_home")
def test_the_service_of_wandb_that_is_killed(
    tracked: Tracked, before_step: BeforeStep, caplog: pytest.LogCaptureFixture
) -> None:
    """The next run of the process is tracked again, and the process ends without a word of it."""
    whole = tracked("whole")
    before_step(4, kill_wandb)
    broken = tracked("broken", *OFFLINE)
    first, *rest = warnings_of(caplog)
    assert first.startswith("The tracker Wandb fails and gets nothing more; the run goes on (")
    assert [line.partition("(")[0] for line in rest] == ["Could not send the last records to W&B "]
    assert_same(broken, whole)
    caplog.clear()
    again = tracked("again", *OFFLINE)
    assert warnings_of(caplog) == []
    assert OfflineRun(again / "wandb").exit_code == 0


@pytest.mark.slow
@pytest.mark.usefixtures("wandb_home")
def test_a_command_whose_service_is_killed_ends_well(
    checkpoints: dict[str, Path], toy_data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "output.txt"
    more = (*LENGTH, *OFFLINE, f"run_dir={tmp_path / 'run'}")
    given = [*toy_overrides(checkpoints, toy_data, "masked"), *more]
    with started(given, output, {"FAULT": "0 training_step kill-wandb"}) as process:
        assert result(process, output) == 0
    assert "met at" in told(output)
    assert told(output).count("gets nothing more; the run goes on") == 1
    assert "Traceback" not in told(output)
    assert (tmp_path / "run" / "metrics.json").exists()
