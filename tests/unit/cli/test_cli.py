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
from omegaconf import OmegaConf

from lpt.errors import USAGE_ERROR
from tests.support.configs import ROOT
from tests.support.tiny import SIZES

TRAIN = ROOT / "train.py"
Train = Callable[..., tuple[int, str, str]]
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


@pytest.fixture
def masked(checkpoints: dict[str, Path]) -> list[str]:
    """Overrides for the tiny masked model."""
    length = SIZES["bert"]["max_position_embeddings"]
    return ["model=local", f"model.path={checkpoints['masked']}", f"data.max_length={length}"]


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


@pytest.mark.parametrize(
    ("arguments", "problems", "parts"),
    [
        (
            "modle=gpt2 prompt.layr=3 task=sst seed=abc task.label_words=[a",
            5,
            ["modle", "prompt.layer", "sst2", "abc", "quote"],
        ),
        (
            "MASKED prompt.layer=1 trainer.max_epochs=2 loss=zzz data.path=no/such/folder",
            4,
            ["prompt.layer: 1", "trainer.max_steps", "loss: 'zzz'", "data.path: no/such"],
        ),
        ("task=custom model=local", 3, ["model.path=", "task.labels=", "task.label_words="]),
        ("sweep=layers task=sst2", 1, ["sweep=layers for a single run", "python sweep.py"]),
        ("-m sweep=list", 1, ["ListConfig"]),
        ("-m sweep=typo", 1, ["fixd"]),
        ("-m sweep=broken", 1, ["broken.yaml"]),
        ("task=mien", 1, ["did you mean mine?"]),
        (
            "MASKED method=lora prompt=mppg prompt.length=3 method.bottleneck=8",
            3,
            ["prompt: set, with method=lora", "prompt.length: set", "method.bottleneck: 8"],
        ),
        (
            "-m MASKED method=late_prompt,bitfit prompt.length=3,4 dry_run=true",
            1,
            ["prompt.length: set, with method=bitfit", "sweep.settings=[{method:"],
        ),
    ],
)
def test_all_faults_are_listed_with_status_2(
    train: Train, own: str, masked: list[str], arguments: str, problems: int, parts: list[str]
) -> None:
    status, out, err = train(own, *arguments.replace("MASKED", " ".join(masked)).split())
    assert (status, out) == (USAGE_ERROR, "")
    count = f"{problems} configuration problem{'s' * (problems > 1)}"
    assert err.startswith(f"Found {count}; the run was not started. 1.")
    assert [part for part in parts if part not in err] == []


@pytest.mark.parametrize(
    ("arguments", "key", "value"),
    [
        ("--config-name=mine model.path=x --cfg job", "task.name", "mine"),
        ("--config-name=mine model.path=x --cfg job", "seed", 7),
        ("--config-name sweep --cfg job", "sweep.report", True),
        ("--cfg hydra hydra.verbose=true +hydra.callbacks.x.y=z", "hydra.verbose", True),
    ],
)
def test_configs_of_the_user_and_of_hydra(
    train: Train, own: str, arguments: str, key: str, value: object
) -> None:
    status, out, err = train(own, *arguments.split())
    assert (status, err) == (0, "")
    assert OmegaConf.select(OmegaConf.create(out), key) == value


def test_a_sweeper_of_hydra(train: Train, masked: list[str]) -> None:
    basic = ["-m", "hydra/sweeper=basic", "hydra/launcher=basic", "seed=1,2", "dry_run=true"]
    status, out, err = train(*basic, *masked)
    assert status == 0, err
    assert out.count("All checks passed") == 2


def test_dry_run_prints_the_resolved_config_and_what_it_checked(
    train: Train, masked: list[str], tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    template = "{text} " + "It is a long way to the end of this line . " * 2 + "<mask>"
    given = [*masked, f"run_dir={run_dir}", "prompt=static", "dry_run=true"]
    status, out, err = train(*given, f"task.template='{template}'")
    assert (status, err) == (0, "")
    assert not run_dir.exists()
    text, _, summary = out.partition("\n\n")
    config = yaml.safe_load(text)
    assert f"model.path={config['model']['path']}" in masked
    assert config["task"]["template"] == template
    assert config["optim"]["lr"] == config["prompt"]["lr"] == 0.03
    for part in ("All checks passed", "train", "late_prompt from layer 3", "not started"):
        assert part in summary


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


def test_tab_completion(tmp_path: Path, own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_LINE", "python train.py task=mi")
    assert python(tmp_path, str(TRAIN), own, "-sc", "query=bash") == (0, "task=mine", "")


@pytest.mark.parametrize("swept", ["--multirun", "seed=1,2", "prompt.layer=all"])
def test_the_configuration_of_a_sweep_is_not_shown(train: Train, swept: str) -> None:
    status, out, err = train("--cfg", "job", swept)
    assert (status, out) == (USAGE_ERROR, "")
    assert f"--cfg: with {swept.replace('all', 'choice(all)')}" in err
    assert "dry_run=true" in err


def test_a_refused_value_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import runpy, sys\nsys.argv = ['train.py', 'model=local', 'model.path=x', "
        "'task.labels=[a]']\ntry:\n    runpy.run_path(TRAIN, run_name='__main__')\nfinally:\n"
        "    sys.stdout.write(str(sorted({'torch', 'transformers', 'pandas'} & {*sys.modules})))"
    )
    status, out, err = python(tmp_path, "-c", code.replace("TRAIN", repr(str(TRAIN))))
    assert (status, out) == (USAGE_ERROR, "[]")
    assert "task.labels: ['a']" in err


# Both in one process, because importing takes most of the time; the dry run does not end it.
WITHOUT_HUB = """
import runpy, sys
for more in (["dry_run=true"], []):
    sys.argv = ["train.py", "model=roberta-large", "task=sst2", *more]
    runpy.run_path(TRAIN, run_name="__main__")
"""


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


def test_help_has_every_key_with_its_meaning(train: Train, own: str) -> None:
    status, printed, _ = train("--help", "model=roberta-large", "prompt.layer=2,5", own)
    assert status == 0
    assert "usage: lpt-train" in printed
    assert "model.layers=24  (>= 1)" in printed
    assert "optim.lr=0.003  (> 0.0)\n      Peak learning rate." in printed
    assert "mine" in printed  # a choice of the user's own
    _, printed, _ = train("--help", "sweep=layers")
    assert "sweep.space={'prompt.layer': 'all', 'seed': [13, 21, 42]}" in printed
    status, _, errors = train("--help", "modle=roberta-large")
    assert status == USAGE_ERROR
    assert "modle" in errors
