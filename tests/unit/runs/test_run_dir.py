"""The folder of a run: created, cleared of an earlier run's outputs, locked."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lpt.errors import ConfigError, Problems
from lpt.runs.run_dir import check_run_dir, create_run_dir, is_locked, lock_run_dir
from tests.support.configs import configured


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def names(folder: Path) -> set[str]:
    paths = (path for path in folder.rglob("*") if path.name != ".lock")
    return {str(path.relative_to(folder)) for path in paths}


def test_runs_in_the_same_second_get_folders_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lpt.runs.run_dir.time.strftime", lambda *_: "20260102-030405")
    config = configured("prompt=static", "prompt.layer=9", "seed=7")
    folders = [create_run_dir(config) for _ in range(3)]
    assert len(set(folders)) == 3
    for folder in folders:
        assert folder.is_dir()
        assert folder.parent == Path("runs")
        assert folder.name.startswith("20260102-030405-reviews-smollm2-135m-gguf-static9-s7")


def test_what_an_unfinished_run_left_is_removed_and_the_rest_kept(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    left = "config.yaml metrics.json predictions.tsv log.txt adapter/prompt.safetensors "
    left += "checkpoints/step=10.ckpt tensorboard/events wandb/run/a.wandb"
    foreign = ["notes.txt", "mine/a.txt", "elsewhere/kept.txt"]
    for name in [*left.split(), *foreign[:2], "../elsewhere/kept.txt"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    (folder / "csv").symlink_to(elsewhere)
    config = configured(f"run_dir={folder}", "overwrite=true")
    assert create_run_dir(config) == folder
    assert names(folder) == {"notes.txt", "mine", "mine/a.txt"}
    assert names(elsewhere) == {"kept.txt"}


def test_other_ranks_share_the_folder_and_leave_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = create_run_dir(configured("prompt.layer=9"))
    (run_dir / "log.txt").write_text("rank 0")
    monkeypatch.setenv("RANK", "1")
    assert create_run_dir(configured(f"run_dir={run_dir}")) == run_dir
    assert names(tmp_path / "runs") == {run_dir.name, f"{run_dir.name}/log.txt"}
    with pytest.raises(ConfigError, match="a folder that all ranks see"):
        create_run_dir(configured())


HOLD = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_has_one_run_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    assert not is_locked(folder)
    command = [sys.executable, "-c", HOLD, str(folder / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        assert is_locked(folder)
        with pytest.raises(ConfigError, match="another process"), lock_run_dir(folder, 0):
            pass
        other.kill()
    with lock_run_dir(folder, 0), lock_run_dir(folder, 0):  # the same process may ask twice
        assert is_locked(folder)
    assert not is_locked(folder)


def test_looking_at_a_run_does_not_keep_it_from_starting(tmp_path: Path) -> None:
    """A monitor probes the lock all the time."""
    (tmp_path / ".lock").touch()
    done = threading.Event()

    def probe() -> None:
        while not done.is_set():
            is_locked(tmp_path)

    monitor = threading.Thread(target=probe)
    monitor.start()
    try:
        for _ in range(200):
            with lock_run_dir(tmp_path):
                pass
    finally:
        done.set()
        monitor.join()


def wheres(*overrides: str) -> set[str]:
    problems = Problems()
    check_run_dir(configured(*overrides), problems)
    return {problem.where for problem in problems.found}


def test_an_earlier_run_is_replaced_only_with_overwrite(tmp_path: Path) -> None:
    run_dir = f"run_dir={tmp_path}"
    (tmp_path / "notes.txt").write_text("not of a run")
    assert wheres(run_dir) == set()
    (tmp_path / "checkpoints").mkdir()
    assert wheres(run_dir) == {"run_dir"}
    (tmp_path / "metrics.json").write_text("{}")
    assert wheres(run_dir) == {"run_dir"}
    assert wheres(run_dir, "overwrite=true") == wheres(run_dir, "resume=auto") == set()


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert wheres(f"run_dir={tmp_path}/file/run") == {"run_dir"}
    assert wheres(f"resume={tmp_path}/missing") == {"resume"}
