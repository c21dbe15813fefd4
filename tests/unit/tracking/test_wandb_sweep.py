"""The summary run of a sweep, read back from the files that W&B writes offline."""

from __future__ import annotations

import itertools
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import wandb
from PIL import Image

from lpt.config.schema import WandbConfig
from lpt.tracking.wandb import log_sweep
from tests.support.configs import CONF
from tests.support.wandb_files import OfflineRun

pytestmark = pytest.mark.usefixtures("wandb_home")
OFFLINE = WandbConfig(enabled=True, mode="offline")

SCORE = "final/test/accuracy"
ROWS = [
    {"layer": layer, "seed": seed, SCORE: layer / 10 + seed / 100, "method": name, "prompt": kind}
    for name, kind in (("late_prompt", "npg"), ("lora", None))
    for layer, seed in itertools.product((7, 2), (1, 3))
]
ONE_LAYER = {"layer": 1, "seed": 1, SCORE: 0.5, "method": "full", "prompt": None}
ROWS += [{"layer": 9, "seed": 1, "error": "the loss is nan"}, ONE_LAYER]


def test_a_sweep_has_one_summary_run(tmp_path: Path) -> None:
    figure = tmp_path / "layers.png"
    Image.new("RGB", (4, 3)).save(figure)
    config = replace(OFFLINE, tags=["late"])
    ids = set()
    for turn in ("first", "again"):
        log_sweep(
            *(config, tmp_path / "layers", ROWS),
            score="final/test/accuracy",
            figures=[figure],
            resolved={"task": {"name": "toy"}},
        )
        found = OfflineRun(tmp_path / "layers" / "wandb")
        ids.add(found.run.run_id)
        assert found.table("sweep/results")[1][0] == [7, 1, 0.71, "late_prompt", "npg", None]
        curves = [[2, pytest.approx(0.22)], [7, 0.72]]
        assert found.table("sweep/layer_curve_table")[1] == [
            [*point, method] for method in ("npg", "lora") for point in curves
        ]
        found.folder.rename(tmp_path / turn)
    assert len(ids) == 1
    assert (found.run.run_group, found.run.job_type) == ("layers", "sweep-summary")
    assert list(found.run.tags) == ["late"]
    assert found.config["task"] == {"name": "toy"}
    assert found.summary["sweep/layers._type"] == "image-file"
    assert found.charts == {"sweep/layer_curve"}
    assert wandb.run is None


def test_a_sweep_without_wandb_or_without_layers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log_sweep(WandbConfig(), tmp_path / "off", ROWS, score="final/test/accuracy")
    assert not (tmp_path / "off").exists()
    log_sweep(OFFLINE, tmp_path, [ONE_LAYER], score="final/test/accuracy")
    found = OfflineRun(tmp_path / "wandb")
    assert "sweep/results._type" in found.summary
    assert not any("layer_curve" in name for name in found.summary)
    assert [entry for entry in caplog.records if entry.levelname == "WARNING"] == []


def test_the_documented_command_finds_every_offline_run(tmp_path: Path) -> None:
    text = (CONF.parent / "docs" / "tracking.md").read_text(encoding="utf-8")
    [command] = [line.strip() for line in text.splitlines() if line.startswith("    wandb sync")]
    for name in ("runs/a", "runs/sweep/b"):
        log_sweep(OFFLINE, tmp_path / name, ROWS, score="final/test/accuracy")
    listing = ["/bin/sh", "-c", command.replace("wandb sync", "ls -d")]
    done = subprocess.run(listing, cwd=tmp_path, capture_output=True, text=True, check=True)
    folders = sorted(path.partition("/wandb/")[0] for path in done.stdout.split())
    assert folders == ["runs/a", "runs/sweep/b"]
