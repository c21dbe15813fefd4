"""`python train.py ...`: what a user sees when something is wrong, and what a dry run says."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from transformers import BertModel

from tests.support.tiny import SIZES
from tests.unit.config.test_config import ROOT

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
        assert list(folder.iterdir()) == []
        assert "Traceback" not in err
        return status, out, " ".join(err.split())

    return run


def test_faults_of_the_command_line_end_with_status_2(train: Train) -> None:
    arguments = ["modle=gpt2", "prompt.layr=3", "task=sst", "seed=abc", "task.label_words=[a"]
    status, out, err = train(*arguments)
    assert (status, out) == (USAGE_ERROR, "")
    assert err.startswith("5 problems found; nothing was started.")
    for part in ("modle", "prompt.layer", "sst2", "abc", "quote"):
        assert part in err


def test_faults_of_values_end_with_status_2(train: Train, masked: Path) -> None:
    faults = ["prompt.layer=99", "trainer.max_epochs=2", "loss=zzz", "data.path=no/such/folder"]
    status, out, err = train(*masked_model(masked), *faults)
    assert (status, out) == (USAGE_ERROR, "")
    for key in ("prompt.layer: 99", "trainer.max_steps", "loss: 'zzz'", "data.path: no/such"):
        assert key in err


def test_a_sweep_is_no_single_run(train: Train) -> None:
    status, out, err = train("sweep=layers", "task=sst2")
    assert (status, out) == (USAGE_ERROR, "")
    assert "sweep=layers for a single run" in err
    assert "python sweep.py" in err


def test_missing_values_are_named_together(train: Train) -> None:
    status, out, err = train("task=custom", "model=local")
    assert (status, out) == (USAGE_ERROR, "")
    assert "3 problems" in err
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
    given = [*masked_model(masked), f"run_dir={run_dir}", "prompt=static", "dry_run=true"]
    status, out, err = train(*given)
    assert (status, err) == (0, "")
    assert not run_dir.exists()
    config, _, summary = " ".join(out.split()).partition("Everything checked")
    assert "model: name: masked" in config
    assert config.count("lr: 0.03") == 2  # of the prompt, taken over by the optimizer
    assert "dry_run: true" in config
    assert "train" in summary
    assert "prompt at layer 3" in summary
    assert "Nothing started" in summary


def test_dry_run_prints_yaml_that_can_be_used_again(train: Train, masked: Path) -> None:
    template = "{text} " + "It is a long way to the end of this line . " * 4 + "<mask>"
    _, out, _ = train(*masked_model(masked), f"task.template='{template}'", "dry_run=true")
    config = yaml.safe_load(out.partition("\n\n")[0])
    assert config["task"]["template"] == template
    assert config["model"]["path"] == str(masked)


def test_model_that_cannot_be_used_leaves_nothing(
    train: Train, masked: Path, tmp_path: Path
) -> None:
    headless = tmp_path / "headless"
    shutil.copytree(masked, headless)
    BertModel.from_pretrained(masked).save_pretrained(headless)
    status, _, err = train(*masked_model(headless), f"run_dir={tmp_path / 'run'}")
    assert status == USAGE_ERROR
    assert "language-model head" in err
    assert not (tmp_path / "run").exists()


def test_dry_run_fails_on_faults(train: Train, masked: Path) -> None:
    status, _, err = train(*masked_model(masked), "prompt.layer=5", "dry_run=true")
    assert status == USAGE_ERROR
    assert "prompt.layer: 5" in err


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


def test_bad_command_line_in_a_process_of_its_own(tmp_path: Path) -> None:
    status, out, err = python(tmp_path, str(TRAIN), "modle=roberta-large", "-m")
    assert (status, out) == (USAGE_ERROR, "")
    assert err.startswith("1 problem found; nothing was started. 1. modle: no such key")


def test_without_the_hub(tmp_path: Path) -> None:
    status, out, err = python(tmp_path, "-c", WITHOUT_HUB.replace("TRAIN", repr(str(TRAIN))))
    sought = ("FacebookAI/roberta-large", "nyu-mll/glue (sst2)")

    config, _, unchecked = out.partition("Not checked, for want of the hub:")
    assert "name: roberta-large" in config
    assert all(name in unchecked for name in sought)

    assert status == USAGE_ERROR
    ways = ("model.path=FOLDER", "data.path=FOLDER", "experiment=demo")
    assert all(part in err for part in (*sought, *ways))
    assert "2 problems" in err  # each named once, not once a split
