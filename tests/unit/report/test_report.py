"""What a report says: settings, the choice on dev, means, paired comparisons, what is missing."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import lpt.runs.record
from lpt.errors import ConfigError, Problems
from lpt.report import contents, findings, folders, write_report
from lpt.report.curves import history
from lpt.report.folders import find
from lpt.report.matrix import matrix
from lpt.report.numbers import UNBROKEN, memory_unit, time_unit
from lpt.report.runs import read
from lpt.report.statistics import Comparison, adjusted
from lpt.report.study import Study, arrange
from lpt.report.tables import Table
from tests.support.runs import metrics, write_job, write_run

# dev, test at each seed; layer 3 is best on dev, layer 4 on test.
LAYERS = {
    2: [(0.70, 0.71), (0.72, 0.74), (0.71, 0.69)],
    3: [(0.82, 0.76), (0.80, 0.75), (0.84, 0.80)],
    4: [(0.79, 0.81), (0.81, 0.83), (0.78, 0.82)],
}
SEEDS = (13, 21, 42)


def study_of(folder: Path) -> Study:
    problems = Problems()
    material = read(find([folder], problems), problems)
    problems.raise_if_any()
    return arrange(material)


def write_layers(folder: Path) -> Path:
    for layer, scores in LAYERS.items():
        for seed, (dev, test) in zip(SEEDS, scores, strict=True):
            content = metrics(dev=dev, test=test, seed=seed, prompt__layer=layer)
            content["speed"]["train_seconds"] = 60.0 / layer
            content["peak_memory_mb"]["training"] = 1000.0 - 100 * layer
            write_run(folder / f"l{layer}-s{seed}", content)
    return folder


def texts(table: Table) -> list[list[str]]:
    return [[str(cell) for cell in line.cells] for line in table.lines]


def test_best_is_chosen_on_dev_and_reported_on_test(tmp_path: Path) -> None:
    study = study_of(write_layers(tmp_path))
    (task,) = study.tasks
    assert dict(task.best.setting.values) == {"prompt.layer": 3}
    rows = {row[1]: row for row in texts(contents.results(study, task))}
    assert [name for name, row in rows.items() if row[0]] == ["3"]
    # By hand: (0.76 + 0.75 + 0.80) / 3; deviations -0.01, -0.02, 0.03.
    sd = math.sqrt((0.01**2 + 0.02**2 + 0.03**2) / 2)
    assert rows["3"][2:5] == ["3", "0.820 ± 0.020", f"0.770 ± {sd:.3f}"]
    assert rows["zero-shot"][2:5] == ["3", "0.600", "0.620"]
    assert rows["majority class"][3:5] == ["0.500", "0.510"]


def test_paired_comparison_by_hand(tmp_path: Path) -> None:
    (task,) = study_of(write_layers(tmp_path)).tasks
    pairs = {row.setting["prompt.layer"]: found for row, found in task.comparisons()}
    # Differences on test to layer 4: -0.05, -0.08, -0.02; t(0.975, 2) = 4.302653.
    against = pairs[4]
    standard_error = 0.03 / math.sqrt(3)
    assert against.pairs == 3
    assert against.difference == pytest.approx(-0.05)
    assert against.interval == pytest.approx(
        (-0.05 - 4.302653 * standard_error, -0.05 + 4.302653 * standard_error), abs=1e-6
    )
    # With two degrees of freedom p = 1 - |t| / sqrt(t² + 2).
    t = 0.05 / standard_error
    assert against.p == pytest.approx(1 - t / math.sqrt(t**2 + 2))
    # Holm: the smaller of two is doubled, the larger is at least that.
    low, high = sorted(found.p or 0 for found in pairs.values())
    holm = sorted(found.holm or 0 for found in pairs.values())
    assert holm == pytest.approx([2 * low, max(2 * low, high)])


def test_holm() -> None:
    given = [Comparison(3, 0.0, p=p) for p in (0.01, 0.04, None, 0.03, 0.6)]
    assert [c.holm for c in adjusted(given)] == [
        *(pytest.approx(0.04), pytest.approx(0.09), None),
        *(pytest.approx(0.09), pytest.approx(0.6)),
    ]
    assert [c.holm for c in adjusted([Comparison(2, 0.0, p=p) for p in (0.7, 0.8)])] == [1.0, 1.0]


def test_finding_says_what_a_later_layer_saves(tmp_path: Path) -> None:
    study = study_of(write_layers(tmp_path))
    assert findings.finding(study).replace(UNBROKEN, " ") == (
        "On sst2, layer 3 is best on dev (0.820) and scores 0.770 ± 0.026 (n = 3) in test accuracy:"
        " +0.150 against zero-shot (0.620) and +0.260 against the majority class (0.510)."
    )
    (cost,) = findings.details(study)
    assert cost.replace(UNBROKEN, " ") == (
        "Inserted at layer 3 instead of 2, a run trains in 20.0 s instead of 30.0 s (33 % less) and"
        " needs 700 MB instead of 800 MB (12 % less) at its peak; its score on test changes by "
        "+0.057."
    )


def test_no_costs_are_compared_between_devices(tmp_path: Path) -> None:
    for layer, device in ((2, "x86_64"), (3, "NVIDIA H100")):
        write_run(tmp_path / device, metrics(device=device, prompt__layer=layer))
    study = study_of(tmp_path)
    assert findings.details(study) == []
    assert any("different devices" in note for note in findings.notes(study, str))


@pytest.mark.parametrize(
    ("others", "pairs", "why"),
    [
        ({13: 0.70}, "1", "one pair has no spread"),
        ({7: 0.70}, "0", "no seeds in common"),
        ({13: 0.65, 21: 0.75}, "2", "the same difference at every seed"),
    ],
)
def test_what_cannot_be_tested_is_said(
    tmp_path: Path, others: dict[int, float], pairs: str, why: str
) -> None:
    for seed, test in ((13, 0.7), (21, 0.8)):
        write_run(tmp_path / f"a{seed}", metrics(dev=0.9, test=test, seed=seed))
    for seed, test in others.items():
        content = metrics(dev=0.8, test=test, seed=seed, prompt__layer=5)
        write_run(tmp_path / f"b{seed}", content)
    study = study_of(tmp_path)
    table = contents.pairs(study, study.tasks[0])
    assert table is not None
    (line,) = texts(table)
    assert line[1] == pairs
    assert line[3:] == ["–", "–", "–", why]
    assert "nan" not in str(table).lower()


def test_single_runs_have_no_spread(tmp_path: Path) -> None:
    write_run(tmp_path / "a", metrics(dev=0.9, test=0.7))
    study = study_of(tmp_path)
    row = texts(contents.results(study, study.tasks[0]))[0]
    assert row[1:5] == ["npg at layer 4", "1", "0.900", "0.700"]
    assert contents.pairs(study, study.tasks[0]) is None
    assert "the only setting" in findings.finding(study)


def test_keys_that_follow_others_are_told_and_not_shown(tmp_path: Path) -> None:
    for kind, lr, layers in (("npg", 0.003, (2, 3)), ("static", 0.03, (2,))):
        for layer in layers:
            for seed in SEEDS:
                content = metrics(seed=seed, prompt__kind=kind, prompt__layer=layer)
                content["prompt"] |= {"lr": lr, "bottleneck": None if kind == "static" else 128}
                content["optim"]["lr"] = lr
                content["data"] |= {"root": f"/{kind}{layer}", "num_workers": seed}
                write_run(tmp_path / f"{kind}{layer}{seed}", content)
    study = study_of(tmp_path)
    assert study.keys.shown == ("prompt.kind", "prompt.layer")
    assert study.keys.follows == dict.fromkeys(
        ("optim.lr", "prompt.bottleneck", "prompt.lr"), ("prompt.kind",)
    )
    note = findings.notes(study, str)[0]
    assert "optim.lr, prompt.bottleneck, prompt.lr" in note


def test_a_key_tuned_for_task_and_kind_together_follows_both(tmp_path: Path) -> None:
    for number, (task, kind) in enumerate((t, k) for t in "ab" for k in ("npg", "static")):
        for layer in (2, 3):
            content = metrics(task=task, prompt__kind=kind, prompt__layer=layer)
            content["optim"]["lr"] = (0.1, 0.2, 0.2, 0.1)[number]
            write_run(tmp_path / f"{number}-{layer}", content)
    keys = study_of(tmp_path).keys
    assert keys.shown == ("prompt.kind", "prompt.layer")
    assert keys.follows == {"optim.lr": ("task", "prompt.kind")}


def test_numbers_drawn_at_random_do_not_hide_each_other(tmp_path: Path) -> None:
    for lr, decay in ((0.0011, 0.07), (0.0042, 0.01), (0.0007, 0.15)):
        for seed in SEEDS:
            content = metrics(seed=seed, optim__lr=lr, optim__weight_decay=decay)
            write_run(tmp_path / f"{lr}-{seed}", content)
    assert study_of(tmp_path).keys.shown == ("optim.lr", "optim.weight_decay")


def test_repeats_count_once_and_are_told(tmp_path: Path) -> None:
    times = {"seconds": 60, "started": "2026-11-20T10:00:00+00:00"}
    write_run(tmp_path / "new", metrics(test=0.9), times | {"started": "2026-11-21T10:00:00+00:00"})
    write_run(tmp_path / "old", metrics(test=0.1), times)
    write_run(tmp_path / "other", metrics(test=0.5, seed=21), times)
    study = study_of(tmp_path)
    assert [run.folder.name for run in study.runs] == ["new", "other"]
    assert str(texts(contents.results(study, study.tasks[0]))[0][4]).startswith("0.700")
    (note,) = findings.notes(study, lambda folder: folder.name)
    assert note.startswith("old repeats the setting and the seeds of new")


def test_ties_and_fewer_seeds_are_told(tmp_path: Path) -> None:
    write_run(tmp_path / "a", metrics(dev=0.8, prompt__layer=2))
    for seed, dev in ((13, 0.7), (21, 0.9)):
        write_run(tmp_path / f"b{seed}", metrics(dev=dev, seed=seed, prompt__layer=3))
    study = study_of(tmp_path)
    tie, fewer = findings.notes(study, str)
    assert "layer 2 has the same mean on dev as layer 3" in tie
    assert "with n = 1 where others have n = 2" in fewer


def test_matrix_averages_complete_rows_and_says_why_a_cell_is_empty(tmp_path: Path) -> None:
    scores = {("cola", "npg"): 0.4, ("cola", "static"): 0.3, ("rte", "npg"): 0.7}
    for (task, kind), score in scores.items():
        content = metrics(task=task, dev=score, test=score - 0.1, prompt__kind=kind)
        write_run(tmp_path / f"{task}-{kind}", content)
    for seed in ("13", "21"):
        write_job(
            tmp_path / f"lost{seed}",
            state="failed",
            reason="out of memory",
            settings={"task": "rte", "prompt": "static", "data.seed": seed},
        )
    study = study_of(tmp_path)
    table = matrix(study)
    assert table.head == ("", "setting", "cola", "rte", "average")
    assert texts(table) == [
        ["◆", "npg", "0.300", "0.600", "0.450"],
        ["", "static", "0.200", "–", "–"],
    ]
    assert "rte with static: 2 failed (out of memory)." in table.notes[-1]
    assert findings.finding(study).startswith("On average over 2 tasks, npg is best on dev (0.550)")
    (rte,) = (task for task in study.tasks if task.name == "rte")
    assert contents.results(study, rte).notes[-1] == (
        "– prompt.kind static: no result, 2 failed (out of memory)."
    )


def test_the_matrix_chooses_on_dev(tmp_path: Path) -> None:
    for task in "ab":
        for kind, dev, test in (("npg", 0.9, 0.5), ("static", 0.6, 0.8)):
            content = metrics(task=task, dev=dev, test=test, prompt__kind=kind)
            write_run(tmp_path / f"{task}{kind}", content)
    marked = [row[1] for row in texts(matrix(study_of(tmp_path))) if row[0]]
    assert marked == ["npg"]


def test_sets_without_labels_and_further_sets(tmp_path: Path) -> None:
    for layer in (2, 3):
        content = metrics(test=None, prompt__layer=layer)
        content["extra"] = {"ax": {"matthews_correlation": 0.25}, "unlabelled": None}
        write_run(tmp_path / f"l{layer}", content)
    study = study_of(tmp_path)
    (task,) = study.tasks
    assert task.scores == ("dev/accuracy", "ax/matthews_correlation")
    assert "has no labels" in findings.finding(study)
    assert write_report([tmp_path], tmp_path / "report").exists()


def test_curves_end_where_a_seed_ended(tmp_path: Path) -> None:
    for seed, scores in ((13, (0.5, 0.6, 0.7)), (21, (0.7, 0.8))):
        content = metrics(seed=seed)
        content["dev_history"] = [
            {"step": 10 * at, "accuracy": score} for at, score in enumerate(scores, 1)
        ]
        write_run(tmp_path / str(seed), content)
    (task,) = study_of(tmp_path).tasks
    means = {step: found.mean for step, found in history(task.rows[0], "accuracy").items()}
    assert means == pytest.approx({10: 0.6, 20: 0.7})


def test_all_problems_at_once(tmp_path: Path) -> None:
    write_run(tmp_path / "good", metrics())
    foreign = {"accuracy": 0.9}
    wrong = metrics(speed__train_seconds="fast", test={"accuracy": float("nan")})
    for name, text in (
        ("torn", json.dumps(metrics())[:200]),
        ("foreign", json.dumps(foreign)),
        ("wrong", json.dumps(wrong)),
        ("list", "[]"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.json").write_text(text)
    write_job(tmp_path / "job").joinpath("job.json").write_text("{")
    with pytest.raises(ConfigError) as caught:
        write_report([tmp_path], tmp_path / "report")
    where = {Path(problem.where).parent.name: problem for problem in caught.value.problems}
    assert set(where) == {"torn", "foreign", "wrong", "list", "job"}
    assert all(problem.hint for problem in where.values())
    assert "no task" in where["foreign"].given
    assert "speed.train_seconds is 'fast'" in where["wrong"].given
    assert not (tmp_path / "report").exists()


def test_scores_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "nan", metrics(test={"accuracy": float("nan")}))
    with pytest.raises(ConfigError, match="test is"):
        study_of(tmp_path)


def test_one_metric_selects(tmp_path: Path) -> None:
    write_run(tmp_path / "a", metrics())
    other = {
        "dev": {"f1": 0.5},
        "dev_history": [],
        "selection": {"metric": "f1", "step": 5, "value": 0.5},
    }
    write_run(tmp_path / "b", metrics(seed=21) | other)
    with pytest.raises(ConfigError, match="selected by accuracy and by f1"):
        study_of(tmp_path)


def test_units() -> None:
    assert [time_unit([s]).name for s in (10, 200, 400, 20_000)] == ["s", "s", "min", "h"]
    assert [memory_unit([mb]).name for mb in (700, 2048)] == ["MB", "GB"]


def test_the_mark_of_a_finished_run_is_the_one_that_is_written() -> None:
    assert folders.FINISHED == lpt.runs.record.FINISHED
