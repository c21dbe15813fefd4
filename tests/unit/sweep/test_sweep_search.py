"""A search: what Optuna is asked and told, how it is gone on with, and what is ended early."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from optuna.trial import TrialState

from lpt.config.schema import register
from lpt.sweep.job import DONE, FAILED, INTERRUPTED, PRUNED, Job
from lpt.sweep.plan import Composer
from lpt.sweep.search import Search
from lpt.sweep.space import read_space
from tests.conftest import CONF
from tests.support.sweeps import MadeUp, write_metrics

SPACE = (
    *("prompt=npg,mppg", "prompt.layer=all", "prompt.length=range(2,11,4)"),
    "optim.lr=tag(log,interval(1e-4,1e-2))",
)


SMALL = ("prompt.layer=range(2,5)", "optim.lr=interval(1e-4,1e-2)")


@pytest.fixture
def fixed(checkpoints: dict[str, Path], toy_data: Path) -> list[str]:
    return [
        *("model=local", f"model.path={checkpoints['masked']}", "data.max_length=64"),
        *("task=reviews", f"data.path={toy_data}", "task.labels=['0','1']"),
        *("task.template='{text} It was <mask> .'", "strategy.accelerator=cpu"),
    ]


@pytest.fixture
def composer(fixed: list[str]) -> Iterator[Composer]:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield Composer(read_space([*fixed, *SPACE], {}, {}, search=True))


def tell(search: Search, folder: Path, name: str, dev: float) -> None:
    """That a trial has finished."""
    (folder / name).mkdir()
    write_metrics(folder / name, dev)
    search.tell(Job(name, {}, [], state=DONE, folder=folder / name))


def test_values_are_drawn_from_the_space(composer: Composer, tmp_path: Path) -> None:
    search = Search(composer, tmp_path, prune=True)
    drawn = [search.ask() for _ in range(20)]
    assert [name for name, _ in drawn] == [f"trial-{i:03d}" for i in range(20)]
    assert {s["prompt"] for _, s in drawn} == {"npg", "mppg"}
    assert {s["prompt.layer"] for _, s in drawn} == {"2", "3", "4"}
    assert {s["prompt.length"] for _, s in drawn} == {"2", "6", "10"}
    rates = [float(s["optim.lr"]) for _, s in drawn]
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert len(set(rates)) == 20
    assert 4 < sum(rate < 1e-3 for rate in rates) < 16  # each order of magnitude alike
    for name, settings in drawn:
        config = composer.point(settings, name).config
        assert (config.prompt.kind, str(config.prompt.layer)) == (
            *(settings["prompt"], settings["prompt.layer"]),
        )


def test_the_same_search_draws_the_same(composer: Composer, tmp_path: Path) -> None:
    drawn = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        search = Search(composer, tmp_path / name, prune=True)
        drawn.append([search.ask() for _ in range(5)])
    assert drawn[0] == drawn[1]


def test_a_study_is_gone_on_with(composer: Composer, tmp_path: Path) -> None:
    search = Search(composer, tmp_path, prune=True)
    drawn = dict(search.ask() for _ in range(3))
    assert search.open == drawn
    tell(search, tmp_path, "trial-001", 0.875)
    again = Search(composer, tmp_path, prune=True)
    assert again.open == {name: drawn[name] for name in ("trial-000", "trial-002")}
    assert again.study.best_value == 0.875
    name, settings = again.ask()
    assert name == "trial-003"
    assert settings not in drawn.values()


@pytest.mark.parametrize(
    ("state", "expected"),
    [(FAILED, TrialState.FAIL), (PRUNED, TrialState.PRUNED), (INTERRUPTED, TrialState.RUNNING)],
)
def test_how_a_trial_has_ended(
    composer: Composer, tmp_path: Path, state: str, expected: TrialState
) -> None:
    search = Search(composer, tmp_path, prune=True)
    name, _ = search.ask()
    search.tell(Job(name, {}, [], state=state, folder=tmp_path / name))
    assert [trial.state for trial in search.study.trials] == [expected]
    assert bool(search.open) == (state == INTERRUPTED)


@pytest.mark.parametrize("prune", [True, False])
def test_a_trial_that_is_behind_is_ended(composer: Composer, tmp_path: Path, prune: bool) -> None:
    search = Search(composer, tmp_path, prune=prune)
    for turn in range(5):
        name, _ = search.ask()
        assert not search.behind(name, [0.5, 0.7, 0.9])  # too few to compare with
        assert not search.behind(name, [0.1, 0.1, 0.1])  # and told of already
        tell(search, tmp_path, name, 0.9 + turn / 100)
    bad, _ = search.ask()
    assert not search.behind(bad, [])
    assert not search.behind(bad, [0.4])  # by its first evaluation
    assert search.behind(bad, [0.4, 0.6]) == prune
    good, _ = search.ask()
    assert not search.behind(good, [0.4, 0.8])
    assert not search.behind(good, [0.4, 0.8, 0.95])
    frozen = search.study.trials[5]
    assert frozen.intermediate_values == {0: 0.4, 1: 0.6}


@pytest.fixture
def sweep(fixed: list[str], tmp_path: Path) -> MadeUp:
    return MadeUp(fixed, tmp_path / "sweep")


def score(given: dict[str, Any]) -> float:
    return 0.5 + given["prompt.layer"] / 10


def test_a_search_runs_so_many_trials_and_more_when_asked(sweep: MadeUp) -> None:
    sweep.ending = score
    assert sweep(*SMALL, base=["sweep.trials=3"]) == 0
    assert [len(batch) for batch in sweep.batches] == [1, 1, 1]
    three = {name: job.settings for name, job in sweep.jobs.items()}
    assert set(three) == {"trial-000", "trial-001", "trial-002"}
    assert sweep(*SMALL, base=["sweep.trials=3"]) == 0
    assert sweep.batches == []
    assert sweep(*SMALL, base=["sweep.trials=5", "sweep.jobs=2"]) == 0
    assert [len(batch) for batch in sweep.batches] == [2]
    five = {name: job.settings for name, job in sweep.jobs.items()}
    assert five.keys() - three.keys() == {"trial-003", "trial-004"}
    assert {name: five[name] for name in three} == three
    assert len({tuple(settings.items()) for settings in five.values()}) == 5
    assert set(sweep.states.values()) == {(DONE, 1)}
    lines = (sweep.folder / "results.jsonl").read_text().splitlines()
    for row in map(json.loads, lines):
        assert row["final/dev/accuracy"] == pytest.approx(
            score({"prompt.layer": int(row["prompt.layer"])})
        )


def test_trials_that_fail_count_and_are_not_drawn_again(sweep: MadeUp) -> None:
    sweep.ending = lambda given: 1 if given["run_dir"].endswith("001") else score(given)
    for _ in range(2):
        assert sweep(*SMALL, base=["sweep.trials=3"]) == 1
        states = {name: state for name, (state, _) in sweep.states.items()}
        assert states == {"trial-000": DONE, "trial-001": FAILED, "trial-002": DONE}
    assert sweep.batches == []


def test_a_search_that_is_stopped_goes_on_with_the_same_trials(sweep: MadeUp) -> None:
    def stop(given: dict[str, Any]) -> float:
        if given["run_dir"].endswith("001"):
            raise KeyboardInterrupt
        return score(given)

    sweep.ending = stop
    assert sweep(*SMALL, base=["sweep.trials=3"]) == 130
    settings = {name: job.settings for name, job in sweep.jobs.items()}
    assert sweep.states == {"trial-000": (DONE, 1), "trial-001": (INTERRUPTED, 1)}
    sweep.ending = score
    assert sweep(*SMALL, base=["sweep.trials=3"]) == 0
    assert [Path(given["run_dir"]).name for [given] in sweep.batches] == ["trial-001", "trial-002"]
    assert sweep.states == {
        **{"trial-000": (DONE, 1), "trial-001": (DONE, 2), "trial-002": (DONE, 1)},
    }
    assert {name: sweep.jobs[name].settings for name in settings} == settings


def test_a_trial_that_ended_just_before_the_kill_is_told(sweep: MadeUp) -> None:
    def stop(given: dict[str, Any]) -> float:
        write_metrics(Path(given["run_dir"]), 0.9)
        raise KeyboardInterrupt

    sweep.ending = stop
    assert sweep(*SMALL, base=["sweep.trials=1"]) == 130
    assert sweep(*SMALL, base=["sweep.trials=1"]) == 0
    assert sweep.batches == []
