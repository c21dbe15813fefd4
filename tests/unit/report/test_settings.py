"""Which runs make a setting, whatever the key in which they differ, and which keys are shown."""

from __future__ import annotations

import dataclasses
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lpt.cli.report import main
from lpt.config.resolve import flatten, to_dict
from lpt.config.schema import WandbConfig
from lpt.experiment import run
from lpt.report.findings import notes
from tests.conftest import MakeConfig
from tests.support.configs import resolved
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


NO_SETTINGS = {
    *(
        "seed",
        "data.seed",
        "run_dir",
        "resume",
        "overwrite",
        "dry_run",
        "cache.dir",
        "cache.layers",
    ),
    "method.layer",  # null beside prompt.layer
    *("logger.csv", "logger.tensorboard", "task.default_path"),
    *(f"logger.wandb.{field.name}" for field in dataclasses.fields(WandbConfig)),
}


def test_every_key_of_the_configuration_makes_settings_but_those_without_influence(
    tmp_path: Path,
) -> None:
    config = to_dict(resolved("task=custom", "task.labels=[a,b]", "task.label_words=[bad,good]"))
    merged = set()
    for key, value in flatten(config).items():
        other = {**config, "seed": 99}
        *sections, last = key.split(".")
        at = other
        for section in sections:
            at[section] = at = dict(at[section])
        changed = not value if isinstance(value, bool) else "other"
        at[last] = [*value, "x"] if isinstance(value, list) else changed
        study = study_of(tmp_path / key, {"config": config}, {"config": other})
        if sum(len(task.summary) for task in study.tasks) == 1:
            merged.add(key)
    assert merged == NO_SETTINGS


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("task__label_aliases", [{}, {"1.0": "1"}, {"1.0": "0"}]),
        ("task__files", [{"train": None}, {"train": "a.csv"}]),
        ("task__labels", [["0", "1"], ["1", "0"], ["0", "1", "2"]]),
        ("optim__lr", [0.001, 0.0010000001]),
        ("model__revision", [None, "v1"]),
        ("data__k", [None, 16, 100]),
        ("strategy__num_nodes", [1, 2]),
    ],
)
def test_different_values_are_different_settings_that_look_different(
    tmp_path: Path, key: str, values: list[Any]
) -> None:
    study = study_of(tmp_path, *({"seed": s, key: v} for v in values for s in SEEDS))
    labels = [study.settings.label(setting) for setting in study.tasks[0].summary.index]
    assert len(set(labels)) == len(labels) == len(values)
    assert study.repeats == {}


def test_real_runs_with_model_folders_of_the_same_name(
    checkpoints: dict[str, Path], toy: MakeConfig, tmp_path: Path
) -> None:
    templates = ("{text} It was <mask> .", "{text} <mask> .")
    for folder, template in zip(("a", "b"), templates, strict=True):
        shutil.copytree(checkpoints["masked"], tmp_path / folder / "final")
        model = f"model.path={tmp_path / folder / 'final'}"
        run(toy("masked", model, f"task.template='{template}'", f"run_dir={tmp_path / folder}/run"))
    assert main([str(tmp_path / "a"), str(tmp_path / "b"), f"--out={tmp_path / 'out'}"]) == 0
    table = pd.read_csv(tmp_path / "out" / "runs.csv")
    assert table["model.name"].tolist() == ["final", "final"]
    assert sorted(table["task.template"]) == sorted(templates)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "left out" not in page
    assert all(text in unescape(page) for text in templates)


def test_times_of_different_devices_are_noted(tmp_path: Path) -> None:
    study = study_of(tmp_path, *({"seed": s, "device": "CPU" if s == 13 else "GPU"} for s in SEEDS))
    assert len(study.tasks[0].summary) == 1
    assert "different devices (CPU, GPU)" in " ".join(notes(study))


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


def test_keys_that_couples_varied_are_shown(tmp_path: Path) -> None:
    for kind, lr, layer in (("static", 0.03, 1), ("mppg", 0.001, 4)):
        run = metrics(prompt__kind=kind, optim__lr=lr, prompt__lr=lr, prompt__layer=layer)
        write_run(tmp_path / kind, run)
    couples = [{"prompt": "static", "optim.lr": "3e-2", "data": "kshot"}, {"prompt": "mppg"}]
    couples[1] |= {"data": "kshot", "optim.lr": "1e-3"}
    write_sweep(tmp_path, settings=couples)
    assert study_of(tmp_path).settings.keys == ["prompt.kind", "prompt.layer", "optim.lr"]


def of_method(name: str, layer: int, **settings: Any) -> dict[str, Any]:
    """A run of a method without a prompt."""
    method = {"name": name, "layer": layer, "lr": 0.001, **settings}
    return {"prompt": None, "method": method, "optim__lr": 0.001}


def test_runs_of_several_methods_have_one_column_for_the_method_and_one_for_the_layer(
    tmp_path: Path,
) -> None:
    static = {"prompt__kind": "static", "prompt__length": 20, "prompt__bottleneck": None}
    methods = [
        {"prompt__layer": 4},
        *({**static, "prompt__layer": layer} for layer in (1, 4)),
        of_method("lora", 4, r=8, alpha=16),
        of_method("adapter", 1, bottleneck=16),
        of_method("full", 1),
    ]
    couples = [{"prompt": "npg"}, {"prompt": "static", "prompt.length": "20"}, {"method": "lora"}]
    couples += [{"method": "adapter", "method.bottleneck": "16"}, {"method": "full"}]
    write_sweep(tmp_path, settings=couples)
    study = study_of(tmp_path, *({"seed": seed, **m} for m in methods for seed in SEEDS))
    assert study.settings.keys == [
        *("method.name", "method.layer", "prompt.length", "method.bottleneck")
    ]
    assert study.settings.confounded == ["optim.lr"]
    labels = list(map(study.settings.label, study.settings.values.index))
    assert labels == [
        "adapter, layer 1, bottleneck 16",
        "full, layer 1",
        "lora, layer 4",
        "npg, layer 4, length 5",
        "static, layer 1, length 20",
        "static, layer 4, length 20",
    ]
    assert study.settings.texts.loc[2].tolist() == ["lora", "4", "–", "–"]
    assert [len(study.tasks[0].runs_of(s)) for s in study.settings.values.index] == [3] * 6


def test_a_null_of_a_key_that_the_method_has_is_shown(tmp_path: Path) -> None:
    runs = [of_method("lora", 1, target_modules=t) for t in (None, ["query"])]
    study = study_of(tmp_path, *runs)
    labels = [study.settings.label(setting) for setting in study.settings.values.index]
    assert labels == ["target_modules none", 'target_modules ["query"]']


def test_an_empty_list_is_null(tmp_path: Path) -> None:
    prompts = [("npg", [3, 5]), ("npg", []), ("mppg", [])]
    runs = [{"prompt__kind": k, "prompt__layer": 3, "prompt__layers": v} for k, v in prompts]
    study = study_of(tmp_path, *runs, of_method("lora", 4, r=8))
    labels = {study.settings.label(setting) for setting in study.settings.values.index}
    shared = {"lora, layer 4", "mppg, layer 3"}
    assert labels == shared | {"npg, layer 3, layers none", "npg, layer 3, layers [3, 5]"}


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
