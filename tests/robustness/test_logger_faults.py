"""A logger that fails during a run costs its curves; the run and its results are as without it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lpt.experiment import run
from tests.conftest import BeforeStep, MakeConfig, toy_overrides
from tests.support.outcomes import assert_same
from tests.support.ranked import children, started
from tests.support.wandb_files import OfflineRun

LENGTH = ("trainer.max_steps=12", "trainer.eval_every_steps=3", "seed=5", "prompt.dropout=0.2")
OFFLINE = ("logger=[csv,wandb]", "logger.wandb.mode=offline")
Train = Callable[..., Path]


@pytest.fixture
def train(toy: MakeConfig, tmp_path: Path) -> Train:
    """A run in a folder of that name."""

    def train(name: str, *overrides: str) -> Path:
        run(toy("masked", *LENGTH, f"run_dir={tmp_path / name}", *overrides))
        return tmp_path / name

    return train


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("lpt.tracking") and record.levelname == "WARNING"
    ]


def disabled(name: str, reason: str) -> str:
    return f"Logger {name} failed and is disabled for the rest of the run ({reason})."


def kill_wandb(pid: int) -> None:
    """Kill the W&B service, a child of that process."""
    services = [
        child for child in children(pid) if b"wandb" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    assert services
    for service in services:
        os.kill(service, signal.SIGKILL)


def refuse(*_: Any, **__: Any) -> None:
    raise ConnectionError("no route to host")


@pytest.mark.parametrize("kind", [CSVLogger, TensorBoardLogger])
def test_a_disk_or_server_that_refuses(
    train: Train,
    before_step: BeforeStep,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: type,
) -> None:
    whole = train("whole")
    before_step(4, lambda: monkeypatch.setattr(kind, "log_metrics", refuse))
    broken = train("broken", "logger=[csv,tensorboard]")
    assert warnings_of(caplog) == [disabled(kind.__name__, "ConnectionError: no route to host")]
    assert_same(broken, whole, in_curves=kind is not CSVLogger)


@pytest.mark.usefixtures("wandb_home")
def test_the_service_of_wandb_that_is_killed(
    train: Train, before_step: BeforeStep, caplog: pytest.LogCaptureFixture
) -> None:
    """The next run of the process is logged again."""
    whole = train("whole")
    before_step(4, lambda: kill_wandb(os.getpid()))
    broken = train("broken", *OFFLINE)
    first, *rest = warnings_of(caplog)
    assert first.startswith("Logger WandbLogger failed and is disabled for the rest of the run (")
    assert [line.partition("(")[0] for line in rest] == ["Could not send the last records to W&B "]
    assert_same(broken, whole)
    caplog.clear()
    again = train("again", *OFFLINE)
    assert warnings_of(caplog) == []
    assert OfflineRun(again / "wandb").exit_code == 0


@pytest.mark.slow
@pytest.mark.usefixtures("wandb_home")
def test_a_command_whose_service_is_killed_ends_well(
    checkpoints: dict[str, Path], toy_data: Path, tmp_path: Path
) -> None:
    more = (*LENGTH, *OFFLINE, "trainer.max_steps=300", f"run_dir={tmp_path / 'run'}")
    arguments = [*toy_overrides(checkpoints, toy_data, "masked"), *more]
    with started(arguments, tmp_path / "output.txt") as command:
        command.wait_for_evaluation()
        kill_wandb(command.process.pid)
        assert command.end() == 0
    assert command.text.count("failed and is disabled") == 1
    assert "Traceback" not in command.text
    assert (tmp_path / "run" / "metrics.json").exists()
