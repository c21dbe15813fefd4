"""The summary run of a sweep, read back from the files that W&B writes offline."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import wandb

from lpt.config.schema import WandbConfig
from lpt.tracking.wandb_sweep import log_sweep
from tests.conftest import CONF
from tests.support.wandb_files import OfflineRun

pytestmark = pytest.mark.usefixtures("wandb_home")

ROWS = [
    {"prompt.layer": layer, "data.seed": seed, "final/test/accuracy": layer / 10 + seed / 100}
    for layer, seed in itertools.product((7, 2), (1, 3))
] + [{"prompt.layer": 9, "data.seed": 1, "error": "the loss is nan"}]


def test_a_sweep_has_one_summary_run(tmp_path: Path) -> None:
    from PIL import Image

    figure = tmp_path / "layers.png"
    Image.new("RGB", (4, 3)).save(figure)
    config = WandbConfig(enabled=True, mode="offline", tags=["late"])
    found = []
    for turn in range(2):
        log_sweep(
            *(config, tmp_path / "sweep", "layers", ROWS),
            score="final/test/accuracy",
            figures=[figure],
            resolved={"task": {"name": "toy"}},
        )
        found.append(OfflineRun(tmp_path / "sweep" / "wandb"))
        if turn == 0:
            assert found[0].table("sweep/results")[1][0] == [7, 1, 0.71, None]
            assert found[0].table("sweep/layer_curve_table")[1] == [
                [2, pytest.approx(0.22)],
                [7, 0.72],
            ]
        found[turn].folder.rename(tmp_path / f"start-{turn}")
    assert found[0].run.run_id == found[1].run.run_id
    assert (found[0].run.run_group, found[0].run.job_type) == ("layers", "sweep-summary")
    assert list(found[0].run.tags) == ["late"]
    assert found[0].config["task"] == {"name": "toy"}
    assert found[0].summary["sweep/layers._type"] == "image-file"
    assert found[0].charts == {"sweep/layer_curve"}
    assert wandb.run is None


def test_a_sweep_without_wandb_or_without_layers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log_sweep(WandbConfig(), tmp_path, "seeds", ROWS, score="final/test/accuracy")
    assert [path.name for path in tmp_path.iterdir() if path.name != "home"] == []
    config = WandbConfig(enabled=True, mode="offline")
    rows = [{"data.seed": 1, "final/test/accuracy": 0.5}]
    log_sweep(config, tmp_path, "seeds", rows, score="final/test/accuracy")
    found = OfflineRun(tmp_path / "wandb")
    assert "sweep/results._type" in found.summary
    assert not any("layer_curve" in name for name in found.summary)
    assert [entry for entry in caplog.records if entry.levelname == "WARNING"] == []


def test_the_documented_sync_command_finds_every_run(tmp_path: Path) -> None:
    text = (CONF.parent / "docs" / "tracking.md").read_text(encoding="utf-8")
    [command] = [line.strip() for line in text.splitlines() if line.startswith("    wandb sync")]
    config = WandbConfig(enabled=True, mode="offline")
    for name in ("runs/a", "runs/sweep/b"):
        log_sweep(config, tmp_path / name, name, ROWS, score="final/test/accuracy")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["/bin/sh", "-c", command.replace("wandb sync", "wandb sync --dry-run")],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "WANDB_SILENT": "false"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Would sync 2 run(s)" in done.stdout + done.stderr
