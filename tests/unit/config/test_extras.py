"""A missing optional dependency is reported with the command that installs it."""

from __future__ import annotations

import tomllib

import pytest

from lpt.config.extras import EXTRAS, check_extra
from lpt.errors import Problems
from tests.support.configs import ROOT


def test_packages_are_those_of_the_extras() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = project["optional-dependencies"]
    for extra, packages in EXTRAS.items():
        assert [text.partition(">=")[0] for text in declared[extra]] == list(packages)


def test_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    problems = Problems()
    check_extra("demo", "model.gguf_file", problems)
    assert problems.found == []
    monkeypatch.setitem(EXTRAS, "demo", ("gguf", "no_such_package"))
    check_extra("demo", "model.gguf_file", problems)
    [problem] = problems.found
    assert problem.given == "not installed: no_such_package"
    assert problem.hint == "pip install 'lpt[demo]'"
