"""Several ranks, through the command line: when one ends, all end, and the reason is reported."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from lpt.errors import CTRL_C, FAILURE, PREEMPTED, USAGE_ERROR
from tests.conftest import toy_overrides
from tests.support.outcomes import assert_same
from tests.support.processes import TRAIN, Command, descendants, finished, started

TWO = ("strategy=ddp", "strategy.devices=2")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *TRAIN)
LONG = ("trainer.max_steps=40000", "trainer.eval_every_steps=20")
Arguments = Callable[..., list[str]]


@pytest.fixture
def arguments(checkpoints: dict[str, Path], toy_data: Path, tmp_path: Path) -> Arguments:
    """A short run with every kind of dropout, in a folder of that name."""

    def make(name: str, *more: str) -> list[str]:
        given = (
            *(*TWO, "resume=auto", "trainer.max_steps=60", "trainer.eval_every_steps=20"),
            *("data.batch_size=8", "data.eval_batch_size=2", "data.limit_test=23"),
            *("model.dropout=above", "prompt.dropout=0.2"),
            *(f"run_dir={tmp_path / name}", f"cache.dir={tmp_path / name}-cache"),
        )
        return toy_overrides(checkpoints, toy_data, "masked", *given, *more)

    return make


def test_configuration_problems_are_reported_once(arguments: Arguments, tmp_path: Path) -> None:
    given = arguments("run", "prompt.layer=99")
    printed = finished(given, tmp_path / "output.txt", status=USAGE_ERROR)
    assert printed.count("prompt.layer: 99") == 1
    assert not (tmp_path / "run").exists()


def send(number: signal.Signals, rank: int | None = None) -> Callable[[Command], None]:
    """To a rank or, with None, to the launcher."""
    return lambda run: os.kill(run.ranks()[rank] if rank is not None else run.process.pid, number)


def kill_data_loader(run: Command) -> None:
    """Of the second rank, which fails because of it."""
    for worker in descendants(run.ranks()[1]):
        os.kill(worker, signal.SIGKILL)


def fill_disk(run: Command) -> None:
    """For the first rank, which alone writes checkpoints; what it prints stays below."""
    resource.prlimit(run.ranks()[0], resource.RLIMIT_FSIZE, (200_000, 200_000))


KILLED = "was killed by SIGKILL, possibly out of memory."
SAVED = "Saved a checkpoint at step"
FAULTS: dict[str, tuple[Callable[[Command], None], int, str]] = {
    "rank 0 killed": (send(signal.SIGKILL, 0), FAILURE, f"Rank 0 {KILLED}"),
    "rank 1 killed": (send(signal.SIGKILL, 1), FAILURE, f"Rank 1 {KILLED}"),
    "rank 0 fails": (fill_disk, FAILURE, "Rank 0: "),
    "rank 1 fails": (kill_data_loader, FAILURE, "Rank 1 failed: "),
    "rank 1 signalled": (send(signal.SIGTERM, 1), PREEMPTED, SAVED),
    "SIGTERM": (send(signal.SIGTERM), PREEMPTED, SAVED),
    "SIGUSR1": (send(signal.SIGUSR1), PREEMPTED, SAVED),
    "Ctrl-C": (send(signal.SIGINT), CTRL_C, SAVED),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_all_ranks_end_with_one(arguments: Arguments, tmp_path: Path, fault: str) -> None:
    cause, status, message = FAULTS[fault]
    given = arguments("run", *LONG, "data.num_workers=1")
    with started(given, tmp_path / "output.txt") as run:
        run.wait_for_evaluation()
        cause(run)
        assert run.end() == status, run.text[-3000:]
    assert message in run.text
    assert ("Traceback" in run.text) == ("failed" in message)
    assert message in (run.folder / "log.txt").read_text()
    assert not (run.folder / "metrics.json").exists()


@pytest.mark.slow
def test_a_non_finite_loss_ends_all_ranks(arguments: Arguments, tmp_path: Path) -> None:
    given = arguments("run", "optim.lr=1e30", "optim.warmup_ratio=0")
    printed = finished(given, tmp_path / "output.txt", status=FAILURE)
    assert printed.count("Non-finite ") == 1
    assert "Traceback" not in printed


@pytest.mark.slow
def test_a_rank_that_dies_before_training_ends_the_run(
    arguments: Arguments, tmp_path: Path
) -> None:
    with started(arguments("run"), tmp_path / "output.txt") as run:
        while 1 not in (ranks := run.ranks()):
            assert run.process.poll() is None
        os.kill(ranks[1], signal.SIGKILL)
        assert run.end() == FAILURE
    assert f"Rank 1 {KILLED}" in run.text


@pytest.mark.slow
def test_ranks_end_with_their_launcher(arguments: Arguments, tmp_path: Path) -> None:
    with started(arguments("run", *LONG), tmp_path / "output.txt") as run:
        run.wait_for_evaluation()
        run.process.kill()
        run.end()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_interrupted_ranks_resume(arguments: Arguments, tmp_path: Path, workers: int) -> None:
    """Each rank has its own random numbers, and continues with them."""
    more = (f"data.num_workers={workers}", "trainer.max_steps=400")
    finished(arguments("whole", *more), tmp_path / "whole.txt")
    for interrupt, status in (
        (send(signal.SIGTERM), PREEMPTED),
        (send(signal.SIGKILL, 1), FAILURE),
    ):
        with started(arguments("stopped", *more), tmp_path / f"{status}.txt") as run:
            run.wait_for_evaluation()
            interrupt(run)
            assert run.end() == status, run.text[-3000:]
    printed = finished(arguments("stopped", *more), tmp_path / "stopped.txt")
    assert "Resuming from " in printed
    assert_same(tmp_path / "stopped", tmp_path / "whole")


# Started from outside


@pytest.mark.slow
def test_under_torchrun(arguments: Arguments, tmp_path: Path) -> None:
    """The same run as with the own launcher; a dead rank ends it."""
    finished(arguments("own"), tmp_path / "own.txt")
    finished(arguments("run"), tmp_path / "run.txt", TORCHRUN)
    assert_same(tmp_path / "run", tmp_path / "own")
    with started(arguments("killed", *LONG), tmp_path / "killed.txt", TORCHRUN) as run:
        run.wait_for_evaluation()
        os.kill(run.ranks()[1], signal.SIGKILL)
        assert run.end() == 1
