"""Loggers write inside the run folder only, and leave nothing behind in the process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import wandb
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only

from lpt.config.schema import LoggerConfig, WandbConfig
from lpt.tracking.loggers import FaultTolerantLogger, build_loggers, finished_loggers
from tests.support.csv_curves import read_curves

RESOLVED = {"seed": 13, "task": {"label_words": ["terrible", "great"]}}
OFFLINE = WandbConfig(enabled=True, mode="offline", group="sweep", tags=["late"])
WANDB_CACHE = "home/.cache/wandb/"  # its own debug logs, whatever the run
ALL = LoggerConfig(csv=True, tensorboard=True, wandb=OFFLINE)


@pytest.fixture
def outside(wandb_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory and home of the test, where no logger may write."""
    outside = tmp_path / "outside"
    for name in ("home", "cwd"):
        (outside / name).mkdir(parents=True)
    monkeypatch.chdir(outside / "cwd")
    monkeypatch.setenv("HOME", str(outside / "home"))
    return outside


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


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
        assert read_curves(run_dir) == [{"dev/accuracy": "0.625", "step": "10"}]
        assert any(file.startswith("tensorboard/events.out.tfevents") for file in written)
        assert [f for f in written if f.endswith(f"run-{run.id}.wandb")]
    assert len(set(ids)) == 2
    assert [file for file in files(outside) if not file.startswith(WANDB_CACHE)] == []
    assert {path.name for path in tmp_path.iterdir()} == {"home", "outside", "first", "second"}


@pytest.mark.usefixtures("outside")
def test_only_rank_zero_starts_a_wandb_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    [logger] = build_loggers(LoggerConfig(wandb=OFFLINE), tmp_path, RESOLVED)
    logger.log_metrics({"dev/accuracy": 0.5})
    assert logger.enabled
    assert wandb.run is None
    assert not (tmp_path / "wandb").exists()


def test_each_start_has_its_own_curves(tmp_path: Path) -> None:
    """Those of an earlier start stay as they are; the steps since its checkpoint come twice."""
    for steps in ((9, 19, 29), (19, 29, 39)):
        [logger] = build_loggers(LoggerConfig(csv=True), tmp_path, RESOLVED)
        for step in steps:
            logger.log_metrics({"train/loss": step / 10}, step=step)
        logger.save()
    assert {path.name for path in (tmp_path / "csv").iterdir()} == {"version_0", "version_1"}
    assert [row["step"] for row in read_curves(tmp_path)] == ["9", "19", "29", "39"]


class Broken(CSVLogger):
    """Fails in one method."""

    def __init__(self, folder: Path, method: str) -> None:
        super().__init__(folder)
        setattr(self, method, self.fail)
        self.calls = 0

    def fail(self, *_: object, **__: object) -> None:
        self.calls += 1
        raise ConnectionError("no route to host")


@pytest.mark.parametrize("method", ["log_metrics", "save", "finalize"])
def test_a_logger_that_fails_is_disabled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    broken = Broken(tmp_path, method)
    logger = FaultTolerantLogger(broken)
    for _ in range(2):
        logger.log_metrics({"train/loss": 1.0}, step=1)
        logger.save()
        logger.finalize("success")
    assert not logger.enabled
    assert broken.calls == 1
    assert [record.getMessage() for record in caplog.records] == [
        "Logger Broken failed and is disabled for the rest of the run "
        "(ConnectionError: no route to host)."
    ]
