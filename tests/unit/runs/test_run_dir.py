"""The folder of a run: created, cleared of an earlier run's outputs, locked; its log.txt."""

from __future__ import annotations

import fcntl
import logging
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from lpt.errors import ConfigError, Problems
from lpt.runs.run_dir import check_run_dir, create_run_dir, is_locked, lock_run_dir, log_to
from tests.support.configs import configured


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def names(folder: Path) -> set[str]:
    paths = (path for path in folder.rglob("*") if path.name != ".lock")
    return {str(path.relative_to(folder)) for path in paths}


def test_runs_in_the_same_second_get_folders_of_their_own() -> None:
    config = configured("prompt=static", "prompt.layer=9", "seed=7")
    folders = {create_run_dir(config) for _ in range(5)}
    assert folders == {*Path("runs").iterdir()}
    assert len(folders) == 5
    assert all("-reviews-smollm2-135m-gguf-static9-s7" in folder.name for folder in folders)


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


def test_a_folder_has_one_run_at_a_time(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    with FileLock(tmp_path / ".lock"):  # as another process holds it
        assert is_locked(tmp_path)
        with pytest.raises(ConfigError, match="another process"), lock_run_dir(tmp_path, 0):
            pass
    with lock_run_dir(tmp_path, 0), lock_run_dir(tmp_path, 0):  # the same process may ask twice
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)


def test_looking_at_a_run_does_not_keep_it_from_starting(tmp_path: Path) -> None:
    """A monitor probes the lock all the time."""
    (tmp_path / ".lock").touch()
    with ThreadPoolExecutor(4) as monitors:
        probes = [monitors.submit(look_often, tmp_path) for _ in range(4)]
        started = 0
        while not all(probe.done() for probe in probes):
            with lock_run_dir(tmp_path):
                started += 1
    assert started > 0


def look_often(folder: Path) -> None:
    for _ in range(2000):
        is_locked(folder)


def test_who_looks_is_not_taken_for_a_run(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    lock.touch()
    lock.chmod(0o444)
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # as another process that looks
        assert not is_locked(tmp_path)
    with lock_run_dir(tmp_path):
        assert all(is_locked(tmp_path) for _ in range(5))
    assert not is_locked(tmp_path)


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
    assert wheres(run_dir, "overwrite=true") == wheres(run_dir, "resume=auto") == set()


def test_a_file_in_the_way_is_reported_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    problems = Problems()
    check_run_dir(configured("run_dir=notes.txt/run"), problems)
    assert [problem.where for problem in problems.found] == ["run_dir"]
    assert "notes.txt is not a writable folder" in problems.found[0].given


def test_only_an_existing_folder_can_be_resumed(tmp_path: Path) -> None:
    assert wheres(f"resume={tmp_path}/missing") == {"resume"}


@pytest.mark.filterwarnings("default:A Python warning")
def test_log_file_gets_warnings_until_the_run_ends(tmp_path: Path) -> None:
    shown = warnings.showwarning
    with log_to(tmp_path):
        logging.getLogger("lpt.training.callbacks.dev_history").warning(
            "All predictions are one class."
        )
        logging.getLogger("lightning.pytorch.trainer").error("Something of Lightning's.")
        logging.getLogger("elsewhere").error("Not of this run.")
        warnings.warn("A Python warning.", stacklevel=1)
    logging.getLogger("lpt.training.callbacks.dev_history").warning("After the run.")
    log = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert "WARNING lpt.training.callbacks.dev_history: All predictions are one class." in log
    assert "Something of Lightning's." in log
    assert "UserWarning: A Python warning." in log
    assert "Not of this run." not in log
    assert "After the run." not in log
    assert warnings.showwarning is shown


def test_other_ranks_do_not_write_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with log_to(tmp_path):
        logging.getLogger("lpt.training.module").warning("of rank 1")
    assert not list(tmp_path.iterdir())
