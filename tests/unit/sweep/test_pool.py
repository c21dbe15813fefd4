"""Jobs on this machine: slots and devices, order, environment, and stopping all of them."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from lpt.runs.job_record import JobRecord, JobState
from lpt.sweep.jobs import OUTPUT
from lpt.sweep.pool import run_pool, slots, visible_gpus
from tests.support.processes import FINISH, SECONDS, alive, shell, until

SHOW = "echo gpus=$CUDA_VISIBLE_DEVICES threads=$OMP_NUM_THREADS"
POLITE = "trap 'exit 75' TERM; echo $$ > started; while :; do sleep 0.02; done"
DEAF = "trap '' TERM; echo $$ > started; while :; do sleep 0.02; done"
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
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two GPUs for this process, and six cores."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,8")


def test_visible_gpus(gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert visible_gpus() == ["4", "6"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus() == ["0", "1"]


class Jobs:
    """Jobs whose runs are shell scripts, in folders side by side."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *scripts: str, at_a_time: int | None = None, **known: Any) -> None:
        """Run jobs 0, 1, ... with these scripts."""
        folders = [self.folder / str(number) for number in range(len(scripts))]
        for folder, script in zip(folders, scripts, strict=True):
            job = JobRecord(name=folder.name, settings={}, overrides=[script], **known)
            job.write(folder)
        run_pool(folders, at_a_time, start=shell)

    def __getitem__(self, number: int) -> JobRecord:
        return JobRecord.read(self.folder / str(number))

    def last_line(self, number: int) -> str:
        """Last line of a job's output."""
        return (self.folder / str(number) / OUTPUT).read_text().splitlines()[-1]


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    monkeypatch.setenv("OMP_NUM_THREADS", "0")  # so that it is restored
    monkeypatch.delenv("OMP_NUM_THREADS")
    return Jobs(tmp_path / "jobs")


def test_jobs_run_in_their_order_whatever_becomes_of_them(jobs: Jobs) -> None:
    order = "basename $PWD >> ../../order"
    jobs.run(f"{order}; {FINISH}", f"{order}; exit 3", "kill -KILL $$", f"{order}; {FINISH}")
    finished, failed = JobState.FINISHED, JobState.FAILED
    assert [jobs[i].state for i in range(4)] == [finished, failed, failed, finished]
    assert (jobs.folder.parent / "order").read_text().split() == ["0", "1", "3"]
    assert "OMP_NUM_THREADS" not in os.environ  # one job may use all cores


@pytest.mark.parametrize(("given", "threads"), [(None, "3"), ("5", "5")])
def test_jobs_at_the_same_time_share_the_cores(
    jobs: Jobs, gpus: None, monkeypatch: pytest.MonkeyPatch, given: str | None, threads: str
) -> None:
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    jobs.run(*[f"{TOGETHER}; {SHOW}"] * 2, at_a_time=2, gpu=False)
    assert {jobs.last_line(i) for i in (0, 1)} == {f"gpus=4,6,8 threads={threads}"}
    assert {jobs[i].device for i in (0, 1)} == {"CPU"}


def test_each_job_has_its_own_gpu(jobs: Jobs, gpus: None) -> None:
    jobs.run(*[f"{TOGETHER}; {SHOW}"] * 2)
    assert {jobs.last_line(i) for i in (0, 1)} == {"gpus=4 threads=3", "gpus=6 threads=3"}
    assert {jobs[i].device for i in (0, 1)} == {"GPU 4", "GPU 6"}


@pytest.mark.parametrize(("first", "status"), [(POLITE, 75), (DEAF, -signal.SIGKILL)])
def test_ctrl_c_stops_all_jobs_and_starts_no_more(jobs: Jobs, first: str, status: int) -> None:
    folders = [jobs.folder / str(number) for number in range(2)]
    main = threading.main_thread().ident or 0

    def press() -> None:
        until(lambda: all((folder / "started").exists() for folder in folders))
        signal.pthread_kill(main, signal.SIGINT)
        if first == DEAF:  # once more
            until(lambda: jobs[1].state == JobState.INTERRUPTED)
            signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        jobs.run(first, POLITE, FINISH, at_a_time=2)
    thread.join(SECONDS)
    interrupted, waiting = JobState.INTERRUPTED, JobState.WAITING
    assert [jobs[i].state for i in range(3)] == [interrupted, interrupted, waiting]
    assert [jobs[i].exit_status for i in range(3)] == [status, 75, None]
    assert not alive(int((folders[0] / "started").read_text()))
