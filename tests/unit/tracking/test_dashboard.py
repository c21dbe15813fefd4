"""The panels of the W&B workspace and report name what a run and a sweep log."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("wandb_workspaces", reason="the extra dashboard is not installed")
from wandb_workspaces.reports.v2 import WeavePanelSummaryTable

from lpt.config.schema import WandbConfig
from lpt.experiment import run
from lpt.tracking.dashboard import build_report, build_workspace, sections
from lpt.tracking.wandb import log_sweep
from tests.conftest import MakeConfig
from tests.support.wandb_files import OfflineRun

pytestmark = pytest.mark.usefixtures("wandb_home")
TABLE = "sweep/results"


def named_keys() -> set[str]:
    """Every key of a panel, as the library writes it for W&B, without its prefix."""
    keys = set()
    for panel in [panel for found in sections(["accuracy"]).values() for panel in found]:
        if isinstance(panel, WeavePanelSummaryTable):
            keys.add(panel.table_name)
            continue
        written = panel._to_model().config
        given = [getattr(written, name, None) for name in ("x_axis", "y_axis")]
        given += getattr(written, "metrics", None) or []
        keys |= {key.removeprefix("summary:") for key in given if key}
    return keys


def test_every_key_is_logged(toy: MakeConfig, tmp_path: Path) -> None:
    keys = named_keys()
    assert {"layer", "cost/train_seconds", "dev/accuracy", "predictions/test"} < keys
    overrides = ("logger=wandb", "logger.wandb.mode=offline")
    record = run(toy("masked", *overrides))
    assert record is not None
    found = OfflineRun(tmp_path / "run" / "wandb")
    logged = {name.removesuffix("._type") for row in found.history for name in row}
    assert keys - logged == {TABLE}

    # The x and y of a plot over runs are logged together.
    [last] = [row for row in found.history if "layer" in row]
    assert last["layer"] == 3
    assert last["final/test/accuracy"] == record.scores()["test"]["accuracy"]
    assert last["cost/train_seconds"] == record.cost.train_seconds
    [runs] = build_workspace("me", "p", [], None)._to_model().spec.section.run_sets
    for key in runs.grouping:
        section, name = key.name.split(".value.")
        assert found.config[section][name] is not None

    columns, rows = found.table("predictions/test")
    shares = [at for at, name in enumerate(columns) if name.startswith("p(")]
    assert len(shares) == 2
    assert sum(rows[0][at] for at in shares) == pytest.approx(1, abs=1e-5)

    offline = WandbConfig(enabled=True, mode="offline")
    log_sweep(offline, tmp_path / "s", [{"layer": 1}], score="final/test/accuracy")
    assert f"{TABLE}._type" in OfflineRun(tmp_path / "s" / "wandb").summary


@pytest.mark.parametrize("sweep", [None, "layers"])
def test_workspace_and_report_are_valid(sweep: str | None) -> None:
    workspace = build_workspace("me", "p", ["accuracy", "f1"], sweep)._to_model()
    [runs] = workspace.spec.section.run_sets
    assert {"method.value.name", "prompt.value.kind"} < {key.name for key in runs.grouping}
    text = workspace.spec.model_dump_json(by_alias=True, exclude_none=True)
    report = build_report("me", "p", ["accuracy", "f1"], sweep)._to_model()
    written = report.spec.model_dump_json(by_alias=True, exclude_none=True)
    for json in (text, written):
        assert "final/test/f1" in json
        assert '"stddev"' in json
        assert ('"layers"' in json) == (sweep is not None)
    assert '"config","name":"prompt.value.layer"' in written.replace('": "', '":"')
    assert report.display_name == workspace.display_name == f"lpt: {sweep or 'p'}"
