"""What Weights & Biases is given, read back from the files it writes offline."""

from __future__ import annotations

import csv
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from lpt.config.command_line import check_overrides
from lpt.config.schema import WandbConfig
from lpt.config.validation import validate
from lpt.errors import RunError
from lpt.experiment import run
from lpt.runs.record import summary
from lpt.sweep.space import layers_of, read_space
from lpt.tracking.wandb import log_sweep
from tests.conftest import CONF, Compose, MakeConfig
from tests.support.keys import KEYS, holders
from tests.support.wandb_files import OfflineRun

OFFLINE = ("logger.wandb.mode=offline", "logger.wandb.group=layers", "logger.wandb.tags=[late,toy]")
SWEEP = CONF / "wandb_sweep.yaml"


@pytest.fixture(autouse=True)
def home(wandb_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with a key and nothing else of W&B."""
    monkeypatch.setenv("WANDB_API_KEY", KEYS["WANDB_API_KEY"])
    return wandb_home


def test_a_run_is_there_with_all_it_has_come_to(
    toy: MakeConfig, tmp_path: Path, home: Path
) -> None:
    metrics = run(toy("masked", "logger=wandb", *OFFLINE))
    assert metrics is not None
    run_dir = tmp_path / "run"
    found = OfflineRun(run_dir / "wandb")

    assert (found.run.project, found.run.run_group) == ("lpt", "layers")
    assert (found.run.job_type, list(found.run.tags)) == ("run", ["late", "toy"])
    assert (found.run.display_name, found.exit_code) == ("run", 0)
    resolved = OmegaConf.to_container(OmegaConf.load(run_dir / "config.yaml"))
    assert {key: found.config[key] for key in resolved} == resolved  # type: ignore[union-attr]

    assert found.step_metrics["*"] == "trainer/global_step"
    dev = [(int(at["step"]) - 1, pytest.approx(at["accuracy"])) for at in metrics["dev_history"]]
    assert found.curve("dev/accuracy") == dev  # Lightning counts from 0
    assert {"final/dev/accuracy", "final/test/accuracy"} < set(summary(metrics))
    for name, value in summary(metrics).items():
        assert found.summary[name] == pytest.approx(value)

    lines = [line.split("\t") for line in (run_dir / "predictions.tsv").read_text().splitlines()]
    columns, rows = found.table("predictions/test")
    assert columns == [*lines[0], "text"]
    assert [row[:-1] for row in rows] == lines[1:]
    assert {"good", "bad"} & set(rows[0][-1].split())

    adapter = found.artifacts["adapter"]
    told = json.loads(adapter.metadata)
    assert adapter.name == f"adapter-{found.run.run_id}"
    assert told["test"] == metrics["test"]
    assert (told["task"], told["model"]["name"]) == ("reviews", "masked")
    assert (told["prompt"]["kind"], told["prompt"]["layer"]) == ("npg", 3)
    files = {entry.path: Path(entry.local_path) for entry in adapter.manifest.contents}
    assert set(files) == {"adapter.json", "adapter.safetensors"}
    assert {path.parent for path in files.values()} == {(run_dir / "adapter").resolve()}

    assert not found.run.HasField("git")  # a remote's address may hold a token
    # All that is to be sent lies in the run folder, and the key is not among it.
    written = [path for path in run_dir.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in written)
    assert holders(run_dir) == []
    outside = [path for path in home.rglob("*") if path.is_file()]
    assert {path.parent for path in outside} <= {home / ".cache" / "wandb" / "logs"}


def test_trackers_show_the_same_names(toy: MakeConfig, tmp_path: Path) -> None:
    run(toy("causal", "logger=[csv,tensorboard,wandb]", *OFFLINE))
    with (tmp_path / "run" / "csv" / "metrics.csv").open() as file:
        names = set(csv.DictReader(file).fieldnames or ()) - {"step"}
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    found = OfflineRun(tmp_path / "run" / "wandb")
    tracked = {name for row in found.history for name in row}
    assert {"train/loss", "dev/accuracy", "final/test/accuracy"} < names
    assert set(events.Tags()["scalars"]) == names
    theirs = {"trainer/global_step", "_step", "_timestamp", "_runtime"}
    assert {name for name in tracked - theirs if not name.startswith("predictions/")} == names


def test_logging_the_end_again_adds_no_version(toy: MakeConfig, tmp_path: Path) -> None:
    """A run that is killed just before it has ended logs its table and adapter once more."""
    digests, ids = [], set()
    for turn in range(2):
        run(toy("masked", "logger=wandb", *OFFLINE, "resume=auto"))
        found = OfflineRun(tmp_path / "run" / "wandb")
        digests.append({kind: artifact.digest for kind, artifact in found.artifacts.items()})
        ids.add(found.run.run_id)
        (tmp_path / "run" / "metrics.json").unlink()
        found.folder.rename(tmp_path / f"start-{turn}")
    assert digests[0] == digests[1]
    assert set(digests[0]) == {"adapter", "run_table"}
    assert len(ids) == 1


def test_a_tracker_that_fails_at_the_end_costs_no_results(
    toy: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(wandb, "Table", fail)
    monkeypatch.setattr(wandb.Artifact, "add_dir", fail)
    metrics = run(toy("masked", "logger=wandb", *OFFLINE))
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == metrics
    for lost in ("the predictions of test", "the adapter"):
        assert f"Could not send {lost} to W&B (OSError: no space left)." in caplog.text
    assert "final/test/accuracy" in OfflineRun(tmp_path / "run" / "wandb").summary


def test_a_server_that_refuses_does_so_before_training(
    toy: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise wandb.errors.CommError("permission denied")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(RunError, match=r"permission denied\n.*mode=offline"):
        run(toy("masked", "logger=wandb"))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_run_that_fails_is_shown_as_failed(
    toy: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lpt.experiment.fit_and_score", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(toy("masked", "logger=wandb", *OFFLINE))
    assert OfflineRun(tmp_path / "run" / "wandb").exit_code == 1


def test_wandb_is_not_imported_when_off() -> None:
    code = "import sys, lpt.cli.main, lpt.experiment; print('wandb' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


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


def test_a_sweep_without_the_tracker_or_without_layers(
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


def test_wandbs_own_sweep_file_makes_valid_commands(composed: Compose) -> None:
    """The commands are built as W&B's agent builds them, by its own functions."""
    sweep = yaml.safe_load(SWEEP.read_text(encoding="utf-8"))
    assert (sweep["program"], sweep["method"]) == ("train.py", "grid")
    parameters = {name: given["values"] for name, given in sweep["parameters"].items()}
    jobs = [
        dict(zip(parameters, values, strict=True))
        for values in itertools.product(*parameters.values())
    ]
    layers = composed("sweep=layers").sweep
    space = read_space(["model=roberta-large"], layers.fixed, layers.space, search=False)
    ours = space.points(lambda _: layers_of("npg", composed("model=roberta-large").model.layers))
    assert [{key: str(value) for key, value in job.items()} for job in jobs] == list(ours)
    for job in (jobs[0], jobs[-1]):
        command = {"args": {name: {"value": value} for name, value in job.items()}}
        macros: dict[str, Any] = create_sweep_command_args(command)
        macros |= {"env": ["/usr/bin/env"], "interpreter": ["python"], "program": ["train.py"]}
        chunks = create_sweep_command(list(sweep["command"]))
        words = [w for c in chunks for w in (macros[c[2:-1]] if c.startswith("${") else [c])]
        assert words[:3] == ["/usr/bin/env", "python", "train.py"]
        check_overrides(words[3:], CONF)
        config = composed(*words[3:], "logger.wandb.mode=offline")
        assert validate(config).found == []
        assert (config.prompt.layer, config.seed) == (job["prompt.layer"], job["seed"])
        assert config.logger.wandb.enabled
        final = {f"final/dev/{name}" for name in (config.task.metric, *config.task.metrics)}
        assert sweep["metric"]["name"] in final


def test_under_wandbs_agent_the_run_is_the_agents(
    toy: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep123")
    monkeypatch.setenv("WANDB_RUN_ID", "agentrun")
    run(toy("masked", "logger=wandb", *OFFLINE))
    found = OfflineRun(tmp_path / "run" / "wandb").run
    assert (found.run_id, found.sweep_id) == ("agentrun", "sweep123")


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
