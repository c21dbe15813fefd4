"""`python train.py ...`: what a user sees when something is wrong, and what a dry run says."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.support.configs import ROOT
from tests.support.tiny import SIZES

TRAIN = ROOT / "train.py"
USAGE_ERROR = 2
Train = Callable[..., tuple[int, str, str]]


@pytest.fixture
def train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Train:
    """Run train.py in this process, in a folder where it must write nothing."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        status = 0
        try:
            runpy.run_path(str(TRAIN), run_name="__main__")
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 1
        out, err = capsys.readouterr()
        assert {path.name for path in folder.iterdir()} <= {"multirun.yaml"}  # of Hydra's sweeper
        assert "Traceback" not in err
        return status, out, " ".join(err.split())

    return run


def test_faults_of_the_command_line_end_with_status_2(train: Train) -> None:
    arguments = ["modle=gpt2", "prompt.layr=3", "task=sst", "seed=abc", "task.label_words=[a"]
    status, out, err = train(*arguments)
    assert (status, out) == (USAGE_ERROR, "")
    assert err.startswith("Found 5 configuration problems; the run was not started.")
    for part in ("modle", "prompt.layer", "sst2", "abc", "quote"):
        assert part in err


def test_faults_of_values_end_with_status_2(train: Train, masked: Path) -> None:
    faults = ["prompt.layer=1", "trainer.max_epochs=2", "loss=zzz", "data.path=no/such/folder"]
    status, out, err = train(*masked_model(masked), *faults)
    assert (status, out) == (USAGE_ERROR, "")
    for key in ("prompt.layer: 1", "trainer.max_steps", "loss: 'zzz'", "data.path: no/such"):
        assert key in err


def test_a_sweep_is_no_single_run(train: Train) -> None:
    status, out, err = train("sweep=layers", "task=sst2")
    assert (status, out) == (USAGE_ERROR, "")
    assert "sweep=layers for a single run" in err
    assert "python sweep.py" in err


OWN = {
    "mine.yaml": "defaults: [train, override model: local, override task: mine, _self_]\nseed: 7\n",
    "task/mine.yaml": "# An own task.\ndefaults: [reviews]\nname: mine\n",
    "sweep/list.yaml": "fixed: [a]\n",
    "sweep/typo.yaml": "fixd: {seed: 1}\n",
    "sweep/broken.yaml": "space: {seed: [1\n",
}


@pytest.fixture
def own(tmp_path: Path) -> str:
    """`--config-dir` of a folder with own configs."""
    for name, text in OWN.items():
        (tmp_path / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "own" / name).write_text(text)
    return f"--config-dir={tmp_path / 'own'}"


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (["--help"], "Powered by Hydra"),
        (["--info", "defaults"], "prompt/npg"),
        (["--cfg", "job", "--config-name", "sweep"], "sweep"),
        (["--cfg", "hydra", "hydra.verbose=true", "+hydra.callbacks.x.y=z"], "verbose: true"),
    ],
)
def test_features_of_hydra(tmp_path: Path, arguments: list[str], printed: str) -> None:
    status, out, err = python(tmp_path, str(TRAIN), *arguments)
    assert (status, err) == (0, "")
    assert printed in out


def test_tab_completion(tmp_path: Path, own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_LINE", "python train.py task=mi")
    assert python(tmp_path, str(TRAIN), own, "-sc", "query=bash") == (0, "task=mine", "")


def test_own_configs(train: Train, own: str) -> None:
    status, out, _ = train(own, "--config-name=mine", "model.path=x", "--cfg", "job")
    assert status == 0
    assert yaml.safe_load(out)["task"]["name"] == "mine"
    assert yaml.safe_load(out)["seed"] == 7
    assert "did you mean mine?" in train(own, "task=mien")[2]


@pytest.mark.parametrize("name", ["list", "typo", "broken"])
def test_own_config_of_a_wrong_structure(train: Train, own: str, name: str) -> None:
    status, out, err = train(own, "-m", f"sweep={name}")
    assert (status, out) == (USAGE_ERROR, "")
    assert err.startswith("Found 1 configuration problem; the run was not started.")
    assert {"list": "ListConfig", "typo": "fixd", "broken": "broken.yaml"}[name] in err


def test_a_sweeper_of_hydra(train: Train, masked: Path) -> None:
    basic = ["-m", "hydra/sweeper=basic", "hydra/launcher=basic", "seed=1,2", "dry_run=true"]
    status, out, err = train(*basic, *masked_model(masked))
    assert status == 0, err
    assert out.count("All checks passed") == 2


def test_a_refused_value_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import runpy, sys\nsys.argv = ['train.py', 'model=local', 'model.path=x', "
        "'task.labels=[a]']\ntry:\n    runpy.run_path(TRAIN, run_name='__main__')\nfinally:\n"
        "    sys.stdout.write(str(sorted({'torch', 'transformers', 'pandas'} & {*sys.modules})))"
    )
    status, out, err = python(tmp_path, "-c", code.replace("TRAIN", repr(str(TRAIN))))
    assert (status, out) == (USAGE_ERROR, "[]")
    assert "task.labels: ['a']" in err


def test_missing_values_are_named_together(train: Train) -> None:
    status, out, err = train("task=custom", "model=local")
    assert (status, out) == (USAGE_ERROR, "")
    assert "Found 3 configuration problems" in err
    assert "model.path=..." in err
    assert "task.labels=..." in err
    assert "task.label_words=..." in err


def test_finished_run_is_kept(train: Train, tmp_path: Path, masked: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "metrics.json").write_text("{}")
    status, _, err = train(*masked_model(masked), f"run_dir={run_dir}")
    assert status == USAGE_ERROR
    assert "overwrite=true" in err
    assert [path.name for path in run_dir.iterdir()] == ["metrics.json"]


def test_dry_run_prints_the_resolved_config_and_what_it_checked(
    train: Train, masked: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    template = "{text} " + "It is a long way to the end of this line . " * 2 + "<mask>"
    given = [*masked_model(masked), f"run_dir={run_dir}", "prompt=static", "dry_run=true"]
    status, out, err = train(*given, f"task.template='{template}'")
    assert (status, err) == (0, "")
    assert not run_dir.exists()
    text, _, summary = out.partition("\n\n")
    config = yaml.safe_load(text)
    assert config["model"]["path"] == str(masked)
    assert config["task"]["template"] == template
    assert config["optim"]["lr"] == config["prompt"]["lr"] == 0.03
    for part in ("All checks passed", "train", "prompt at layer 3", "not started"):
        assert part in summary


@pytest.fixture
def masked(checkpoints: dict[str, Path]) -> Path:
    return checkpoints["masked"]


def masked_model(folder: Path) -> list[str]:
    length = SIZES["bert"]["max_position_embeddings"]
    return ["model=local", f"model.path={folder}", f"data.max_length={length}"]


# Both in one process, because importing takes most of the time; the dry run does not end it.
WITHOUT_HUB = """
import runpy, sys
for more in (["dry_run=true"], []):
    sys.argv = ["train.py", "model=roberta-large", "task=sst2", *more]
    runpy.run_path(TRAIN, run_name="__main__")
"""


def python(tmp_path: Path, *arguments: str) -> tuple[int, str, str]:
    """Status, stdout and stderr of a Python process that must write nothing where it runs."""
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    hub = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | hub,
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert list(cwd.iterdir()) == []
    assert "Traceback" not in done.stderr
    return done.returncode, " ".join(done.stdout.split()), " ".join(done.stderr.split())


def test_without_the_hub(tmp_path: Path) -> None:
    status, out, err = python(tmp_path, "-c", WITHOUT_HUB.replace("TRAIN", repr(str(TRAIN))))
    sought = ("FacebookAI/roberta-large", "nyu-mll/glue (sst2)")

    config, _, unchecked = out.partition("Skipped because the Hugging Face Hub is unreachable:")
    assert "name: roberta-large" in config
    assert all(name in unchecked for name in sought)

    assert status == USAGE_ERROR
    ways = ("model.path=FOLDER", "data.path=FOLDER", "experiment=demo")
    assert all(part in err for part in (*sought, *ways))
    assert "Found 2 configuration problems" in err  # each named once, not once a split
