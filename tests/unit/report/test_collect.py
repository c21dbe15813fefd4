"""What is found below folders, and how damaged files are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from lpt.errors import ConfigError, Problems
from lpt.report import write_report
from lpt.report.collect import collect
from tests.support.runs import metrics, write_job, write_run


def test_runs_are_read_into_one_table(tmp_path: Path) -> None:
    write_run(tmp_path / "a" / "b", metrics(prompt__layer=3, test=None, seconds=20.0))
    found = collect([tmp_path, tmp_path / "a"], Problems())
    (run,) = found.runs.to_dict("records")
    assert (run["dev/accuracy"], run["zero_shot/dev/accuracy"]) == (0.8, 0.6)
    assert "test/accuracy" not in run
    assert run["command"] == "python -m lpt.cli.train task=sst2 seed=13"
    (config,) = found.config.to_dict("records")
    assert config["prompt.layer"] == 3
    assert config["task.label_words"] == '["terrible", "great"]'


@pytest.mark.parametrize(
    ("state", "reason"), [("failed", "a b"), ("finished", "metrics.json is missing")]
)
def test_jobs_without_a_result(tmp_path: Path, state: str, reason: str) -> None:
    write_run(tmp_path / "a", metrics(), {"settings": {"prompt": "npg", "seed": "13"}})
    settings = {"prompt": "static", "seed": "13"}
    write_job(tmp_path / "b", state=state, settings=settings, overrides=["x=1"], reason="a\nb")
    found = collect([tmp_path], Problems())
    assert found.unfinished.to_numpy().tolist() == [
        ["b", state, reason, "python -m lpt.cli.train x=1"]
    ]
    assert found.swept == {"prompt.kind"}


def test_all_problems_at_once(tmp_path: Path) -> None:
    write_run(tmp_path / "good", metrics())
    write_run(tmp_path / "wrong", metrics(cost__train_seconds="fast"))
    (write_job(tmp_path / "job") / "job.json").write_text("{")
    with pytest.raises(ConfigError) as caught:
        write_report([tmp_path, tmp_path / "nowhere"], tmp_path / "report")
    for name in ("nowhere", "wrong/metrics.json", "cost.train_seconds", "job/job.json"):
        assert name in str(caught.value)
    assert not (tmp_path / "report").exists()
