"""What Weights & Biases gets, read back from its offline files, and what is refused before."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lpt.config.command_line import check_overrides
from lpt.config.schema import WandbConfig
from lpt.config.validation import validate
from lpt.errors import ConfigError, Problem, Problems, RunError
from lpt.experiment import run
from lpt.runs.record import RunRecord
from lpt.sweep.space import allowed_layers, combinations, read_space
from lpt.tracking.wandb import check_wandb
from tests.conftest import BeforeStep, MakeConfig
from tests.support.configs import CONF, configured
from tests.support.keys import KEYS
from tests.support.outcomes import read_curves
from tests.support.wandb_files import OfflineRun

OFFLINE = ("logger.wandb.mode=offline", "logger.wandb.group=layers", "logger.wandb.tags=[late,toy]")
SWEEP = CONF / "wandb_sweep.yaml"
KEY = KEYS["WANDB_API_KEY"]
pytestmark = pytest.mark.usefixtures("wandb_home")


def test_a_run_has_its_curves_scores_predictions_and_adapter(
    toy: MakeConfig, tmp_path: Path, wandb_home: Path
) -> None:
    metrics = run(toy("masked", "logger=wandb", *OFFLINE))
    assert metrics is not None
    run_dir = tmp_path / "run"
    found = OfflineRun(run_dir / "wandb")

    assert (found.run.project, found.run.run_group) == ("lpt", "layers")
    assert (found.run.job_type, list(found.run.tags)) == ("run", ["late", "toy"])
    assert (found.run.display_name, found.exit_code) == ("run", 0)

    found.config.pop("_wandb")
    assert found.config == metrics.config
    assert metrics.config["prompt"]["dropout"] is not None  # resolved

    assert found.step_metrics["*"] == "trainer/global_step"
    dev = [(int(at["step"]) - 1, pytest.approx(at["accuracy"])) for at in metrics.dev_history]
    assert found.curve("dev/accuracy") == dev  # Lightning counts from 0
    assert {"final/dev/accuracy", "final/test/accuracy"} < set(metrics.summary())
    for name, value in metrics.summary().items():
        assert found.summary[name] == pytest.approx(value)

    lines = [line.split("\t") for line in (run_dir / "predictions.tsv").read_text().splitlines()]
    columns, rows = found.table("predictions/test")
    assert columns == lines[0]
    texts = [[f"{c:.6f}" if isinstance(c, float) else c for c in row] for row in rows]
    assert texts == lines[1:]
    assert {"good", "bad"} & set(rows[0][-1].split())

    adapter = found.artifacts["adapter"]
    metadata = json.loads(adapter.metadata)
    assert adapter.name == f"adapter-{found.run.run_id}"
    assert metadata["test"] == metrics.test
    assert (metadata["task"], metadata["backbone"]["name"]) == ("reviews", "masked")
    assert (metadata["prompt"]["kind"], metadata["prompt"]["layer"]) == ("npg", 3)
    files = {entry.path: Path(entry.local_path) for entry in adapter.manifest.contents}
    assert set(files) == {"adapter.json", "adapter_model.safetensors"}
    assert {path.parent for path in files.values()} == {(run_dir / "adapter").resolve()}

    assert not found.run.HasField("git")  # a remote's address may hold a token
    # All that is to be sent lies in the run folder.
    outside = [path for path in wandb_home.rglob("*") if path.is_file()]
    assert {path.parent for path in outside} <= {wandb_home / ".cache" / "wandb" / "logs"}


def test_loggers_show_the_same_names(toy: MakeConfig, tmp_path: Path) -> None:
    run(toy("causal", "logger=[csv,tensorboard,wandb]", *OFFLINE))
    names = set(read_curves(tmp_path / "run")[0]) - {"step"}
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert len(list((tmp_path / "run" / "tensorboard").glob("events.*"))) == 1
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

    monkeypatch.setenv("WANDB_API_KEY", KEY)
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


def test_wandbs_own_sweep_file_makes_valid_commands() -> None:
    """Its jobs are those of sweep=layers."""
    sweep = yaml.safe_load(SWEEP.read_text(encoding="utf-8"))
    assert (sweep["program"], sweep["method"]) == ("train.py", "grid")
    parameters = {name: given["values"] for name, given in sweep["parameters"].items()}
    jobs = list(combinations(parameters))
    space = read_space(["model=roberta-large"], configured("sweep=layers").sweep)
    large = configured("model=roberta-large")
    ours = space.grid(lambda _: allowed_layers(large, large.model.layers))
    assert [{key: str(value) for key, value in job.items()} for job in jobs] == list(ours)
    program, given = sweep["command"][:3], sweep["command"][3:]
    assert program == ["${env}", "${interpreter}", "${program}"]
    for job in (jobs[0], jobs[-1]):
        varied = [f"{key}={value}" for key, value in job.items()]  # as W&B's agent writes them
        words = [w for text in given for w in (varied if text == "${args_no_hyphens}" else [text])]
        check_overrides(words, CONF)
        config = configured(*words, "logger.wandb.mode=offline")
        assert validate(config).found == []
        assert (config.prompt.layer, config.seed) == (job["prompt.layer"], job["seed"])
        assert config.logger.wandb.enabled
        assert sweep["metric"]["name"] == f"final/dev/{config.task.metric}"


def test_under_wandbs_agent_the_run_is_the_agents(
    toy: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep123")
    monkeypatch.setenv("WANDB_RUN_ID", "agentrun")
    run(toy("masked", "logger=wandb", *OFFLINE))
    found = OfflineRun(tmp_path / "run" / "wandb").run
    assert (found.run_id, found.sweep_id) == ("agentrun", "sweep123")


def problems_of(mode: str | None, *, enabled: bool = True) -> list[Problem]:
    problems = Problems()
    check_wandb(WandbConfig(enabled=enabled, mode=mode), problems)
    return problems.found


def test_a_user_who_has_logged_in() -> None:
    """Whatever the default host of the installed wandb: its own login writes the key."""
    wandb.login(key=KEY, verify=False)
    wandb.teardown()  # what follows is another process
    assert problems_of(None) == problems_of("online") == []


NO_KEY = ("no W&B key", "logger.wandb.mode=offline")
BAD_KEY = ("WANDB_API_KEY", "logger.wandb.mode=offline")


@pytest.mark.parametrize(
    ("mode", "environment", "refused_for"),
    [
        (None, {}, NO_KEY),
        ("online", {}, NO_KEY),
        ("online", {"WANDB_API_KEY": "short"}, BAD_KEY),
        ("offline", {"WANDB_API_KEY": "short"}, ()),
        (None, {"WANDB_API_KEY": KEY}, ()),
        (None, {"WANDB_MODE": "offline"}, ()),  # the mode of the environment is the default
        (None, {"WANDB_MODE": "disabled"}, ()),
        ("offline", {"WANDB_API_KEY": KEY, "WANDB_MODE": "online"}, ("says online", "unset")),
        ("online", {"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}, ("says offline", "unset")),
        ("online", {"WANDB_API_KEY": KEY, "WANDB_MODE": "disabled"}, ("says disabled", "unset")),
    ],
)
def test_mode_and_key_fit(
    mode: str | None,
    environment: dict[str, str],
    refused_for: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    problems = problems_of(mode)
    assert len(problems) == bool(refused_for)
    for problem in problems:
        given, hint = refused_for
        assert problem.where == "logger.wandb.mode"
        assert given in problem.given
        assert hint in problem.hint
    assert problems_of(mode, enabled=False) == []


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    [problem] = problems_of("offline")
    assert "wandb" in problem.hint


def test_a_missing_key_is_reported_before_training(toy: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no W&B key"):
        run(toy("masked", "logger=wandb"))
    assert not (tmp_path / "run").exists()
