"""A search: sampled settings, pruning, and resuming from the folders of its trials."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from lpt.runs.job_record import JobRecord, JobState
from lpt.runs.record import RunRecord
from lpt.sweep.jobs import JobResult
from lpt.sweep.plan import Composer
from lpt.sweep.search import Search
from tests.support import runs
from tests.support.processes import ended as exit_status
from tests.support.processes import forked
from tests.support.sweeps import FakeSweep, composer, write_metrics

SPACE = (
    *("prompt=npg,mppg", "prompt.layer=all", "prompt.length=range(2,11,4)"),
    *("optim.lr=tag(log,interval(1e-4,1e-2))", "prompt.dropout=range(0.0,0.5,0.1)"),
)
SMALL = ("prompt.layer=range(2,5)", "optim.lr=interval(1e-4,1e-2)")


@pytest.fixture
def space(local: list[str]) -> Composer:
    return composer(*local, *SPACE, search=True)


def ended(search: Search, name: str, end: float | JobState) -> JobResult:
    """The job of a trial that has ended with that state, or finished with that dev score."""
    state, result = end, None
    if isinstance(end, float):
        state, result = JobState.FINISHED, RunRecord.model_validate(runs.metrics(dev=end))
    return JobRecord(name=name, settings=search.open[name], overrides=[], state=state), result


def test_settings_are_sampled_from_the_space(space: Composer) -> None:
    search, same = (Search(space, [], prune=True) for _ in range(2))
    names = [search.ask() for _ in range(20)]
    assert names == [f"trial-{i:03d}" for i in range(20)] == [same.ask() for _ in range(20)]
    assert search.open == same.open
    sampled = list(search.open.values())
    assert {s["prompt"] for s in sampled} == {"npg", "mppg"}
    assert {s["prompt.layer"] for s in sampled} == {"2", "3", "4"}
    assert {s["prompt.length"] for s in sampled} == {"2", "6", "10"}
    assert {s["prompt.dropout"] for s in sampled} <= {"0", "0.1", "0.2", "0.3", "0.4"}
    rates = [float(s["optim.lr"]) for s in sampled]
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert 4 < sum(rate < 1e-3 for rate in rates) < 16  # uniform in the logarithm
    for name, settings in search.open.items():
        prompt = space.point(settings, name).config.prompt
        assert (prompt.kind, str(prompt.layer)) == (settings["prompt"], settings["prompt.layer"])


def test_a_search_is_resumed_from_its_jobs(space: Composer) -> None:
    search = Search(space, [], prune=True)
    names = [search.ask() for _ in range(5)]
    settings = dict(search.open)
    ends = [0.875, JobState.INTERRUPTED, JobState.FAILED, JobState.PRUNED, JobState.WAITING]
    jobs = [ended(search, name, end) for name, end in zip(names, ends, strict=True)]
    again = Search(space, jobs, prune=True)
    assert again.open == {name: settings[name] for name in (names[1], names[4])}
    states = [TrialState.COMPLETE, TrialState.RUNNING, TrialState.FAIL, TrialState.PRUNED]
    assert [trial.state for trial in again.study.trials] == [*states, TrialState.RUNNING]
    assert again.study.best_value == 0.875
    assert again.study.trials[0].intermediate_values[9] == pytest.approx(0.875, abs=0.1)
    assert again.ask() == "trial-005"
    assert again.open["trial-005"] not in settings.values()


def test_couples_are_searched_and_resumed(local: list[str]) -> None:
    couples = [{"prompt": "static"}, {"prompt": "static", "prompt.layer": 1}, {"prompt": "npg"}]
    space = composer(*local, "prompt.length=range(2,9)", search=True, settings=couples)
    search = Search(space, [], prune=True)
    jobs = [ended(search, search.ask(), 0.5) for _ in range(15)]
    texts = [{key: str(value) for key, value in couple.items()} for couple in couples]
    coupled = [{k: v for k, v in j.settings.items() if k != "prompt.length"} for j, _ in jobs]
    assert all(couple in coupled for couple in texts)
    assert all(couple in texts for couple in coupled)
    again = Search(space, jobs, prune=True)
    sampled = [[trial.params for trial in found.study.trials] for found in (search, again)]
    assert sampled[0] == sampled[1]


@pytest.mark.parametrize("prune", [True, False])
def test_a_trial_that_is_behind_is_pruned(space: Composer, prune: bool) -> None:
    search = Search(space, [], prune=prune)
    for turn in range(5):
        name = search.ask()
        assert not search.should_prune(name, [0.5, 0.7, 0.9])  # too few to compare with
        search.tell(*ended(search, name, 0.9 + turn / 100))
    bad, good = search.ask(), search.ask()
    assert not search.should_prune(bad, [])
    assert not search.should_prune(bad, [0.4])  # its first evaluation
    assert search.should_prune(bad, [0.4, 0.45]) == prune
    assert not search.should_prune(bad, [0.4, 0.45])  # no new evaluation
    assert not search.should_prune(good, [0.4, 0.95])
    search.tell(*ended(search, bad, JobState.PRUNED))
    assert not search.should_prune(bad, [0.4, 0.45, 0.4])  # it has ended


def score(overrides: dict[str, Any]) -> float:
    return 0.5 + overrides["prompt.layer"] / 10


def test_more_trials_extend_a_search(sweep: FakeSweep) -> None:
    """Failed trials count and are not repeated."""
    sweep.ending = lambda given: 1 if given["run_dir"].endswith("001") else score(given)
    assert sweep(*SMALL, fixed=["sweep.trials=3"]) == 1
    assert [len(batch) for batch in sweep.batches] == [1, 1, 1]
    three = sweep.jobs
    assert sweep(*SMALL, fixed=["sweep.trials=3"]) == 1
    assert sweep.batches == []
    assert sweep(*SMALL, fixed=["sweep.trials=5", "sweep.jobs=2"]) == 1
    assert [len(batch) for batch in sweep.batches] == [2]
    five = [sweep.jobs[f"trial-00{number}"] for number in range(5)]
    assert five[:3] == [three[job.name] for job in five[:3]]
    assert len({tuple(job.settings.items()) for job in five}) == 5
    assert [str(job.state) for job in five] == ["finished", "failed", *["finished"] * 3]


@pytest.mark.parametrize("finished", [False, True])
def test_a_stopped_search_resumes_its_trials(sweep: FakeSweep, finished: bool) -> None:
    def stop(overrides: dict[str, Any]) -> float:
        if overrides["run_dir"].endswith("001"):
            if finished:
                write_metrics(Path(overrides["run_dir"]), 0.9)
            raise KeyboardInterrupt
        return score(overrides)

    sweep.ending = stop
    assert sweep(*SMALL, fixed=["sweep.trials=3"]) == 130
    settings = {name: job.settings for name, job in sweep.jobs.items()}
    second = ("finished" if finished else "interrupted", 1)
    assert sweep.states == {"trial-000": ("finished", 1), "trial-001": second}
    sweep.ending = score
    assert sweep(*SMALL, fixed=["sweep.trials=3"]) == 0
    ran = [Path(overrides["run_dir"]).name for [overrides] in sweep.batches]
    assert ran == (["trial-002"] if finished else ["trial-001", "trial-002"])
    assert {name: sweep.jobs[name].settings for name in settings} == settings


def test_a_folder_that_a_killed_search_left_without_a_record_is_no_trial(sweep: FakeSweep) -> None:
    sweep.ending = score
    for trials in (2, 2, 3):
        assert sweep(*SMALL, fixed=[f"sweep.trials={trials}"]) == 0
        assert len(sweep.rows) == trials
        (sweep.folder / "jobs" / "trial-002").mkdir(exist_ok=True)


def kill_before_write(number: int) -> None:
    """Kill this process when it is about to rename that file of its main thread into place."""
    replace, left = os.replace, iter(range(number))

    def rename(*paths: Any) -> None:
        if threading.current_thread() is threading.main_thread() and next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*paths)

    os.replace = rename


WRITES = 12  # sweep.json; three states of each of three jobs; results.csv and results.jsonl


@pytest.mark.slow
@pytest.mark.parametrize("number", range(WRITES))
def test_a_search_killed_between_two_writes_loses_and_repeats_no_trial(
    sweep: FakeSweep, tmp_path: Path, number: int
) -> None:
    """Trials 0 and 1 are prepared together."""
    sweep.ending = score
    command = ["sweep.trials=3", "sweep.jobs=2"]

    def killed() -> None:
        kill_before_write(number)
        sweep(*SMALL, fixed=command)

    assert exit_status(forked(killed, tmp_path / "errors")) == -signal.SIGKILL
    before = sweep.jobs
    scored = {path.parent.name for path in sweep.folder.glob("jobs/*/metrics.json")}
    assert sweep(*SMALL, fixed=command) == 0
    assert [*sorted(sweep.jobs)] == ["trial-000", "trial-001", "trial-002"]
    settings = {name: job.settings for name, job in sweep.jobs.items()}
    assert {name: job.settings for name, job in before.items()}.items() <= settings.items()
    assert len({tuple(given.items()) for given in settings.values()}) == 3
    ran = [Path(given["run_dir"]).name for batch in sweep.batches for given in batch]
    assert sorted([*scored, *ran]) == sorted(settings)
    assert {row["state"] for row in sweep.rows} == {"finished"}
