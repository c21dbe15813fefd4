"""Two runs for one folder: one has it, the other is refused and changes nothing in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lpt.errors import USAGE_ERROR
from tests.conftest import toy_overrides
from tests.support.processes import started

pytestmark = pytest.mark.slow
REFUSED = "another process is running in"


@pytest.fixture
def arguments(checkpoints: dict[str, Path], toy_data: Path, tmp_path: Path) -> list[str]:
    return toy_overrides(checkpoints, toy_data, "masked", f"run_dir={tmp_path / 'run'}")


def content(folder: Path) -> dict[str, bytes]:
    """Every file that a run in progress does not write to."""
    return {name: (folder / name).read_bytes() for name in ("config.yaml", "split.json")}


def test_a_folder_in_use_is_refused(arguments: list[str], tmp_path: Path) -> None:
    long = [*arguments, "trainer.max_steps=40000", "trainer.eval_every_steps=20"]
    with started(long, tmp_path / "first.txt") as first:
        first.wait_for_evaluation()
        before = content(first.folder)
        for way in ("overwrite=false", "overwrite=true"):
            with started([*arguments, way], tmp_path / "second.txt") as second:
                assert second.wait() == USAGE_ERROR
            message = "run_dir: " if way == "overwrite=false" else REFUSED
            assert message in second.text
            assert content(first.folder) == before
        assert first.process.poll() is None


def test_of_two_started_at_once_one_runs(arguments: list[str], tmp_path: Path) -> None:
    with (
        started(arguments, tmp_path / "1.txt") as first,
        started(arguments, tmp_path / "2.txt") as second,
    ):
        statuses = sorted((first.wait(), second.wait()))
    assert statuses == [0, USAGE_ERROR], first.text + second.text
    assert (first.folder / "metrics.json").exists()


def test_resuming_waits_for_the_run_in_progress(arguments: list[str], tmp_path: Path) -> None:
    """Then it prints the result of the other one."""
    given = [*arguments, "resume=auto", "trainer.max_steps=200", "trainer.eval_every_steps=100"]
    with started(given, tmp_path / "first.txt") as first:
        first.wait_for_evaluation()
        with started(given, tmp_path / "second.txt") as second:
            assert second.wait() == first.wait() == 0, second.text
    assert "late prompt" in second.text
