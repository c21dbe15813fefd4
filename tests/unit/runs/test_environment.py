"""The environment of a run, taken at its start."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

from lpt.runs import environment
from lpt.runs.environment import current_environment


def test_versions_and_revision() -> None:
    found = current_environment("cpu")
    assert {"torch", "transformers", "lightning"} <= found.versions.keys()
    assert found.python.startswith("3.")
    assert found.device


def test_device_is_the_one_that_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "some GPU")
    assert current_environment("auto").device == "some GPU"
    assert current_environment("cpu").device != "some GPU"


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_revision_is_that_of_the_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_PACKAGE_DIR", tmp_path)
    (tmp_path / "__init__.py").write_text("")
    assert current_environment("cpu").git_revision is None
    git(tmp_path, "init")
    assert current_environment("cpu").git_revision is None  # not lpt's own repository
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    clean = current_environment("cpu")
    (tmp_path / "__init__.py").write_text("changed = True")
    dirty = current_environment("cpu")
    assert clean.git_revision == dirty.git_revision is not None
    assert (clean.git_dirty, dirty.git_dirty) == (False, True)
