"""Jobs on this machine: slots and devices, order, environment, and stopping all of them."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from lpt.runs.job_record import JobRecord, JobState
from lpt.sweep.jobs import OUTPUT
from lpt.sweep.pool import run_pool, slots, visible_gpus
from tests.support.processes import DEAF, FINISH, POLITE, SECONDS, alive, shell, until

SHOW = "echo gpus=$CUDA_VISIBLE_DEVICES threads=$OMP_NUM_THREADS"
TOGETHER = "touch started; while [ $(ls ../*/started | wc -l) -lt 2 ]; do sleep 0.02; done"


@pytest.mark.parametrize(
    ("jobs", "devices", "gpus", "expected"),
    [
        (None, 1, "", [()]),
        (3, 2, "", [(), (), ()]),
        (None, 1, "0123", [("0",), ("1",), ("2",), ("3",)]),
        (2, 1, "0123", [("0",), ("1",)]),
        (None, 2, "01234", [("0", "1"), ("2", "3")]),
        (None, 4, "01", [("0", "1")]),
        (3, 1, "57", [("5",), ("7",), ("5",)]),
    ],
)
def test_slots(jobs: int | None, devices: int, gpus: str, expected: list[tuple[str, ...]]) -> None:
    assert slots(jobs, devices, list(gpus)) == expected


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with two GPUs for this process, and six cores."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,8")
    monkeypatch.setenv("OMP_NUM_THREADS", "0")  # so that it is restored
    monkeypatch.delenv("OMP_NUM_THREADS")
    return monkeypatch


def test_visible_gpus(machine: pytest.MonkeyPatch) -> None:
    assert visible_gpus() == ["4", "6"]
    machine.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus() == ["0", "1"]


def run(folder: Path, *scripts: str, at_a_time: int | None = None, gpu: bool = True) -> None:
    """Run jobs 0, 1, ..., whose runs are these shell scripts, in folders side by side."""
    for number, script in enumerate(scripts):
        job = JobRecord(name=str(number), settings={}, overrides=[script], gpu=gpu)
        job.write(folder / job.name)
    run_pool([folder / str(number) for number in range(len(scripts))], at_a_time, start=shell)


def jobs(folder: Path) -> list[JobRecord]:
    return [JobRecord.read(path) for path in sorted(folder.iterdir())]


def test_jobs_run_in_their_order_whatever_becomes_of_them(
    tmp_path: Path, machine: pytest.MonkeyPatch
) -> None:
    order = "basename $PWD >> ../../order"
    scripts = (f"{order}; {FINISH}", f"{order}; exit 3", "kill -KILL $$", f"{order}; {FINISH}")
    run(tmp_path / "jobs", *scripts, gpu=False)
    finished, failed = JobState.FINISHED, JobState.FAILED
    assert [job.state for job in jobs(tmp_path / "jobs")] == [finished, failed, failed, finished]
    assert (tmp_path / "order").read_text().split() == ["0", "1", "3"]
    assert "OMP_NUM_THREADS" not in os.environ  # one job may use all cores


@pytest.mark.parametrize(
    ("gpu", "variables", "shown", "devices"),
    [
        (False, {}, {"gpus=4,6,8 threads=3"}, {"CPU"}),
        (False, {"OMP_NUM_THREADS": "5"}, {"gpus=4,6,8 threads=5"}, {"CPU"}),
        (True, {}, {"gpus=4 threads=3", "gpus=6 threads=3"}, {"GPU 4", "GPU 6"}),
    ],
)
def test_jobs_at_the_same_time_share_cores_and_have_their_own_gpus(
    tmp_path: Path,
    machine: pytest.MonkeyPatch,
    gpu: bool,
    variables: dict[str, str],
    shown: set[str],
    devices: set[str],
) -> None:
    for name, value in variables.items():
        machine.setenv(name, value)
    run(tmp_path, *[f"{TOGETHER}; {SHOW}"] * 2, at_a_time=2, gpu=gpu)
    assert {file.read_text().splitlines()[-1] for file in tmp_path.glob(f"*/{OUTPUT}")} == shown
    assert {job.device for job in jobs(tmp_path)} == devices


@pytest.mark.parametrize(("first", "status"), [(POLITE, 75), (DEAF, -signal.SIGKILL)])
def test_ctrl_c_stops_all_jobs_and_starts_no_more(
    tmp_path: Path, machine: pytest.MonkeyPatch, first: str, status: int
) -> None:
    main = threading.main_thread().ident or 0

    def press() -> None:
        until(lambda: len(list(tmp_path.glob("*/started"))) == 2)
        signal.pthread_kill(main, signal.SIGINT)
        if first == DEAF:  # once more
            until(lambda: jobs(tmp_path)[1].state == JobState.INTERRUPTED)
            signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, first, POLITE, FINISH, at_a_time=2)
    thread.join(SECONDS)
    interrupted, waiting = JobState.INTERRUPTED, JobState.WAITING
    assert [job.state for job in jobs(tmp_path)] == [interrupted, interrupted, waiting]
    assert [job.exit_status for job in jobs(tmp_path)] == [status, 75, None]
    assert not alive(int((tmp_path / "0" / "started").read_text()))
