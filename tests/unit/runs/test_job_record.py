"""job.json and sweep.json."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from lpt.errors import ConfigError
from lpt.runs.job_record import JOB, JobRecord, JobState, NumberRange, SweepRecord


def test_a_job_is_read_as_it_was_written(tmp_path: Path) -> None:
    job = JobRecord(
        name="seed-1",
        settings={"seed": "1"},
        overrides=["seed=1", "task.template='a b'"],
        state=JobState.FAILED,
        reason='it\'s "so"',
        attempts=2,
        started=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        seconds=1.5,
        exit_status=-9,
    )
    job.write(tmp_path / "seed-1")
    assert [path.name for path in (tmp_path / "seed-1").iterdir()] == [JOB]
    assert JobRecord.read(tmp_path / "seed-1") == job
    quoted = "'task.template='\"'\"'a b'\"'\"''"
    assert job.command == f"python -m lpt.cli.train seed=1 {quoted}"


def test_a_sweep_is_read_as_it_was_written(tmp_path: Path) -> None:
    sweep = SweepRecord(
        name="search",
        command="python sweep.py",
        fixed=["task=sst2"],
        space={
            "prompt": ["npg", "mppg"],
            "optim.lr": NumberRange(low=1e-4, high=1e-2, log=True),
            "prompt.length": NumberRange(low=2, high=10, step=4),
        },
        search=True,
    )
    sweep.write(tmp_path)
    again = SweepRecord.read(tmp_path)
    assert again == sweep
    ranges = [again.space[key] for key in ("optim.lr", "prompt.length")]
    assert [r.is_integer for r in ranges if isinstance(r, NumberRange)] == [False, True]


@pytest.mark.parametrize(
    ("content", "faults"),
    [
        (None, 1),
        ("", 1),
        ("[]", 1),
        ('{"name": "a"}', 2),
        ('{"name": 1, "settings": {"seed": 1}, "overrides": [], "state": "lost", "x": 1}', 4),
        ('{"name": "a", "settings": {}, "overrides": [], "seconds": NaN, "attempts": -1}', 2),
    ],
)
def test_a_damaged_job_is_refused_with_all_faults(
    tmp_path: Path, content: str | None, faults: int
) -> None:
    if content is not None:
        (tmp_path / JOB).write_text(content)
    with pytest.raises(ConfigError) as caught:
        JobRecord.read(tmp_path)
    assert len(caught.value.problems) == faults
    assert all(problem.where.startswith(str(tmp_path / JOB)) for problem in caught.value.problems)
