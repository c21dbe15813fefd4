"""Where the jobs of a sweep run: devices, environment, order, and how all of them are stopped."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from lpt.cli.main import PARENT
from lpt.sweep import pool, process
from lpt.sweep.job import DONE, FAILED, INTERRUPTED, OUTPUT, WAITING, Job
from lpt.sweep.pool import places, run_pool, visible_gpus
from lpt.sweep.process import Process, own_progress_bars, start_fresh
from tests.support.processes import FINISH, SECONDS, alive, shell, until

SHOW = "echo gpus=$CUDA_VISIBLE_DEVICES threads=$OMP_NUM_THREADS"
POLITE = "trap 'exit 75' TERM; echo $$ > begun; while :; do sleep 0.02; done"
DEAF = "trap '' TERM; echo $$ > begun; while :; do sleep 0.02; done"
# Ends when so many others run, too.
TOGETHER = "touch begun; while [ $(ls ../*/begun | wc -l) -lt {} ]; do sleep 0.02; done; "


@pytest.mark.parametrize(
    ("at_a_time", "devices", "gpus", "expected"),
    [
        (None, 1, "", [()]),
        (3, 1, "", [(), (), ()]),
        (None, 2, "", [()]),
        (None, 1, "0123", [("0",), ("1",), ("2",), ("3",)]),
        (2, 1, "0123", [("0",), ("1",)]),
        (None, 2, "0123", [("0", "1"), ("2", "3")]),
        (None, 2, "01234", [("0", "1"), ("2", "3")]),
        (None, 3, "0123", [("0", "1", "2")]),
        (None, 4, "01", [("0", "1")]),
        (3, 1, "57", [("5",), ("7",), ("5",)]),
    ],
)
def test_places(
    at_a_time: int | None, devices: int, gpus: str, expected: list[tuple[str, ...]]
) -> None:
    assert places(at_a_time, devices, list(gpus)) == expected


@pytest.mark.parametrize(
    ("variable", "count", "expected"),
    [(None, 2, ["0", "1"]), ("5,7,GPU-ab", 2, ["5", "7"]), ("", 0, []), ("3", 1, ["3"])],
)
def test_gpus_that_may_be_used(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, count: int, expected: list[str]
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert visible_gpus() == expected


class Jobs:
    """Jobs that are shell scripts, in folders side by side."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.forked: dict[str, bool] = {}

    def write(self, *scripts: str, **known: Any) -> list[Path]:
        """Write jobs 0, 1, ... for these scripts."""
        known = {"gpu": False, **known}
        folders = [self.folder / str(number) for number in range(len(scripts))]
        for folder, script in zip(folders, scripts, strict=True):
            Job(folder.name, {}, [script], folder=folder, **known).write()
        return folders

    def states(self) -> list[str]:
        """Of all jobs, in their order."""
        return [self[i].state for i in range(len(list(self.folder.iterdir())))]

    def __getitem__(self, number: int) -> Job:
        job = Job.read(self.folder / str(number))
        assert job is not None
        return job

    def said(self, number: int) -> str:
        """What a job has printed."""
        return (self.folder / str(number) / OUTPUT).read_text().splitlines()[-1]


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    jobs = Jobs(tmp_path / "jobs")

    def starts(forked: bool) -> Any:
        def start(
            arguments: Sequence[str], output: Path, cwd: Path | None, given: Mapping[str, str]
        ) -> Process:
            jobs.forked[output.parent.name] = forked
            return shell(arguments, output, cwd, given)

        return start

    monkeypatch.setattr(pool, "Forked", starts(True))
    monkeypatch.setattr(pool, "start_fresh", starts(False))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    return jobs


def test_jobs_run_so_many_at_a_time_in_their_order(jobs: Jobs) -> None:
    order = "basename $PWD >> ../../order"
    scripts = (f"{order}; {FINISH}", f"{order}; exit 3", "kill -KILL $$", f"{order}; {FINISH}")
    run_pool(jobs.write(*scripts), None)
    assert jobs.states() == [DONE, FAILED, FAILED, DONE]
    assert (jobs.folder.parent / "order").read_text().split() == ["0", "1", "3"]


def test_two_jobs_run_at_the_same_time_with_half_the_threads(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    run_pool(jobs.write(*[f"{TOGETHER.format(2)} {SHOW}; {FINISH}"] * 2), 2)
    assert jobs.states() == [DONE, DONE]
    assert [jobs.said(i) for i in (0, 1)] == ["gpus=4,6 threads=3"] * 2
    assert [jobs[i].device for i in (0, 1)] == ["CPU", "CPU"]


def test_threads_that_were_asked_for_stay(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    run_pool(jobs.write(SHOW, SHOW), 2)
    assert jobs.said(0) == "gpus=4,6 threads=5"


def test_each_job_has_a_gpu_of_its_own(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    run_pool(jobs.write(*[f"{TOGETHER.format(2)} {SHOW}"] * 2, gpu=True), None)
    assert {jobs.said(i) for i in (0, 1)} == {"gpus=4 threads=3", "gpus=6 threads=3"}
    assert {jobs[i].device for i in (0, 1)} == {"GPU 4", "GPU 6"}
    assert jobs.forked == {"0": True, "1": True}


def test_a_job_of_several_gpus_has_all_of_them_and_a_command_line(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    run_pool(jobs.write(SHOW, SHOW, gpu=True, devices=2), None)
    assert jobs.said(1) == "gpus=4,6 threads="
    assert jobs[1].device == "GPU 4,6"
    assert jobs.forked == {"0": False, "1": False}


def interrupted(jobs: Jobs, folders: Sequence[Path], *, twice: bool = False) -> None:
    """Run two at a time, and press Ctrl-C when both have begun; again when the second has ended."""
    main = threading.main_thread().ident
    assert main is not None

    def press() -> None:
        until(lambda: all((folder / "begun").exists() for folder in folders[:2]))
        signal.pthread_kill(main, signal.SIGINT)
        if twice:
            until(lambda: jobs[1].state == INTERRUPTED)
            signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_pool(folders, 2)
    thread.join(SECONDS)


def test_ctrl_c_ends_all_jobs_and_starts_no_more(jobs: Jobs) -> None:
    interrupted(jobs, jobs.write(POLITE, POLITE, FINISH))
    assert jobs.states() == [INTERRUPTED, INTERRUPTED, WAITING]
    assert [jobs[i].exit_status for i in range(3)] == [75, 75, None]
    assert jobs[2].attempts == 0


def test_a_second_ctrl_c_kills_what_does_not_listen(jobs: Jobs) -> None:
    folders = jobs.write(DEAF, POLITE, FINISH)
    interrupted(jobs, folders, twice=True)
    assert jobs[0].exit_status == -signal.SIGKILL
    assert jobs[2].attempts == 0
    for folder in folders[:2]:
        assert not alive(int((folder / "begun").read_text()))


STAND_IN = """
import json, os, sys
json.dump({"arguments": sys.argv[1:], "cwd": os.getcwd(), "environment": dict(os.environ),
    "parent": os.getppid(), "leads": os.getsid(0) == os.getpid(), "input": sys.stdin.read()},
    sys.stdout)
print("problem", file=sys.stderr)
"""


def test_a_fresh_process_is_a_run_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = tmp_path / "train.py"
    train.write_text(STAND_IN)
    monkeypatch.setattr(process, "TRAIN", train)
    of_a_rank = {"LOCAL_RANK": "1", "WORLD_SIZE": "2", "RANK": "1", "LPT_RUN_DIR": "other"}
    of_a_rank |= {"SLURM_NTASKS": "1", "SLURM_JOB_ID": "7", "TORCHELASTIC_RUN_ID": "x"}
    for name, value in {**of_a_rank, "MASTER_PORT": "1", "NODE_RANK": "0", "KEPT": "yes"}.items():
        monkeypatch.setenv(name, value)
    output = tmp_path / OUTPUT
    output.write_text("before\n")
    (tmp_path / "cwd").mkdir()
    started = start_fresh(["a=1", "b='x y'"], output, tmp_path / "cwd", {"GIVEN": "too"})
    until(lambda: started.poll() is not None)
    before, _, said = output.read_text().partition("\n")
    known = json.loads(said.replace("problem\n", ""))
    assert before == "before"
    assert "problem" in said
    assert known["arguments"] == ["a=1", "b='x y'"]
    assert known["cwd"] == str(tmp_path / "cwd")
    assert known["parent"] == os.getpid()
    assert known["leads"]
    assert known["input"] == ""
    environment = known["environment"]
    assert not {*of_a_rank, "MASTER_PORT", "NODE_RANK"} & environment.keys()
    assert environment["KEPT"] == "yes"
    assert environment["GIVEN"] == "too"
    assert environment[PARENT] == str(os.getpid())
    assert environment["HYDRA_FULL_ERROR"] == "1"


def test_a_forked_process_has_progress_bars_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a library's kind of bar has made itself a lock that another process holds."""
    from tqdm import auto, std

    for kind in (std.tqdm, auto.tqdm):
        held = threading.Lock()
        held.acquire()
        monkeypatch.setattr(kind, "_lock", held, raising=False)
    own_progress_bars()
    for kind in (std.tqdm, auto.tqdm):
        assert kind.get_lock().acquire(timeout=1)
