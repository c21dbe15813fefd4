"""What is found below folders, which setting is chosen, how it is compared, what is said of it."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pandas as pd
import pytest

from lpt.errors import ConfigError, Problems
from lpt.report import write_report
from lpt.report.collect import collect
from lpt.report.findings import findings, notes
from lpt.report.study import compare, holm
from tests.support.runs import metrics, write_job, write_run, write_sweep
from tests.unit.report.studies import SEEDS, study_of

# dev, test at each seed; layer 3 is best on dev, layer 4 on test.
LAYERS = {
    2: [(0.70, 0.71), (0.72, 0.74), (0.71, 0.69)],
    3: [(0.82, 0.76), (0.80, 0.75), (0.84, 0.80)],
    4: [(0.79, 0.81), (0.81, 0.83), (0.78, 0.82)],
}


def test_the_best_is_chosen_on_dev_and_reported_on_test(tmp_path: Path) -> None:
    runs = (
        {"dev": dev, "test": test, "seed": seed, "prompt__layer": layer}
        for layer, scores in LAYERS.items()
        for seed, (dev, test) in zip(SEEDS, scores, strict=True)
    )
    study = study_of(tmp_path, *runs)
    (task,) = study.tasks
    # By hand: (0.76 + 0.75 + 0.80) / 3; deviations -0.01, -0.02, 0.03.
    sd = math.sqrt((0.01**2 + 0.02**2 + 0.03**2) / 2)
    assert task.summary.loc[task.chosen, "test/accuracy"].tolist() == pytest.approx([0.77, sd, 3])
    assert findings(study)[0].replace("\u00a0", " ") == (
        "On sst2, layer 3 is best on dev (0.820) and scores 0.770 ± 0.026 (n = 3) in test accuracy:"
        " +0.150 against zero-shot (0.620) and +0.260 against majority class (0.510)."
    )
    assert task.comparisons()["difference"].tolist() == pytest.approx([0.77 - 2.14 / 3, -0.05])


def test_paired_t_test_by_hand() -> None:
    first = pd.Series([0.76, 0.75, 0.80], index=[13, 21, 42])
    second = pd.Series([0.82, 0.81, 0.83, 0.1], index=[42, 13, 21, 7])
    # Differences -0.05, -0.08, -0.02; t(0.975, 2) = 4.302653.
    error = 0.03 / math.sqrt(3)
    # With two degrees of freedom p = 1 - |t| / sqrt(t² + 2).
    t = 0.05 / error
    p = 1 - t / math.sqrt(t**2 + 2)
    low, high = -0.05 - 4.302653 * error, -0.05 + 4.302653 * error
    expected = {"pairs": 3, "difference": -0.05, "low": low, "high": high, "p": p}
    assert compare(first, second) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("second", "pairs"), [({13: 0.70}, 1), ({7: 0.70}, 0), ({13: 0.65, 21: 0.75}, 2)]
)
def test_without_two_different_pairs_there_is_no_p(second: dict[int, float], pairs: int) -> None:
    found = compare(pd.Series({13: 0.7, 21: 0.8}), pd.Series(second))
    assert found["pairs"] == pairs
    assert math.isnan(found["p"])


def test_holm_by_hand() -> None:
    adjusted = holm(pd.Series([0.01, 0.04, math.nan, 0.03, 0.6]))
    assert adjusted.tolist() == pytest.approx([0.04, 0.09, math.nan, 0.09, 0.6], nan_ok=True)
    assert holm(pd.Series([0.7, 0.6])).tolist() == [1, 1]


def test_repeats_count_once_and_are_noted(tmp_path: Path) -> None:
    for name, test, age in (("new", 0.9, 100), ("old", 0.1, 200)):
        file = write_run(tmp_path / name, metrics(test=test)) / "metrics.json"
        os.utime(file, (1e9 - age, 1e9 - age))
    write_run(tmp_path / "other", metrics(test=0.5, seed=21))
    study = study_of(tmp_path)
    assert sorted(study.runs["folder"]) == ["new", "other"]
    assert study.tasks[0].mean(0, "test/accuracy") == pytest.approx(0.7)
    (note,) = notes(study)
    assert note.startswith("old was left out: new is later")


def test_ties_are_noted(tmp_path: Path) -> None:
    study = study_of(tmp_path, *({"prompt__layer": layer} for layer in (2, 3)))
    (note,) = notes(study)
    assert note == "On sst2, the best settings on dev tie; the first was chosen: layer 2; layer 3."


def test_one_metric_selects(tmp_path: Path) -> None:
    f1 = {"selection": {"metric": "f1", "step": 5, "value": 0.5}, "dev": {"f1": 0.5}}
    write_run(tmp_path / "f1", metrics(seed=21) | f1 | {"dev_history": []})
    with pytest.raises(ConfigError, match="selected by accuracy and by f1"):
        study_of(tmp_path, {})


def test_test_sets_without_labels(tmp_path: Path) -> None:
    extra = {"ax": {"matthews_correlation": 0.25}, "unlabelled": None}
    study = study_of(tmp_path, {"test": None, "extra": extra}, {"test": None, "prompt__layer": 2})
    (task,) = study.tasks
    assert task.scores == ["dev/accuracy", "ax/matthews_correlation"]
    assert task.test is None
    assert task.comparisons().empty
    assert "has no labels" in findings(study)[0]


def test_the_average_over_tasks_is_chosen_on_dev(tmp_path: Path) -> None:
    study = study_of(
        tmp_path,
        *(
            {"task": task, "prompt__kind": kind, "dev": dev, "test": test}
            for task in "ab"
            for kind, dev, test in (("npg", 0.9, 0.5), ("static", 0.6, 0.8))
        ),
        {"task": "a", "prompt__kind": "mppg", "dev": 0.99},
    )
    assert findings(study)[0] == (
        "On average over 2 tasks, npg is best on dev (0.900) and scores 0.500 on test."
    )
    assert math.isnan(study.average(0, "test"))  # mppg has one task only


@pytest.mark.parametrize(
    ("state", "reason"), [("failed", "a b"), ("finished", "metrics.json is missing")]
)
def test_jobs_without_a_result(tmp_path: Path, state: str, reason: str) -> None:
    write_run(tmp_path / "a", metrics(), {"settings": {"prompt": "npg", "seed": "13"}})
    write_job(tmp_path / "b", state=state, overrides=["x=1"], reason="a\nb")
    write_sweep(tmp_path, prompt=["npg", "static"], seed=["13"])
    found = collect([tmp_path], tmp_path, Problems())
    assert found.unfinished.to_numpy().tolist() == [
        ["b", state, reason, "python -m lpt.cli.train x=1"]
    ]
    assert found.swept == {"prompt.kind"}


def test_all_problems_at_once(tmp_path: Path) -> None:
    write_run(tmp_path / "good", metrics())
    write_run(tmp_path / "wrong", metrics(cost__train_seconds="fast"))
    (write_job(tmp_path / "job") / "job.json").write_text("{")
    with pytest.raises(ConfigError) as caught:
        write_report([tmp_path, tmp_path / "nowhere"], tmp_path / "report")
    for name in ("nowhere", "wrong/metrics.json", "cost.train_seconds", "job/job.json"):
        assert name in str(caught.value)
    assert not (tmp_path / "report").exists()
