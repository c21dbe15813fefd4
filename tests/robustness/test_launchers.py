"""The same sweep through Hydra's other launchers, and jobs with several ranks."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from lpt.config.compose import register
from tests.conftest import toy_overrides
from tests.support.configs import CONF
from tests.support.processes import SWEEP, finished

PRESETS = sorted(file.stem for file in (CONF / "hydra" / "launcher").glob("*.yaml"))
PLUGINS = {
    "slurm": "hydra_submitit_launcher",
    "slurm_here": "hydra_submitit_launcher",
    "joblib": "hydra_joblib_launcher",
    "ray": "hydra_ray_launcher",
    "ray_gpu": "hydra_ray_launcher",
}


def require(launcher: str) -> None:
    plugin = PLUGINS.get(launcher)
    if plugin is not None and importlib.util.find_spec(f"hydra_plugins.{plugin}") is None:
        pytest.skip(f"{plugin} is not installed")


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_request_the_devices_of_a_job(preset: str) -> None:
    require(preset)
    register()
    overrides = [f"hydra/launcher={preset}", "strategy.devices=4"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        hydra = compose("sweep", overrides, return_hydra_config=True).hydra
    assert hydra.mode.name == "MULTIRUN"
    key = {"slurm": "gpus_per_node", "ray_gpu": "ray.remote.num_gpus"}.get(preset)
    assert key is None or OmegaConf.select(hydra.launcher, key) == 4


@pytest.fixture(scope="module")
def overrides(
    checkpoints: dict[str, Path], toy_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    no_dropout = ("model.dropout=none", "prompt.dropout=0", "data.bucketing=false")
    given = (*no_dropout, f"cache.dir={tmp_path_factory.mktemp('cache')}")
    return ["sweep=seeds", "seed=1,2", *toy_overrides(checkpoints, toy_data, "masked", *given)]


@pytest.fixture(scope="module")
def expected(
    overrides: list[str], tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """Results of the sweep by default: with the pool, in one process for each run."""
    return run_sweep(tmp_path_factory.mktemp("pool"), *overrides)


def run_sweep(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    """Run a sweep; returns its results."""
    given = [f"sweep.dir={folder / 'sweep'}", "sweep.report=false", *arguments]
    finished(given, folder / "output.txt", SWEEP)
    lines = (folder / "sweep" / "results.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def scores(rows: list[dict[str, Any]]) -> list[dict[str, float]]:
    return [{key: row[key] for key in row if key.startswith("final/")} for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib", "slurm_here", "ray"])
def test_every_launcher_gives_what_the_pool_gives(
    launcher: str, overrides: list[str], expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    require(launcher)
    rows = run_sweep(tmp_path, f"hydra/launcher={launcher}", *overrides)
    assert [row["state"] for row in rows] == ["finished"] * 2
    assert scores(rows) == scores(expected)
    assert all(scores(rows))


@pytest.mark.slow
def test_ranks_do_not_run_the_sweep_again(
    overrides: list[str], expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    ddp = ("strategy=ddp", "strategy.devices=2", "strategy.accelerator=cpu", "data.batch_size=8")
    rows = run_sweep(tmp_path, *overrides, *ddp)
    assert [row["attempts"] for row in rows] == [1, 1]
    assert {path.name for path in (tmp_path / "sweep/jobs").iterdir()} == {"seed-1", "seed-2"}
    assert {path.name for path in tmp_path.iterdir()} == {"output.txt", "sweep"}
    assert scores(rows) == scores(expected)
    assert [row["selected_step"] for row in rows] == [row["selected_step"] for row in expected]
