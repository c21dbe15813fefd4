"""The environment of a run, taken at its start."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch

from lpt.experiment import run
from lpt.runs import environment
from lpt.runs.environment import current_environment
from lpt.runs.record import RunRecord
from tests.conftest import MakeConfig


def test_versions_and_device_that_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "some GPU")
    assert {"torch", "transformers", "lightning"} <= current_environment("cpu").versions.keys()
    assert current_environment("auto").device == "some GPU"
    assert current_environment("cpu").device != "some GPU"


def test_a_run_needs_no_installed_metadata(
    toy: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a clone that is not installed, or with libraries on a path of their own."""

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(environment, "version", missing)
    record = run(toy("masked"))
    assert record is not None
    assert record.environment.versions == {}
    assert RunRecord.read(tmp_path / "run") == record


def test_revision_is_that_of_the_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "lpt"
    (package / "runs").mkdir(parents=True)
    (package / "__init__.py").touch()
    copied = shutil.copy(environment.__file__, package / "runs")
    spec = importlib.util.spec_from_file_location("environment_of_a_clone", copied)
    assert spec is not None
    clone = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(clone)

    def git(*arguments: str) -> None:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments]
        subprocess.run(command, cwd=package, check=True, capture_output=True)

    assert clone.current_environment("cpu").git_revision is None
    git("init")
    assert clone.current_environment("cpu").git_revision is None  # not lpt's own repository
    git("add", ".")
    git("commit", "-m", "first")
    clean = clone.current_environment("cpu")
    (package / "__init__.py").write_text("changed = True")
    dirty = clone.current_environment("cpu")
    assert clean.git_revision == dirty.git_revision is not None
    assert (clean.git_dirty, dirty.git_dirty) == (False, True)
    monkeypatch.setenv("LPT_REVISION", "abc+")  # of the process that imported the source
    handed = current_environment("cpu")
    assert (handed.git_revision, handed.git_dirty) == ("abc", True)
