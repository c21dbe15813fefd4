"""lpt-push: what is shared of a run, in a folder and on a Hub that may refuse."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, constants

from lpt.cli.push import main
from lpt.errors import FAILURE, USAGE_ERROR
from lpt.experiment import run
from lpt.predictor import Predictor
from tests.conftest import toy_overrides
from tests.support.configs import configured
from tests.support.hub_server import HubServer
from tests.support.runs import write_sweep

pytest.importorskip("jinja2", reason="needs the extra report")
FILES = {"README.md", "adapter.json", "adapter_model.safetensors"}
SCORES = {13: 0.75, 21: 0.5}
Pushed = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def sweep(
    checkpoints: dict[str, Path], toy_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Two runs that differ in their seed, with made-up scores on test."""
    folder = write_sweep(tmp_path_factory.mktemp("sweeps") / "sweep", seed=["13", "21"])
    for seed, score in SCORES.items():
        run_dir = folder / f"seed{seed}"
        overrides = toy_overrides(checkpoints, toy_data, "masked", f"seed={seed}")
        overrides += [f"run_dir={run_dir}"]
        run(configured(*overrides), overrides)
        change(run_dir / "metrics.json", lambda c: c["test"].update(accuracy=score))  # noqa: B023
    return folder


@pytest.fixture
def push(capsys: pytest.CaptureFixture[str]) -> Pushed:
    """Exit status, output, messages."""

    def call(*arguments: object) -> tuple[int, str, str]:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as error:
            status = int(str(error.code))
        return status, *capsys.readouterr()

    return call


def change(file: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


def test_a_folder_with_the_card_of_a_seed_of_a_sweep(
    push: Pushed, sweep: Path, tmp_path: Path, checkpoints: dict[str, Path], toy_data: Path
) -> None:
    out = tmp_path / "new" / "shared"
    assert push(sweep / "seed13", "--out", out, "--repo", "me/films") == (
        0,
        f"{out}\n",
        "Nothing was uploaded to me/films: --out only writes the files.\n",
    )
    assert {file.name for file in out.iterdir()} == FILES
    card = ModelCard.load(out / "README.md")
    assert "base_model" not in card.content  # it was in a local folder
    assert card.data.library_name == "lpt"
    assert card.data.model_name == "films"
    assert card.data.eval_results is not None
    found = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert found == {
        "accuracy": 0.75,
        "accuracy, mean of 2 runs (standard deviation 0.177)": 0.625,
    }
    metrics = json.loads((sweep / "seed13" / "metrics.json").read_text())
    [row] = [line for line in card.text.splitlines() if line.startswith("| test | accuracy")]
    majority, zero_shot = (metrics[kind]["test"]["accuracy"] for kind in ("majority", "zero_shot"))
    scores = f"{majority:.3f} | {zero_shot:.3f} | 0.750 | 0.625 ± 0.177 |"
    assert row == f"| test | accuracy | {scores}"
    for text in (
        "n = 2",
        metrics["split"]["sha256"],
        f"{metrics['parameters']['trainable']:,} parameters",
        "{text} It was <mask> .",
        "| 1 | great |",
        'Predictor("me/films", model="FOLDER_OR_HUB_ID")',
        "model.path=...",
        "data.path=...",
        "trainer.max_steps=4",
    ):
        assert text in card.text
    shared = b"".join(file.read_bytes() for file in out.iterdir()).decode("latin-1")
    texts = [line.partition("\t")[2] for line in (toy_data / "train.tsv").read_text().splitlines()]
    machine = [
        str(tmp_path),
        str(sweep),
        str(toy_data),
        str(checkpoints["masked"]),
        str(Path.home()),
    ]
    assert [text for text in (*texts, *machine) if text in shared] == []
    moved = Predictor(out, model=checkpoints["masked"])([{"text": "good"}])
    assert moved == Predictor(sweep / "seed13" / "adapter")([{"text": "good"}])


def test_a_run_alone(push: Pushed, sweep: Path, tmp_path: Path) -> None:
    alone = shutil.copytree(sweep / "seed21", tmp_path / "alone")
    change(alone / "metrics.json", lambda c: c.update(test=None, command=[]))
    for name in ("adapter_config.json", "notes.txt"):  # PEFT's, and one that is no adapter's
        (alone / "adapter" / name).write_text("{}")
    assert push(alone, "--out", tmp_path / "shared")[0] == 0
    files = {file.name for file in (tmp_path / "shared").iterdir()}
    assert files == FILES | {"adapter_config.json"}
    card = ModelCard.load(tmp_path / "shared" / "README.md")
    assert card.data.eval_results is not None
    assert [result.dataset_split for result in card.data.eval_results] == ["dev"]
    assert card.data.tags == ["lpt", "late-prompt", "peft"]
    assert "It is one run" in card.text
    assert "nan" not in card.content
    assert "lpt-train" not in card.text


def test_a_backbone_and_data_from_the_hub(push: Pushed, sweep: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(sweep / "seed13", tmp_path / "run")
    change(folder / "adapter" / "adapter.json", lambda c: c["backbone"].update(path="tiny/bert"))

    def edit(content: dict[str, Any]) -> None:
        content["config"]["task"] |= {"hub": "tiny/films", "hub_splits": {"dev": "validation"}}
        content["config"]["data"]["path"] = None
        content["split"]["origin"]["test"] = "official dev set"
        content["command"] = ["model.path=tiny/bert", "data.root=data", "run_dir=run", "seed=13"]

    change(folder / "metrics.json", edit)
    assert push(folder, "--out", tmp_path / "out")[0] == 0
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert (card.data.base_model, card.data.base_model_relation) == ("tiny/bert", "adapter")
    assert card.data.datasets == ["tiny/films"]
    assert card.data.eval_results is not None
    [result] = card.data.eval_results
    assert (result.dataset_type, result.dataset_split) == ("tiny/films", "validation")
    assert "lpt-train model.path=tiny/bert data.root=... seed=13" in card.text
    assert 'Predictor("FOLDER")' in card.text
    sampled = {"test": "official dev set, 9 of 24 sampled with seed 13"}
    change(folder / "metrics.json", lambda c: c["split"]["origin"].update(sampled))
    assert push(folder, "--out", tmp_path / "sample")[0] == 0
    card = ModelCard.load(tmp_path / "sample" / "README.md")
    assert card.data.eval_results is None
    assert sampled["test"] in card.text


def test_it_loads_from_the_hub(
    push: Pushed, sweep: Path, hub: HubServer, checkpoints: dict[str, Path]
) -> None:
    page = f"{constants.ENDPOINT}/me/first"
    status, output, _ = push(sweep / "seed13", "--repo", "me/first")
    assert status == 0
    assert output.startswith(f"{page}/commit/")
    assert {file.name for file in hub.repos["me/first"].iterdir()} == FILES
    assert sum("/commit/" in request for request in hub.asked) == 1
    found = Predictor("me/first", model=checkpoints["masked"])([{"text": "good"}])
    assert found == Predictor(sweep / "seed13" / "adapter")([{"text": "good"}])


def test_a_private_repository_and_a_pull_request(push: Pushed, sweep: Path, hub: HubServer) -> None:
    assert push(sweep / "seed13", "--repo", "me/secret", "--private")[0] == 0
    assert hub.private == {"me/secret"}
    (hub.repos["me/secret"] / "README.md").write_text("before")
    status, output, _ = push(sweep / "seed21", "--repo", "me/secret", "--pr")
    assert (status, output) == (0, f"{constants.ENDPOINT}/me/secret/discussions/1\n")
    assert hub.proposed["me/secret"].keys() == FILES
    assert (hub.repos["me/secret"] / "README.md").read_text() == "before"
    hub.repos["me/public"] = hub.repos["me/secret"]
    status, _, messages = push(sweep / "seed13", "--repo", "me/public", "--private")
    assert status == USAGE_ERROR
    assert "--private: me/public exists and is public" in messages
    assert (hub.repos["me/public"] / "README.md").read_text() == "before"


def test_a_hub_that_refuses(push: Pushed, sweep: Path, hub: HubServer) -> None:
    hub.denied = {"theirs/films": (403, "")}
    for repo, options, reason in (
        ("theirs/films", (), "403"),
        ("theirs/absent", ("--pr",), "Repository Not Found"),
    ):
        status, output, messages = push(sweep / "seed13", "--repo", repo, *options)
        assert (status, output) == (USAGE_ERROR, "")
        assert messages.startswith(f"Found 1 problem:\n1. --repo: {repo}: ")
        assert reason in messages
        assert "hf auth login" in messages
        assert repo not in hub.repos
    hub.denied = {}
    hub.fault, hub.faulty = 400, "/commit/"
    status, _, messages = push(sweep / "seed13", "--repo", "me/half")
    assert status == USAGE_ERROR
    assert "--out FOLDER" in messages
    assert list(hub.repos["me/half"].iterdir()) == []
    hub.fault, hub.faulty = "drop", ""
    status, _, messages = push(sweep / "seed13", "--repo", "me/unreachable")
    assert status == USAGE_ERROR
    assert f"expected: a reachable Hub ({constants.ENDPOINT})\n" in messages
    assert "hint: --out FOLDER" in messages
    constants.HF_HUB_OFFLINE = True
    status, _, messages = push(sweep / "seed13", "--repo", "me/offline")
    assert status == USAGE_ERROR
    assert "offline" in messages


def test_what_is_not_a_sound_run(push: Pushed, sweep: Path, tmp_path: Path, hub: HubServer) -> None:
    folder = shutil.copytree(sweep / "seed13", tmp_path / "run")
    out = tmp_path / "out"

    def refused(run_dir: Path) -> str:
        status, output, messages = push(run_dir, "--out", out)
        assert (status, output) == (USAGE_ERROR, "")
        assert push(run_dir, "--repo", "me/refused")[0] == USAGE_ERROR
        assert not out.exists()
        assert hub.asked == []
        return messages

    assert f"1. {sweep}: a sweep" in refused(sweep)
    assert "no metrics.json" in refused(tmp_path)
    description = folder / "adapter" / "adapter.json"
    change(description, lambda c: c.update(demonstrations=["the film was good"]))
    assert "1 training texts" in refused(folder)
    change(description, lambda c: c.update(demonstrations=[]))
    change(description, lambda c: c["backbone"].update(fingerprint="0"))
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"damaged")
    messages = refused(folder)
    assert "damaged or missing" in messages
    assert "an adapter for the backbone 0" in messages
    description.unlink()
    assert "adapter.json: cannot be read" in refused(folder)


def test_what_the_command_line_lacks(push: Pushed, sweep: Path, tmp_path: Path) -> None:
    seed = sweep / "seed13"
    for arguments, reason in (
        ((), "--repo or --out"),
        (("--repo", "films"), "OWNER/NAME"),
        (("--repo", "me/films", "--pr", "--private"), "--private"),
    ):
        status, _, messages = push(seed, *arguments)
        assert status == USAGE_ERROR
        assert reason in messages
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("mine")
    status, output, messages = push(seed, "--out", tmp_path / "mine")
    assert (status, output) == (USAGE_ERROR, "")
    assert "--out: " in messages
    assert "expected: a new or an empty folder" in messages
    assert (tmp_path / "mine" / "README.md").read_text() == "mine"
    below = tmp_path / "mine" / "README.md" / "below"
    status, output, messages = push(seed, "--out", below)
    assert (status, output) == (FAILURE, "")
    assert messages.startswith(f"{below}: ")
