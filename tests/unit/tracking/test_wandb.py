"""What Weights & Biases gets, read back from the files that it writes offline."""

from __future__ import annotations

import itertools
import json
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
from lpt.config.validation import validate
from lpt.errors import RunError
from lpt.experiment import run
from lpt.runs.record import RunRecord
from lpt.sweep.space import allowed_layers, read_space
from tests.conftest import CONF, BeforeStep, Compose, MakeConfig
from tests.support.csv_curves import read_curves
from tests.support.keys import KEYS, holders
from tests.support.wandb_files import OfflineRun

OFFLINE = ("logger.wandb.mode=offline", "logger.wandb.group=layers", "logger.wandb.tags=[late,toy]")
SWEEP = CONF / "wandb_sweep.yaml"


@pytest.fixture(autouse=True)
def home(wandb_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with a key and nothing else of W&B."""
    monkeypatch.setenv("WANDB_API_KEY", KEYS["WANDB_API_KEY"])
    return wandb_home


def test_a_run_has_its_configuration_curves_scores_predictions_and_adapter(
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
    dev = [(int(at["step"]) - 1, pytest.approx(at["accuracy"])) for at in metrics.dev_history]
    assert found.curve("dev/accuracy") == dev  # Lightning counts from 0
    assert {"final/dev/accuracy", "final/test/accuracy"} < set(metrics.summary())
    for name, value in metrics.summary().items():
        assert found.summary[name] == pytest.approx(value)

    lines = [line.split("\t") for line in (run_dir / "predictions.tsv").read_text().splitlines()]
    columns, rows = found.table("predictions/test")
    assert columns == [*lines[0], "text"]
    assert [row[:-1] for row in rows] == lines[1:]
    assert {"good", "bad"} & set(rows[0][-1].split())

    adapter = found.artifacts["adapter"]
    metadata = json.loads(adapter.metadata)
    assert adapter.name == f"adapter-{found.run.run_id}"
    assert metadata["test"] == metrics.test
    assert (metadata["task"], metadata["backbone"]["name"]) == ("reviews", "masked")
    assert (metadata["prompt"]["kind"], metadata["prompt"]["layer"]) == ("npg", 3)
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


def test_loggers_show_the_same_names(toy: MakeConfig, tmp_path: Path) -> None:
    run(toy("causal", "logger=[csv,tensorboard,wandb]", *OFFLINE))
    names = set(read_curves(tmp_path / "run")[0]) - {"step"}
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    found = OfflineRun(tmp_path / "run" / "wandb")
    tracked = {name for row in found.history for name in row}
    assert {"train/loss", "dev/accuracy", "final/test/accuracy"} < names
    assert set(events.Tags()["scalars"]) == names
    theirs = {"trainer/global_step", "_step", "_timestamp", "_runtime"}
    assert {name for name in tracked - theirs if not name.startswith("predictions/")} == names


def test_logging_results_again_adds_no_version(toy: MakeConfig, tmp_path: Path) -> None:
    """A run killed just before its end logs its table and adapter a second time."""
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


def test_a_failure_at_the_end_costs_no_results(
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
    assert RunRecord.read(tmp_path / "run") == metrics
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
    toy: MakeConfig, tmp_path: Path, before_step: BeforeStep
) -> None:
    before_step(2, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(toy("masked", "logger=wandb", *OFFLINE))
    assert OfflineRun(tmp_path / "run" / "wandb").exit_code == 1


def test_wandb_is_not_imported_when_off() -> None:
    code = "import sys, lpt.cli.main, lpt.experiment; print('wandb' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


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
    ours = space.grid(lambda _: allowed_layers("npg", composed("model=roberta-large").model.layers))
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
