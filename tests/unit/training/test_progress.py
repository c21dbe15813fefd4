"""What a run shows while it trains, in a terminal and in a file."""

from __future__ import annotations

import io
import logging
import sys
from pathlib import Path

import pytest
import yaml
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from lpt.experiment import run
from tests.conftest import MakeConfig


def test_redirected_output_has_a_line_for_each_evaluation(
    toy: MakeConfig, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        record = run(toy("masked"))
    assert record is not None
    lines = [line for line in caplog.messages if ": dev " in line or ": test " in line]
    assert [line.partition(" accuracy ")[0] for line in lines] == [
        "zero-shot: dev",
        "zero-shot: test",
        "step 2 of 4: dev",
        "step 4 of 4: dev",
    ]
    assert float(lines[-1].rpartition(" ")[2]) == round(record.dev_history[-1]["accuracy"], 4)
    printed = "".join(capfd.readouterr())
    assert "\x1b" not in printed
    assert "Epoch" not in printed


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_bars_that_name_what_is_scored(
    toy: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    with caplog.at_level(logging.INFO):
        run(toy("masked", f"cache.dir={tmp_path / 'cache'}"))  # without kept zero-shot scores
    printed = terminal.getvalue()
    for stage in ("Zero-shot on dev", "Zero-shot on test", "Epoch 0", "Testing on test"):
        assert stage in printed
    assert "step 4 of 4" not in caplog.text


def test_tensorboard_gets_the_configuration_with_the_scores(
    toy: MakeConfig, tmp_path: Path
) -> None:
    run(toy("masked", "logger=tensorboard", "optim.lr=0.004"))
    [file] = (tmp_path / "run" / "tensorboard").glob("events.*")
    tags = {v.tag for event in EventFileLoader(str(file)).Load() for v in event.summary.value}
    assert "_hparams_/session_start_info" in tags
    assert "final/test/accuracy" in tags
    saved = yaml.safe_load((file.parent / "hparams.yaml").read_text())
    assert saved["optim.lr"] == 0.004
