"""Runs from Python: rows at hand, the defaults of the command line, a result that predicts."""

from __future__ import annotations

import doctest
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from datasets import Dataset, DatasetDict

import lpt
from lpt import Config, Predictor, Result
from lpt.errors import ConfigError
from tests.support.configs import ROOT, configured
from tests.support.problems import problem_of, problems_of
from tests.support.trained import table

Rows = list[dict[str, Any]]
Settings = dict[str, Any]


@pytest.fixture
def rows(toy_data: Path) -> dict[str, Rows]:
    """The toy data as dicts, by set."""
    found = {}
    for file in toy_data.glob("*.tsv"):
        lines = (line.split("\t") for line in file.read_text(encoding="utf-8").splitlines())
        found[file.stem] = [{"label": int(label), "text": text} for label, text in lines]
    return found


@pytest.fixture
def settings(checkpoints: dict[str, Path], tmp_path: Path) -> Settings:
    return {
        "model": "local",
        "model.path": checkpoints["masked"],
        "task": "custom",
        "task.labels": [0, 1],
        "task.label_words": ["terrible", "great"],
        "task.template": "{text} It was <mask> .",
        "prompt": "mppg",
        "data.batch_size": 16,
        "data.max_length": 64,
        "trainer.max_steps": 4,
        "strategy.accelerator": "cpu",
        "run_dir": tmp_path / "run",
    }


@pytest.mark.parametrize("overrides", [["data=kshot", "data.k=20", "logger=[csv,tensorboard]"], []])
def test_defaults_are_those_of_the_command_line(overrides: list[str]) -> None:
    chosen = {"model": "roberta-large", "task": "sst2", "prompt": "mppg", "prompt.layer": 13}
    given: Settings = {"data": "kshot", "data.k": 20, "logger": ["csv", "tensorboard"]}
    command = [f"{key}={value}" for key, value in chosen.items()]
    found = Config.compose({**chosen, **(given if overrides else {})})
    assert found == configured(*command, *overrides)


def test_settings_are_checked_together() -> None:
    found = problems_of(
        lambda: Config.compose({"model": "roberta-huge", "promt.layer": 3, "seed": "x"})
    )
    assert [problem.where for problem in found] == ["model=roberta-huge", "promt.layer", "seed"]
    assert "roberta-large" in found[0].hint
    assert "prompt.layer" in found[1].hint
    problem = problem_of(lambda: Config.compose({"model": "local"}))
    assert (problem.where, problem.given) == ("model.path", "no value")
    problem = problem_of(lambda: Config.compose({"method": "lora", "prompt": "npg"}))
    assert problem.where == "prompt"


def as_dataset(rows: Rows) -> Dataset:
    return Dataset.from_list(rows).with_format("numpy")


@pytest.mark.parametrize("kind", [list, pd.DataFrame, as_dataset])
def test_rows_of_any_kind_give_the_run_of_the_same_files(
    *,
    settings: Settings,
    rows: dict[str, Rows],
    toy_data: Path,
    tmp_path: Path,
    kind: Callable[[Rows], Any],
) -> None:
    sets = {name: kind(part) for name, part in rows.items()}
    found = lpt.run(Config.compose(settings), **sets).record
    files = {"task.header": ["label", "text"], "data.path": toy_data, "run_dir": tmp_path / "files"}
    expected = lpt.run(Config.compose({**settings, **files})).record
    assert found.split == expected.split
    assert found.test == expected.test
    assert found.dev_history == expected.dev_history
    assert found.command == []


def test_a_result_predicts_with_what_was_trained(
    settings: Settings, rows: dict[str, Rows], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = Config.compose({**settings, "cache": "on", "resume": "auto"})
    level = logging.getLogger("lightning.pytorch").level
    result = lpt.run(config, **rows)
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("lightning.pytorch").level == level
    written = table(tmp_path / "run" / "predictions.tsv")
    predicted = result.predictor(rows["test"])
    assert result.predictor.predict(rows["test"]) == [row["prediction"] for row in written]
    assert Predictor(tmp_path / "run")(rows["test"]) == predicted
    again = lpt.run(config, **rows)  # is finished: loads what it trained
    assert again.record == result.record
    assert again.predictor(rows["test"]) == predicted
    dev, test = result.record.dev["accuracy"], result.record.test["accuracy"]
    scores = f"dev accuracy {dev:.3f}, test accuracy {test:.3f}"
    assert str(result) == f"Result({tmp_path / 'run'}: {scores})"


def test_train_alone_is_divided(settings: Settings, rows: dict[str, Rows], tmp_path: Path) -> None:
    def sets(seed: int) -> Result:
        config = Config.compose({**settings, "data.seed": seed, "run_dir": tmp_path / str(seed)})
        return lpt.run(config, train=rows["train"])

    one, two = sets(1), sets(2)
    assert one.record.split.sizes == {"train": 52, "dev": 12, "test": 16}
    assert "held out of train (16 of 80" in one.record.split.origin["test"]
    ids = [[row["index"] for row in table(tmp_path / str(n) / "predictions.tsv")] for n in (1, 2)]
    assert ids[0] == ids[1]
    assert two.record.split.sha256 != one.record.split.sha256


GOOD = as_dataset([{"text": "good", "label": 1}])
BAD_ROWS: dict[str, tuple[Settings, str, str]] = {
    "no train": ({"dev": [{"text": "good", "label": 1}]}, "train", "None"),
    "no rows": ({"train": []}, "train", "no rows"),
    "a text": ({"train": "good"}, "train", "a str"),
    "one dict": ({"train": {"text": "good"}}, "train", "a dict"),
    "a row that is none": ({"train": [{"text": "good", "label": 1}, "bad"]}, "train:2", "a str"),
    "a stream": ({"train": GOOD.to_iterable_dataset()}, "train", "an IterableDataset"),
    "several sets": ({"train": DatasetDict(train=GOOD)}, "train", "a DatasetDict"),
    "no text": ({"train": [{"text": None, "label": 1}]}, "train:1", "no value for 'text'"),
    "NaN": (
        {"train": pd.DataFrame({"text": ["good", float("nan")], "label": [0, 1]})},
        "train:2",
        "no value for 'text'",
    ),
    "no such label": ({"train": [{"text": "good", "label": 2}]}, "train:1", "label '2'"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_rows_that_do_not_fit_are_named(settings: Settings, tmp_path: Path, name: str) -> None:
    sets, where, given = BAD_ROWS[name]
    [problem, *_] = problems_of(lambda: lpt.run(Config.compose(settings), **sets))
    assert (problem.where, problem.given) == (where, given)
    assert not (tmp_path / "run").exists()


def test_rows_take_the_place_of_files(
    settings: Settings, rows: dict[str, Rows], toy_data: Path
) -> None:
    config = Config.compose({**settings, "data.path": toy_data})
    assert problem_of(lambda: lpt.run(config, **rows)).where == "data.path"
    config = Config.compose({**settings, "dry_run": True})
    with pytest.raises(ConfigError, match="dry_run"):
        lpt.run(config, **rows)


def test_the_page_on_python_is_right(
    checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my").mkdir()
    os.symlink(checkpoints["masked"], tmp_path / "my" / "checkpoint")
    page = str(ROOT / "docs" / "python.md")
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failed, tried = doctest.testfile(page, module_relative=False, optionflags=flags)
    assert tried > 5
    assert failed == 0
