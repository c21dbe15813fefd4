"""The same sweep through Hydra's other launchers, and several processes a job."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from lpt.config.schema import register
from tests.conftest import CONF

PRESETS = sorted(file.stem for file in (CONF / "hydra" / "launcher").glob("*.yaml"))
NEEDS = {
    "slurm": "hydra_submitit_launcher",
    "slurm_here": "hydra_submitit_launcher",
    "joblib": "hydra_joblib_launcher",
    "ray": "hydra_ray_launcher",
    "ray_gpu": "hydra_ray_launcher",
}


def need(launcher: str) -> None:
    if importlib.util.find_spec(f"hydra_plugins.{NEEDS[launcher]}") is None:
        pytest.skip(f"{NEEDS[launcher]} is not installed")


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_compose(preset: str) -> None:
    need(preset)
    register()
    given = [f"hydra/launcher={preset}", "strategy.devices=4"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        hydra = compose("sweep", given, return_hydra_config=True).hydra
    assert hydra.mode.name == "MULTIRUN"
    devices = {"slurm": "gpus_per_node", "ray_gpu": "ray.remote.num_gpus"}.get(preset)
    if devices is not None:
        at: Any = hydra.launcher
        for key in devices.split("."):
            at = at[key]
        assert at == 4


def sweep(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    command = [sys.executable, str(CONF.parent / "sweep.py"), "sweep.dir=swept", *arguments]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    lines = (folder / "swept" / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture
def toy_arguments(checkpoints: dict[str, Path], toy_data: Path, tmp_path: Path) -> list[str]:
    return [
        *("sweep=seeds", "seed=1,2", "model=local", f"model.path={checkpoints['masked']}"),
        *("task=reviews", f"data.path={toy_data}", "task.labels=['0','1']", "data.max_length=64"),
        *("trainer.max_steps=4", "trainer.eval_every_steps=2", "strategy.accelerator=cpu"),
        *("model.dropout=none", "prompt.dropout=0", f"cache.dir={tmp_path / 'cache'}"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib", "slurm_here", "ray"])
def test_every_launcher_gives_what_the_pool_gives(
    launcher: str, toy_arguments: list[str], tmp_path: Path
) -> None:
    if launcher in NEEDS:
        need(launcher)
    rows = {}
    for name in ("pool", launcher):
        (tmp_path / name).mkdir()
        rows[name] = sweep(tmp_path / name, f"hydra/launcher={name}", *toy_arguments)
    assert [row["state"] for row in rows[launcher]] == ["finished"] * 2
    scores = [
        [{key: row[key] for key in row if key.startswith("final/")} for row in rows[name]]
        for name in ("pool", launcher)
    ]
    assert scores[0] == scores[1]
    assert all(scores[0])


@pytest.mark.slow
def test_no_rank_runs_the_sweep_again(toy_arguments: list[str], tmp_path: Path) -> None:
    single, two = tmp_path / "single", tmp_path / "two"
    for folder in (single, two):
        folder.mkdir()
    of_one = sweep(single, *toy_arguments, "data.batch_size=16", "data.bucketing=false")
    given = ("data.batch_size=8", "data.bucketing=false", "strategy=ddp", "strategy.devices=2")
    of_two = sweep(two, *toy_arguments, *given)
    assert [row["attempts"] for row in of_two] == [1, 1]
    assert {path.name for path in (two / "swept" / "jobs").iterdir()} == {"seed-1", "seed-2"}
    assert [path.name for path in two.iterdir()] == ["swept"]
    for key in ("final/test/accuracy", "final/dev/accuracy", "selected_step"):
        assert [row[key] for row in of_one] == [row[key] for row in of_two]
