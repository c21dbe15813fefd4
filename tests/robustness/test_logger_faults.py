"""A logger that fails during a run costs its curves; the run and its results are as without it."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from lpt.experiment import run
from tests.conftest import BeforeStep, MakeConfig, toy_overrides
from tests.support.outcomes import assert_same
from tests.support.processes import descendants, started
from tests.support.wandb_files import OfflineRun

LENGTH = ("trainer.max_steps=12", "trainer.eval_every_steps=3", "seed=5", "prompt.dropout=0.2")
OFFLINE = ("logger=[csv,wandb]", "logger.wandb.mode=offline")
DISABLED = "Logger CSVLogger failed and is disabled for the rest of the run"
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


def kill_wandb(pid: int) -> None:
    """Kill the W&B service, a child of that process."""
    services = [
        child
        for child in descendants(pid)
        if b"wandb" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    assert services
    for service in services:
        os.kill(service, signal.SIGKILL)


def test_a_logger_that_cannot_write(
    train: Train, before_step: BeforeStep, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = train("whole")
    before_step(4, lambda: shutil.rmtree(tmp_path / "broken" / "csv"))
    broken = train("broken", "logger=[csv,tensorboard]")
    [warning] = warnings_of(caplog)
    assert warning.startswith(f"{DISABLED} (FileNotFoundError: ")
    assert_same(broken, whole, in_curves=False)


@pytest.mark.usefixtures("wandb_home")
def test_the_service_of_wandb_that_is_killed(
    train: Train, before_step: BeforeStep, caplog: pytest.LogCaptureFixture
) -> None:
    """The next run of the process is logged again."""
    whole = train("whole")
    before_step(4, lambda: kill_wandb(os.getpid()))
    broken = train("broken", *OFFLINE)
    first, *rest = warnings_of(caplog)
    assert first.startswith(f"{DISABLED.replace('CSV', 'Wandb')} (")
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
    more = (*LENGTH[1:], *OFFLINE, "trainer.max_steps=300", f"run_dir={tmp_path / 'run'}")
    arguments = toy_overrides(checkpoints, toy_data, "masked", *more)
    with started(arguments, tmp_path / "output.txt") as command:
        command.wait_for_evaluation()
        kill_wandb(command.process.pid)
        assert command.end() == 0
    assert command.text.count("failed and is disabled") == 1
    assert "Traceback" not in command.text
    assert (tmp_path / "run" / "metrics.json").exists()
