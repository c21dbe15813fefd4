"""The wheel, installed into a fresh environment, trains outside the clone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

from lpt.runs.record import RunRecord
from tests.conftest import toy_overrides
from tests.support.configs import ROOT

TASK = """# A task of its user.
defaults: [reviews]
name: mine
"""
ELSEWHERE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def python(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, *arguments], env=ELSEWHERE, check=True)


def test_every_package_is_in_the_wheel() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    packages = {str(file.parent.relative_to(ROOT)) for file in (ROOT / "lpt").rglob("__init__.py")}
    dotted = {package.replace(os.sep, ".") for package in packages}
    assert set(settings["packages"]) == dotted | {"lpt.conf", "hydra_plugins"}


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The console scripts of an environment with the wheel, and this one's other packages."""
    folder = tmp_path_factory.mktemp("wheel")
    source, environment = folder / "source", folder / "environment"
    for name in ("lpt", "conf", "hydra_plugins"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    python("-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, source)
    [wheel] = folder.glob("*.whl")
    python("-m", "venv", "--without-pip", environment)
    target = environment / "bin" / "python"
    python("-m", "pip", "-q", "--python", target, "install", "--no-deps", "--no-index", wheel)
    [site] = environment.glob("lib/*/site-packages")
    # As plain paths: their own .pth files would bring the editable lpt along.
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment / "bin"


def test_a_run_of_an_own_task(
    scripts: Path, checkpoints: dict[str, Path], toy_data: Path, tmp_path: Path
) -> None:
    (tmp_path / "own" / "task").mkdir(parents=True)
    (tmp_path / "own" / "task" / "mine.yaml").write_text(TASK)
    short = ["trainer.max_steps=2", "trainer.eval_every_steps=2", "logger=none", "run_dir=run"]
    toy = toy_overrides(checkpoints, toy_data, "masked", "task=mine", *short)
    command = [scripts / "lpt-train", "--config-dir", "own", *toy]
    subprocess.run(command, cwd=tmp_path, env=ELSEWHERE, check=True)
    record = RunRecord.read(tmp_path / "run")
    assert record.config["task"]["name"] == "mine"
    assert record.cost.steps == 2
    predict = [scripts / "lpt-predict", "run", "-"]
    options = {"cwd": tmp_path, "env": ELSEWHERE, "check": True, "stdout": subprocess.PIPE}
    done = subprocess.run(predict, input=b"a good film\n", **options)
    lines = [line.split(b"\t") for line in done.stdout.splitlines()]
    assert lines[0][:2] == [b"index", b"prediction"]
    assert len(lines) == 2


RUN = """
import sys
from lpt import Config, run
settings = dict(argument.split("=", 1) for argument in sys.argv[1:])
labels = ("bad", "good")
rows = [{"text": f"it was {label} {i}", "label": label} for i in range(15) for label in labels]
config = Config.compose({**settings, "task.labels": ["bad", "good"], "trainer.max_steps": 2})
assert run(config, train=rows).predictor.predict(["it was bad"]) in (["bad"], ["good"])
"""


def test_a_run_from_python(scripts: Path, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    settings = ["model=local", f"model.path={checkpoints['masked']}", "data.max_length=64"]
    command = [scripts / "python", "-W", "error", "-c", RUN, *settings, "run_dir=run"]
    done = subprocess.run(command, cwd=tmp_path, env=ELSEWHERE, check=True, capture_output=True)
    assert done.stdout + done.stderr == b""
    assert RunRecord.read(tmp_path / "run").environment.git_revision is None
