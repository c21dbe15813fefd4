"""Several ranks: whatever happens to one of them, the job ends, says why, and can go on."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
from multiprocessing.connection import Listener
from pathlib import Path

import pytest

from lpt.errors import PREEMPTED, RunError
from lpt.training.rank_monitor import End, Ranks
from tests.support.outcomes import assert_same
from tests.support.processes import until
from tests.support.ranked import TWO, Arguments, finished, result, started, told

# What ranks say


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (None, 0, ""),
        (SystemExit(PREEMPTED), PREEMPTED, "was stopped by a signal"),
        (SystemExit(2), 2, "ended before the others, with status 2"),
        (SystemExit("why"), 1, "ended before the others, with status 1"),
        (RunError("The loss is nan."), 1, "failed: The loss is nan."),
        (KeyError("x"), 1, "failed: KeyError('x')"),
    ],
)
def test_how_a_rank_ends(error: BaseException | None, status: int, reason: str) -> None:
    assert End.by(3, error) == (3, status, reason)


@pytest.mark.parametrize(
    ("command", "status", "reason"),
    [
        ("exit 3", 3, "ended before the others, with status 3"),
        ("exit 0", 1, "ended before the others, with status 0"),
        ("kill -9 $$", 1, "was killed by SIGKILL, perhaps for want of memory"),
        ("kill -11 $$", 1, "was killed by SIGSEGV"),
    ],
)
def test_a_rank_that_ends_before_all_have_met(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    command: str,
    status: int,
    reason: str,
) -> None:
    """The first one waits for it, for half an hour: it is ended from outside, and ends the rest."""
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr("lpt.training.rank_monitor._NEWS_SECONDS", 0.1)
    monkeypatch.setattr("lpt.training.rank_monitor._END_SECONDS", 0.1)
    commands = {1: ["sleep", "60"], 2: ["sh", "-c", command]}
    children = {rank: subprocess.Popen(given) for rank, given in commands.items()}
    ranks = Ranks()
    ranks.look_after(children)
    until(lambda: ended)
    assert ended == [status]
    assert ranks.end == (2, status, reason)
    assert f"The run ends because rank 2 {reason}" in caplog.text
    assert children[1].poll() == -signal.SIGKILL


def test_a_silent_stranger_keeps_no_rank_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a scan of a cluster's ports, or a rank of another run."""
    monkeypatch.setattr("lpt.training.rank_monitor._HELLO_SECONDS", 1)
    first, second, impostor = Ranks(), Ranks(), Ranks()
    second.rank = impostor.rank = 1
    listener = Listener(("127.0.0.1", 0))
    port = listener.address[1]
    with socket.create_connection(("127.0.0.1", port)):
        letting = threading.Thread(target=first._let_in, args=(listener, 1, b"word"), daemon=True)
        letting.start()
        impostor._join("127.0.0.1", port, b"another word")
        assert not first.others
        second._join("127.0.0.1", port, b"word")
        letting.join(20)
    assert list(first.others) == [1]
    assert not impostor.others
    second.others[0].send_bytes(b"after the time to say hello")
    assert first.others[1].recv_bytes() == b"after the time to say hello"


# Runs


@pytest.fixture
def arguments(checkpoints: dict[str, Path], toy_data: Path, tmp_path: Path) -> Arguments:
    """A short run with every kind of dropout, in a folder of that name."""

    def make(name: str, *more: str) -> list[str]:
        return [
            *("model=local", f"model.path={checkpoints['masked']}", "task=reviews"),
            *("prompt.layer=3", f"data.path={toy_data}", "task.labels=['0','1']"),
            *("data.max_length=64", "data.batch_size=8", "data.eval_batch_size=2"),
            *("trainer.max_steps=12", "trainer.eval_every_steps=3", "strategy.accelerator=cpu"),
            *("model.dropout=above", "prompt.dropout=0.2", "data.limit_test=23", "resume=auto"),
            *(f"run_dir={tmp_path / name}", f"cache.dir={tmp_path / name}-cache", *TWO, *more),
        ]

    return make


KILLED = "because rank 1 was killed by SIGKILL, perhaps for want of memory"
FAULTS = {
    "1 training_step kill": (1, KILLED),
    "1 validation_step kill": (1, KILLED),
    "1 predict_step kill": (1, KILLED),  # while the cache is filled
    "0 training_step kill": (-9, "because rank 0 is gone without a word"),
    "0 predict_step kill": (-9, "because rank 0 is gone without a word"),
    "1 training_step raise": (1, "because rank 1 failed: ValueError('a fault of one rank')"),
    "0 validation_step raise": (1, "ValueError: a fault of one rank"),
    "1 loss nan": (1, "The loss is nan at step 4"),
    "0 loss nan": (1, "The loss is nan at step 4"),
    "1 validation_step ask": (PREEMPTED, "because rank 1 was stopped by a signal"),
    "0 validation_step ask": (PREEMPTED, "Stopped by SIGTERM"),
    "0 predict_step ask-all": (PREEMPTED, "Stopped by SIGTERM"),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_rank_that_ends_takes_the_others_along(
    arguments: Arguments, tmp_path: Path, fault: str
) -> None:
    status, reason = FAULTS[fault]
    output = tmp_path / "output.txt"
    with started(arguments("run"), output, {"FAULT": fault}) as process:
        assert result(process, output) == status
    assert "met at" in told(output)
    assert reason in told(output)
    if "loss" in fault:
        (rows,) = re.findall(r"met (with rows .*)", told(output))
        assert f"in the batch {rows} Earlier" in told(output)
    assert "Connection closed" not in told(output)  # by the peer: what another rank makes of it
    assert not (tmp_path / "run" / "metrics.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_interrupted_ranks_go_on(arguments: Arguments, tmp_path: Path, workers: int) -> None:
    """Asked by a cluster, of one rank or of all, then killed: each has its random numbers."""
    more = (f"data.num_workers={workers}", "trainer.max_steps=21")
    finished(arguments("whole", *more), tmp_path / "whole.txt")
    stops = {
        "0 training_step ask": PREEMPTED,
        "1 training_step ask": PREEMPTED,
        "1 training_step ask-all": PREEMPTED,
        "1 training_step kill-all": -signal.SIGKILL,
    }
    for fault, status in stops.items():
        output = tmp_path / f"{fault}.txt"
        with started(arguments("stopped", *more), output, {"FAULT": fault}) as process:
            assert result(process, output) == status, told(output)[-3000:]
        assert ("Saved at step" in told(output)) == (status == PREEMPTED)
    finished(arguments("stopped", *more), tmp_path / "stopped.txt")
    assert "Going on at step" in told(tmp_path / "stopped.txt")
    assert_same(tmp_path / "stopped", tmp_path / "whole")


# Started from outside


def by_hand(port: int, nodes: int) -> list[dict[str, str]]:
    """What a launcher tells each of two processes: on one node, or on one each."""
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    if nodes == 2:
        return [common | {"NODE_RANK": str(rank), "LOCAL_RANK": "0"} for rank in range(2)]
    return [common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("dies", [0, 1, None])
def test_processes_started_from_outside_end_together(
    arguments: Arguments, tmp_path: Path, nodes: int, dies: int | None
) -> None:
    given = arguments("run", f"strategy.num_nodes={nodes}", f"strategy.devices={2 // nodes}")
    outputs = [tmp_path / f"{rank}.txt" for rank in range(2)]
    environments = by_hand(free_port(), nodes)
    if dies is not None:
        local = environments[dies]["LOCAL_RANK"]
        environments[dies]["FAULT"] = f"{local} training_step kill"
    with (
        started(given, outputs[0], environments[0]) as first,
        started(given, outputs[1], environments[1]) as second,
    ):
        ended = [result(process, outputs[dies or 0]) for process in (first, second)]
    if dies is None:
        assert ended == [0, 0]
        assert (tmp_path / "run" / "metrics.json").exists()
        return
    assert ended[dies] == -signal.SIGKILL
    assert ended[1 - dies] == 1
    assert f"The run ends because rank {dies} is gone without a word" in told(outputs[1 - dies])
