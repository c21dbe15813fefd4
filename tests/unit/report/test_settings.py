"""Which runs make a setting, whatever the key in which they differ, and which keys are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lpt.report.findings import notes
from tests.support.runs import metrics, write_run, write_sweep
from tests.unit.report.studies import SEEDS, study_of

OTHER_DATA = "b" * 64
OTHER_WEIGHTS = "1" * 16


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({"task__template": "Review: {text} <mask>"}, "template Review: {text} <mask>"),
        ({"task__label_words": ["bad", "good"]}, 'label_words ["bad", "good"]'),
        ({"model__path": "other/roberta-base"}, "model.path other/roberta-base"),
        ({"backbone__fingerprint": OTHER_WEIGHTS}, "backbone.fingerprint 111111111111"),
        ({"data__path": "theirs", "split__sha256": OTHER_DATA}, "data.path theirs"),
        ({"strategy__devices": 8}, "devices 8"),
        ({"cache__mode": "off"}, "cache off"),
    ],
)
def test_runs_that_differ_in_one_key_are_two_settings(
    tmp_path: Path, changes: dict[str, Any], label: str
) -> None:
    runs = [{"seed": seed, **extra} for extra in ({}, changes) for seed in SEEDS]
    study = study_of(tmp_path, *runs)
    (task,) = study.tasks
    assert [len(task.runs_of(setting)) for setting in task.summary.index] == [3, 3]
    assert label in [study.settings.label(setting) for setting in task.summary.index]


def test_where_a_run_writes_makes_no_setting(tmp_path: Path) -> None:
    elsewhere = {"config__run_dir": "b", "cache__dir": "b", "cache__layers": [2, 4]}
    study = study_of(tmp_path, {"seed": 13}, {"seed": 21, **elsewhere})
    assert study.settings.keys == ["prompt.kind", "prompt.layer"]
    assert len(study.tasks[0].summary) == 1


def test_different_data_at_the_same_data_seed_are_never_averaged(tmp_path: Path) -> None:
    study = study_of(
        tmp_path,
        {"seed": 13, "data__seed": 1},
        {"seed": 21, "data__seed": 1, "split__sha256": OTHER_DATA},
        {"seed": 13, "data__seed": 1, "prompt__layer": 5},
        {"seed": 21, "data__seed": 2, "prompt__layer": 5},
    )
    (task,) = study.tasks
    counts = {study.settings.label(s): len(task.runs_of(s)) for s in task.summary.index}
    assert sorted(counts.values()) == [1, 1, 2]
    assert counts["layer 5, split.sha256 none"] == 2
    assert f"layer 4, split.sha256 {OTHER_DATA[:12]}" in counts
    assert "runs with the same data seed had different data" in " ".join(notes(study))


def test_swept_keys_are_shown_even_if_one_follows_the_other_or_failed(tmp_path: Path) -> None:
    for name, size in (("single", 32), ("ddp", 4)):
        write_run(tmp_path / name, metrics(strategy__name=name, data__batch_size=size))
    space = {"strategy": ["single", "ddp"], "data.batch_size": ["32", "4"], "data.k": ["16", "64"]}
    write_sweep(tmp_path, **space)
    swept = ["data.batch_size", "data.k", "strategy.name"]
    assert sorted(study_of(tmp_path).settings.keys) == swept


TUNED_FOR_KIND = [
    {"prompt__kind": kind, "optim__lr": lr, "prompt__lr": lr, "prompt__layer": layer}
    for kind, lr, layer in (("npg", 0.003, 2), ("static", 0.03, 4))
]
TASKS = [
    {"task": task, "task__template": f"{task} {{text}} <mask>", "optim__lr": lr, "prompt__kind": k}
    for task, k, lr in (("a", "npg", 1), ("a", "static", 2), ("b", "npg", 2), ("b", "static", 1))
]
RANDOM_SEARCH = [
    {"optim__lr": lr, "optim__weight_decay": decay}
    for lr, decay in ((0.0011, 0.07), (0.0042, 0.01), (0.0007, 0.15))
]


@pytest.mark.parametrize(
    ("runs", "keys", "confounded"),
    [
        (TUNED_FOR_KIND, ["prompt.kind", "prompt.layer"], "prompt.lr, optim.lr"),
        (TASKS, ["prompt.kind"], "optim.lr"),
        (RANDOM_SEARCH, ["optim.lr", "optim.weight_decay"], ""),
    ],
)
def test_keys_that_follow_from_task_model_or_prompt_are_noted_and_not_shown(
    tmp_path: Path, runs: list[dict[str, Any]], keys: list[str], confounded: str
) -> None:
    study = study_of(tmp_path, *runs)
    assert study.settings.keys == keys
    assert ", ".join(study.settings.confounded) == confounded
    assert any(f": {confounded}. Their effects" in n for n in notes(study)) == bool(confounded)
