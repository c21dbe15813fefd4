"""What breaks under a run is told, and what was saved before it is as it was."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from lpt.config.schema import Config
from lpt.errors import ConfigError, RunError
from lpt.experiment import run
from lpt.runs.run_dir import log_to
from lpt.training.checkpoints import read_checkpoint
from tests.conftest import BeforeStep, MakeConfig
from tests.support.outcomes import assert_same

LENGTH = ("trainer.max_steps=12", "trainer.eval_every_steps=3", "seed=5", "prompt.dropout=0.2")


@pytest.fixture
def whole(toy: MakeConfig, tmp_path: Path) -> Path:
    """The folder of an undisturbed run."""
    run(toy("masked", *LENGTH, f"run_dir={tmp_path / 'whole'}"))
    return tmp_path / "whole"


def broken(toy: MakeConfig, tmp_path: Path, *overrides: str) -> Config:
    """The same run, to be disturbed."""
    return toy("masked", *LENGTH, f"run_dir={tmp_path / 'broken'}", "resume=auto", *overrides)


@contextmanager
def no_room() -> Iterator[Callable[[int], None]]:
    """The kernel itself refuses to write more than so many bytes to a file, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def unfinished(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if "unfinished" in path.name or ".tmp" in path.name]


@pytest.mark.parametrize("step", [1, 7])
def test_a_full_disk_while_a_checkpoint_is_written(
    toy: MakeConfig, tmp_path: Path, whole: Path, before_step: BeforeStep, step: int
) -> None:
    config = broken(toy, tmp_path)
    checkpoints = tmp_path / "broken" / "checkpoints"
    with no_room() as limit:
        before_step(step, lambda: limit(1 << 14))  # the log stays below
        with pytest.raises(RunError, match=r"\.ckpt: File too large.*resume=\S+broken goes on"):
            run(config)
    assert unfinished(tmp_path / "broken") == []
    steps = [read_checkpoint(file)["global_step"] for file in checkpoints.glob("*")]
    assert max(steps, default=0) == (6 if step == 7 else 0)
    assert "The run ends with" in (tmp_path / "broken" / "log.txt").read_text()
    run(config)
    assert_same(tmp_path / "broken", whole)


def test_a_full_disk_at_the_end(
    toy: MakeConfig, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = broken(toy, tmp_path)
    with no_room() as limit, monkeypatch.context() as patch:
        patch.setattr("lpt.experiment.save_adapter", lambda *_, **__: limit(16))
        with pytest.raises(RunError, match=r"predictions\.tsv: File too large"):
            run(config)
    assert unfinished(tmp_path / "broken") == []
    assert not (tmp_path / "broken" / "metrics.json").exists()
    run(config)
    assert_same(tmp_path / "broken", whole)


def test_a_log_that_is_lost_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with log_to(tmp_path), no_room() as limit:
        limit(0)
        for _ in range(3):
            logging.getLogger("lpt.training.module").warning("anything")
    told = [line for line in capsys.readouterr().err.splitlines() if "cannot be written" in line]
    assert len(told) == 1
    assert str(tmp_path / "log.txt") in told[0]


def test_a_folder_that_cannot_be_written_to_is_told_before_anything(
    toy: MakeConfig, tmp_path: Path
) -> None:
    """As a user without rights: the superuser may write anywhere."""
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    said = tmp_path / "said.txt"
    said.touch()
    said.chmod(0o666)
    for parent in tmp_path.parents[:3]:
        if parent.owner() == tmp_path.owner() and parent != Path("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)
    config = dataclasses.replace(toy("masked"), run_dir=str(locked / "run"))
    child = os.fork()
    if not child:
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            from lpt.config.validation import validate

            said.write_text("\n".join(map(str, validate(config).found)))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert f"run_dir: {locked} cannot be written to" in said.read_text()
    assert list(locked.iterdir()) == []


def test_the_folder_of_a_run_that_is_gone_ends_it(
    toy: MakeConfig, tmp_path: Path, before_step: BeforeStep
) -> None:
    config = broken(toy, tmp_path)
    before_step(4, lambda: shutil.rmtree(tmp_path / "broken"))
    with pytest.raises(RunError, match="No such file or directory"):
        run(config)
    assert not (tmp_path / "broken" / "metrics.json").exists()


def test_the_best_state_that_is_gone_ends_a_run(
    toy: MakeConfig, tmp_path: Path, before_step: BeforeStep
) -> None:
    config = broken(toy, tmp_path, "optim.lr=1e-12")  # the first evaluation stays the best
    best = tmp_path / "broken" / "checkpoints" / "best.ckpt"
    before_step(10, best.unlink)
    with pytest.raises(RunError, match=r"best\.ckpt was changed or removed.*start the run anew"):
        run(config)
    with pytest.raises(ConfigError, match="the state that is to be tested, is missing"):
        run(config)


WEIGHT = "model.generator.up.weight"
FOREIGN: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "less": (lambda state: state.pop(WEIGHT), f"lacks {WEIGHT}"),
    "more": (lambda state: state.update(other=state[WEIGHT]), "has other, which does not train"),
    "bent": (lambda state: state.update({WEIGHT: state[WEIGHT][1:]}), rf"has {WEIGHT} of shape \("),
}


@pytest.mark.parametrize("change", FOREIGN)
def test_a_state_of_another_run_is_refused(toy: MakeConfig, tmp_path: Path, change: str) -> None:
    config = broken(toy, tmp_path)
    run(config)
    (tmp_path / "broken" / "metrics.json").unlink()
    file = tmp_path / "broken" / "checkpoints" / "last.ckpt"
    state = torch.load(file, weights_only=True)
    alter, told = FOREIGN[change]
    alter(state["state_dict"])
    torch.save(state, file)
    before = file.read_bytes()
    with pytest.raises(RunError, match=rf"{file} is of another run: it .*{told}"):
        run(config)
    assert file.read_bytes() == before


def test_a_cache_that_is_gone_under_a_run_costs_nothing(
    toy: MakeConfig, tmp_path: Path, whole: Path, before_step: BeforeStep
) -> None:
    cache = tmp_path / "cache"
    before_step(4, lambda: shutil.rmtree(cache))
    metrics = run(broken(toy, tmp_path, f"cache.dir={cache}", "cache.memory_gb=0"))
    assert metrics is not None
    assert metrics["cache"]["sets"]
    assert_same(tmp_path / "broken", whole)
    assert not cache.exists()  # the open files were enough


def test_a_clock_that_goes_back_changes_nothing(
    toy: MakeConfig, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    back = itertools.count()
    monkeypatch.setattr(time, "time", lambda: now - 3600.0 * next(back))
    metrics = run(broken(toy, tmp_path))
    assert metrics is not None
    assert 0 < metrics["speed"]["train_seconds"] <= metrics["speed"]["total_seconds"]
    assert_same(tmp_path / "broken", whole)


def test_files_of_the_future_are_read(toy: MakeConfig, tmp_path: Path, whole: Path) -> None:
    """Hidden states of a time to come are as good as others: they are not made again."""
    config = broken(toy, tmp_path, "cache.dir=" + str(tmp_path / "cache"))
    run(config)
    (tmp_path / "broken" / "metrics.json").unlink()
    for path in (*(tmp_path / "cache").rglob("*"), *(tmp_path / "broken").rglob("*")):
        os.utime(path, (time.time() + 1e6, time.time() + 1e6))
    before = states(tmp_path / "cache")
    assert before
    metrics = run(config)
    assert metrics is not None
    assert metrics["cache"]["sets"] == ["dev", "test", "train"]
    assert states(tmp_path / "cache") == before
    assert_same(tmp_path / "broken", whole)


def states(cache: Path) -> dict[Path, tuple[int, int]]:
    """Where the hidden states of each entry lie, and since when."""
    files = {path: path.stat() for path in cache.rglob("hidden.bin")}
    return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in files.items()}
