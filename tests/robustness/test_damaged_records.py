"""A damaged record is refused by name: one contract for every kind of JSON file that lpt reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lpt.caching.entry import CacheDescription
from lpt.data.split_file import read_split_file
from lpt.errors import ConfigError
from lpt.experiment import run
from lpt.report import write_report
from lpt.runs.adapter import AdapterDescription
from lpt.runs.job_record import JobRecord, SweepRecord
from lpt.runs.record import BackboneRecord, RunProgress, RunRecord
from tests.conftest import toy_overrides
from tests.support import runs
from tests.support.configs import configured
from tests.support.problems import problems_of

READERS: dict[str, Callable[[Path], object]] = {  # each takes the folder
    "metrics.json": RunRecord.read,
    "job.json": JobRecord.read,
    "sweep.json": SweepRecord.read,
    "progress.json": RunProgress.read,
    "adapter.json": AdapterDescription.read,
    "backbone.json": BackboneRecord.read,
    "entry.json": CacheDescription.read,
    "split.json": read_split_file,
}


@pytest.fixture(scope="module")
def records(
    checkpoints: dict[str, Path], toy_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """Content of each kind: of a run, and of a job and a sweep."""
    folder = tmp_path_factory.mktemp("records")
    where = (f"run_dir={folder / 'run'}", f"cache.dir={folder / 'cache'}")
    run(configured(*toy_overrides(checkpoints, toy_data, "masked", *where)))
    runs.write_sweep(runs.write_job(folder / "sweep", settings={"seed": "1"}), seed=["1"])
    files = {path.name: path for path in folder.rglob("*.json")}
    return {name: json.loads(files[name].read_text()) for name in READERS}


DAMAGES: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "empty": lambda _: b"",
    "object": lambda _: b"{}",
    "truncated": lambda content: json.dumps(content).encode()[:-20],
    "nested": lambda _: b"[" * 100_000,
    "unknown key": lambda content: json.dumps(content | {"more": 1}).encode(),
    "not a number": lambda content: json.dumps(dict.fromkeys(content, float("nan"))).encode(),
    "half a character": lambda content: json.dumps(dict.fromkeys(content, "\ud800")).encode(),
}


@pytest.mark.parametrize("name", READERS)
def test_a_sound_record_is_read(records: dict[str, Any], name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(json.dumps(records[name]))
    READERS[name](tmp_path)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_refused_by_name(
    records: dict[str, Any], name: str, damage: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_bytes(DAMAGES[damage](records[name]))
    problems = problems_of(lambda: READERS[name](tmp_path))
    assert all(str(file) in problem.where for problem in problems)
    assert len("".join(map(str, problems))) < 4000


@pytest.mark.parametrize("name", ["metrics.json", "job.json", "sweep.json"])
def test_no_report_is_made_of_a_damaged_record(name: str, tmp_path: Path) -> None:
    sweep = runs.write_sweep(tmp_path / "sweep", seed=["13"])
    run_dir = runs.write_run(sweep / "jobs" / "a", runs.metrics(), job={"settings": {"seed": "13"}})
    ((sweep if name == "sweep.json" else run_dir) / name).write_text("{")
    with pytest.raises(ConfigError, match=name):
        write_report([sweep], sweep / "report")
    assert not (sweep / "report").exists()
