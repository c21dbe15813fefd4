"""Loggers write inside the run folder only, and leave nothing behind in the process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import wandb
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only

from lpt.config.schema import LoggerConfig, WandbConfig
from lpt.tracking.loggers import FaultTolerantLogger, build_loggers
from lpt.tracking.wandb import finished_run
from tests.support.outcomes import read_curves

RESOLVED = {"seed": 13}
OFFLINE = WandbConfig(enabled=True, mode="offline")
ALL = LoggerConfig(csv=True, tensorboard=True, wandb=OFFLINE)


def test_two_runs_in_one_process_keep_apart(
    wandb_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    ids = set()
    for name in ("first", "second"):
        run_dir = tmp_path / name
        run_dir.mkdir()
        with finished_run(OFFLINE):
            for logger in build_loggers(ALL, run_dir, RESOLVED):
                logger.log_metrics({"dev/accuracy": 0.625}, step=10)
                logger.save()
                logger.finalize("success")
                logger.log_metrics({"dev/accuracy": 0.5}, step=20)
                logger.close()
            assert wandb.run is not None
            ids.add(wandb.run.id)
        assert wandb.run is None
        assert "WANDB_MODE" not in os.environ
        assert read_curves(run_dir) == [
            {"dev/accuracy": "0.625", "step": "10"},
            {"dev/accuracy": "0.5", "step": "20"},
        ]
        assert len(list(run_dir.glob("tensorboard/events.out.tfevents*"))) == 1
        assert len(list(run_dir.glob("wandb/offline-run-*/*.wandb"))) == 1
    assert len(ids) == 2
    assert list(Path().iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {wandb_home.name, "cwd", "first", "second"}


@pytest.mark.usefixtures("wandb_home")
def test_only_rank_zero_starts_a_wandb_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    [logger] = build_loggers(LoggerConfig(wandb=OFFLINE), tmp_path, RESOLVED)
    logger.log_metrics({"dev/accuracy": 0.5})
    assert logger.enabled
    assert wandb.run is None
    assert not (tmp_path / "wandb").exists()


@pytest.mark.parametrize("method", ["log_metrics", "save", "finalize"])
def test_a_logger_that_fails_is_disabled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host")

    broken = CSVLogger(tmp_path)
    monkeypatch.setattr(broken, method, fail)
    logger = FaultTolerantLogger(broken)
    for _ in range(2):
        logger.log_metrics({"train/loss": 1.0}, step=1)
        logger.save()
        logger.finalize("success")
        logger.close()
    assert not logger.enabled
    assert [record.getMessage() for record in caplog.records] == [
        "Logger CSVLogger failed and is disabled for the rest of the run "
        "(ConnectionError: no route to host)."
    ]
