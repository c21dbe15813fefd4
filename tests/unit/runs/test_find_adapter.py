"""An adapter is found by its folder, by the folder of its run, and by its id on the Hub."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lpt import Predictor, load_adapter
from lpt.experiment import run
from lpt.runs.find_adapter import find_adapter
from tests.conftest import toy_overrides
from tests.support.configs import configured
from tests.support.hub_server import COMMIT, HubServer
from tests.support.problems import problem_of

ROWS = [{"text": "a good film"}, {"text": "bad"}]


@pytest.fixture(scope="module")
def run_dir(
    checkpoints: dict[str, Path], toy_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("found") / "run"
    run(configured(*toy_overrides(checkpoints, toy_data, "masked"), f"run_dir={folder}"))
    return folder


def test_the_folder_of_the_adapter_or_of_its_run(run_dir: Path) -> None:
    assert find_adapter(run_dir) == find_adapter(str(run_dir / "adapter")) == run_dir / "adapter"
    assert load_adapter(run_dir).split.layer == 3
    assert Predictor(run_dir)(ROWS) == Predictor(run_dir / "adapter")(ROWS)


def test_an_id_on_the_hub(
    hub: HubServer, run_dir: Path, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(run_dir / "adapter", tmp_path / "repo")
    (tmp_path / "repo" / "README.md").write_text("a model card")
    hub.repos |= {"alice/reviews": tmp_path / "repo", "bob/other": checkpoints["masked"]}
    expected = Predictor(run_dir)(ROWS)
    for source in ("alice/reviews", "alice/reviews@v1.0", f"alice/reviews@{COMMIT}"):
        assert Predictor(source, model=checkpoints["masked"])(ROWS) == expected
    assert not any("README" in request for request in hub.asked)
    problem = problem_of(lambda: Predictor("alice/reviews"))
    assert problem.where == "model"
    assert "whose backbone masked was a local folder" in problem.given
    problem = problem_of(lambda: find_adapter("bob/other"))
    assert problem.given == "bob/other, which has no adapter.json on the Hub"
    problem = problem_of(lambda: find_adapter("alice/reviews@v9"))
    assert problem.where == "adapter"
    assert problem.given == "v9, which alice/reviews does not have on the Hub"
    problem = problem_of(lambda: find_adapter("alice/none"))
    assert problem.given == "alice/none, which is not on the Hub or is private"
    hub.fault = "drop"
    assert find_adapter("alice/reviews").name == COMMIT  # in the local cache
    problem = problem_of(lambda: find_adapter("alice/new"))
    assert "unavailable" in problem.given
    assert problem.expected.endswith("; there is no folder alice/new")


def test_no_adapter(run_dir: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / "run"
    unfinished.mkdir()
    problem = problem_of(lambda: find_adapter(unfinished))
    assert problem.where == "adapter"
    assert problem.given == f"{unfinished}, which has no adapter.json"
    shutil.copy(run_dir / "config.yaml", unfinished)
    problem = problem_of(lambda: find_adapter(unfinished))
    assert problem.given.endswith("in adapter/: the run has not finished")
    assert f"resume={unfinished}" in problem.hint
    problem = problem_of(lambda: find_adapter(tmp_path / "absent"))
    assert problem.given.endswith("which is neither a local folder nor a possible Hub id")
