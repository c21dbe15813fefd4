"""The run folder: its own, cleared of what a broken run left, with the log in it."""

from __future__ import annotations

import dataclasses
import logging
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from lightning.pytorch.utilities import rank_zero_only

from lpt.errors import ConfigError
from lpt.runs.run_dir import claim_run_dir, is_locked, lock_run_dir, log_to
from tests.unit.config.test_config import configured

ENVIRONMENT = "LPT_RUN_DIR"


@pytest.fixture(autouse=True)
def _own_folder_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(ENVIRONMENT, "")


def names(folder: Path) -> set[str]:
    paths = (path for path in folder.rglob("*") if path.name != ".lock")
    return {str(path.relative_to(folder)) for path in paths}


def test_runs_in_the_same_second_get_folders_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lpt.runs.run_dir.time.strftime", lambda *_: "20260102-030405")
    config = configured("prompt=static", "seed=7")
    folders = [claim_run_dir(config, layer=9) for _ in range(3)]
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
    assert claim_run_dir(config, layer=2) == folder
    assert names(folder) == {"notes.txt", "mine", "mine/a.txt"}
    assert names(elsewhere) == {"kept.txt"}


def test_missing_folder_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    claim_run_dir(configured(f"run_dir={folder}"), layer=2)
    assert folder.is_dir()


def test_other_processes_share_the_folder_and_leave_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(configured(), run_dir=None)
    first = claim_run_dir(config, layer=2)
    (first / "log.txt").write_text("the first process")
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert claim_run_dir(config, layer=2) == first
    with log_to(first):
        logging.getLogger("lpt.training.module").warning("the second process")
    assert (first / "log.txt").read_text() == "the first process"
    assert names(tmp_path / "runs") == {first.name, f"{first.name}/log.txt"}


def test_log_file_gets_warnings_until_the_run_ends(tmp_path: Path) -> None:
    shown = warnings.showwarning
    with log_to(tmp_path):
        logging.getLogger("lpt.training.callbacks.progress").warning(
            "All predictions are one class."
        )
        logging.getLogger("lightning.pytorch.trainer").error("Something of Lightning's.")
        logging.getLogger("elsewhere").error("Not of this run.")
        warnings.warn("A Python warning.", stacklevel=1)
    logging.getLogger("lpt.training.callbacks.progress").warning("After the run.")
    log = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert "WARNING lpt.training.callbacks.progress: All predictions are one class." in log
    assert "Something of Lightning's." in log
    assert "UserWarning: A Python warning." in log
    assert "Not of this run." not in log
    assert "After the run." not in log
    assert warnings.showwarning is shown


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
        told = "another process is running in"
        with pytest.raises(ConfigError, match=told), lock_run_dir(folder, 0):
            pass
        other.kill()
    with lock_run_dir(folder, 0), lock_run_dir(folder, 0):  # the same process may ask twice
        assert is_locked(folder)
    assert not is_locked(folder)
