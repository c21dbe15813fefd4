"""Loggers write inside the run folder only, and leave nothing behind in the process."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import wandb
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from lpt.config.schema import LoggerConfig, WandbConfig
from lpt.tracking.loggers import Csv, TensorBoard, Wandb, build_loggers, finished_loggers

RESOLVED = {"seed": 13, "task": {"words": ["terrible", "great"]}}
OFFLINE = WandbConfig(enabled=True, mode="offline", group="sweep", tags=["late"])
WANDB_CACHE = "home/.cache/wandb/"  # its own debug logs, whatever the run
ALL = LoggerConfig(csv=True, tensorboard=True, wandb=OFFLINE)


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory and home of the test, where no logger may write."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("home", "cwd"):
        (tmp_path / "outside" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "outside" / "cwd")
    monkeypatch.setenv("HOME", str(tmp_path / "outside" / "home"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield tmp_path / "outside"
    wandb.teardown()


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("config", "kinds"),
    [
        (LoggerConfig(), []),
        (LoggerConfig(csv=True), [Csv]),
        (LoggerConfig(tensorboard=True), [TensorBoard]),
        (ALL, [Csv, TensorBoard, Wandb]),
    ],
)
@pytest.mark.usefixtures("outside")
def test_loggers_are_those_switched_on(
    config: LoggerConfig, kinds: list[type], tmp_path: Path
) -> None:
    with finished_loggers(config):
        assert [type(logger) for logger in build_loggers(config, tmp_path, {})] == kinds


def test_two_runs_in_one_process_keep_apart(outside: Path, tmp_path: Path) -> None:
    ids = []
    for name in ("first", "second"):
        run_dir = tmp_path / name
        run_dir.mkdir()
        with finished_loggers(ALL):
            loggers = build_loggers(ALL, run_dir, RESOLVED)
            for logger in loggers:
                logger.log_metrics({"dev/accuracy": 0.625}, step=10)
                logger.save()
            run = wandb.run
            assert run is not None
            assert dict(run.config) == RESOLVED
            assert (run.name, run.group, run.tags) == (name, "sweep", ("late",))
            ids.append(run.id)
            for logger in loggers:
                logger.finalize("success")

        assert wandb.run is None
        assert "WANDB_MODE" not in os.environ
        written = files(run_dir)
        assert "0.625" in (run_dir / "csv" / "metrics.csv").read_text()
        assert any(file.startswith("tensorboard/events.out.tfevents") for file in written)
        assert [f for f in written if f.endswith(f"run-{run.id}.wandb")]
    assert len(set(ids)) == 2
    assert [file for file in files(outside) if not file.startswith(WANDB_CACHE)] == []
    assert {path.name for path in tmp_path.iterdir()} == {"outside", "first", "second"}


@pytest.mark.usefixtures("outside")
def test_only_the_first_process_begins_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    [logger] = build_loggers(LoggerConfig(wandb=OFFLINE), tmp_path, RESOLVED)
    assert isinstance(logger, WandbLogger)
    logger.experiment.log({"dev/accuracy": 0.5})  # of a stand-in
    assert wandb.run is None
    assert not (tmp_path / "wandb").exists()


@pytest.mark.usefixtures("outside")
def test_tracking_draws_no_random_numbers(tmp_path: Path) -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    with finished_loggers(ALL):
        build_loggers(ALL, tmp_path, RESOLVED)[-1].log_metrics({"dev/accuracy": 0.5}, step=1)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert before == after


def test_a_kill_while_a_column_is_added_loses_no_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Csv(tmp_path)
    tracker.log_metrics({"train/loss": 1.5}, step=9)
    tracker.save()
    before = (tmp_path / "csv" / "metrics.csv").read_bytes()
    tracker.log_metrics({"dev/accuracy": 0.5}, step=9)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: sys.exit())
        with pytest.raises(SystemExit):
            tracker.save()
    assert (tmp_path / "csv" / "metrics.csv").read_bytes() == before
    again = Csv(tmp_path, resumed_at=10)
    again.log_metrics({"dev/accuracy": 0.5}, step=9)
    again.save()
    after = (tmp_path / "csv" / "metrics.csv").read_text().splitlines()
    assert after == ["dev/accuracy,step,train/loss", ",9,1.5", "0.5,9,"]
