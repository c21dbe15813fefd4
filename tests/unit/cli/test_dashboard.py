"""lpt-dashboard: what is refused, and what is saved on a W&B that is not there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import pytest

pytest.importorskip("wandb_workspaces", reason="the extra dashboard is not installed")
import wandb
from wandb_workspaces.reports.v2 import Report
from wandb_workspaces.workspaces import Workspace

from lpt.cli.dashboard import main
from lpt.config.extras import EXTRAS
from lpt.errors import USAGE_ERROR
from tests.support.keys import KEYS

pytestmark = pytest.mark.usefixtures("wandb_home")
RUN = SimpleNamespace(config={"task": {"name": "toy", "metric": "accuracy"}})


def serve(monkeypatch: pytest.MonkeyPatch, runs: list[Any] | Exception) -> list[dict[str, Any]]:
    """A W&B with a project of such runs; the filters that it is asked for."""
    asked: list[dict[str, Any]] = []

    def find(path: str, filters: dict[str, Any], **_: Any) -> list[Any]:
        asked.append({"path": path, **filters})
        if isinstance(runs, Exception):
            raise runs
        return runs

    monkeypatch.setenv("WANDB_API_KEY", KEYS["WANDB_API_KEY"])
    api = create_autospec(wandb.Api, instance=True, default_entity="me")
    api.runs.side_effect = find
    monkeypatch.setattr(wandb, "Api", lambda: api)
    return asked


def test_both_are_saved_and_their_addresses_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = []

    def save(self: Any) -> Any:
        saved.append(self)
        return SimpleNamespace(url=f"https://w/{type(self).__name__}")

    monkeypatch.setattr(Workspace, "save", save)
    monkeypatch.setattr(Report, "save", save)
    asked = serve(monkeypatch, [RUN, RUN])
    assert main(["--project", "p", "--sweep", "layers"]) == 0
    out = capsys.readouterr().out
    assert out == "workspace: https://w/Workspace\nreport: https://w/Report\n"
    [filters] = asked
    assert (filters["path"], filters["group"]) == ("me/p", "layers")
    assert [(x.entity, x.project) for x in saved] == [("me", "p")] * 2


@pytest.mark.parametrize(
    ("runs", "arguments", "told"),
    [
        ([], [], "--project: me/p has no finished runs"),
        ([SimpleNamespace(config={})], [], "--project: me/p has no finished runs"),
        ([], ["--sweep", "layers"], "--sweep: layers of me/p has no finished runs"),
        (ValueError("Could not find project p"), [], "Could not find project p"),
    ],
)
def test_a_project_without_runs(
    runs: list[Any] | Exception,
    arguments: list[str],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    serve(monkeypatch, runs)
    assert main(["--project", "p", *arguments]) == USAGE_ERROR
    assert told in capsys.readouterr().err


def test_without_a_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--project", "p"]) == USAGE_ERROR
    message = capsys.readouterr().err
    assert "not logged in" in message
    assert "wandb login" in message


def test_without_the_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(EXTRAS, "dashboard", ("wandb", "no_such_package"))
    assert main(["--project", "p"]) == USAGE_ERROR
    message = capsys.readouterr().err
    assert "not installed: no_such_package" in message
    assert ".[dashboard]" in message
