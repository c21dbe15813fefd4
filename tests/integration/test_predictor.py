"""A Predictor of a run's adapter: the same predictions, from several threads, of rows that fit."""

from __future__ import annotations

import math
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from lpt.experiment import run
from lpt.predictor import Predictor
from tests.conftest import MakeConfig
from tests.support.problems import problem_of, problems_of
from tests.support.trained import table


@pytest.mark.parametrize("model", ["masked", "causal"])
def test_predictor_predicts_what_the_run_predicted(
    toy: MakeConfig, tmp_path: Path, toy_data: Path, model: str
) -> None:
    run(toy(model, "data.eval_batch_size=5"))
    rows = [line.split("\t") for line in (toy_data / "test.tsv").read_text().splitlines()]
    predict = Predictor(tmp_path / "run" / "adapter")
    assert predict([]) == []
    predictions = predict([{"text": text} for _, text in rows])
    written = table(tmp_path / "run" / "predictions.tsv")
    assert [p.label for p in predictions] == [row["prediction"] for row in written]
    assert all(max(p.scores, key=p.scores.__getitem__) == p.label for p in predictions)
    assert all(math.isclose(sum(p.probabilities.values()), 1) for p in predictions)
    assert predict.predict(table(tmp_path / "run" / "predictions.tsv")[:0]) == []


def test_rows_are_texts_dicts_frames_and_datasets(toy: MakeConfig, tmp_path: Path) -> None:
    run(toy())
    predict = Predictor(tmp_path / "run")
    texts = ["good", "the food was bad and the people were bad", "the film"]
    expected = predict([{"text": text, "more": 1} for text in texts])
    frame = pd.DataFrame({"text": texts, "more": [1, 2, 3]})
    for rows in (texts, tuple(texts), frame, frame["text"], Dataset.from_pandas(frame)):
        assert predict(rows) == expected
        assert predict.predict(rows) == [p.label for p in expected]
        shares = predict.predict_proba(rows)
        assert shares.shape == (3, 2)
        listed = [list(p.probabilities.values()) for p in expected]
        assert shares == pytest.approx(np.array(listed), abs=1e-6)
    assert predict.predict_proba([]).shape == (0, 2)


def test_rows_that_do_not_fit(toy: MakeConfig, tmp_path: Path) -> None:
    run(toy())
    predict = Predictor(tmp_path / "run")
    good: dict[str, Any] = {"text": "good"}
    for value in (None, math.nan, pd.NA, 5, True, b"good", ["good"], "\ud83d"):
        [problem] = problems_of(partial(predict, [good, {"text": value}]))
        given = f"{value!r}, which is no text"
        assert (problem.where, problem.given) == ("rows[1].text", given)
    frame = pd.DataFrame({"text": ["good", None, "bad"]}, dtype=object)
    assert problem_of(partial(predict, frame)).where == "rows[1].text"
    bad: Any = [good, {"txt": "bad"}, 5, ("bad",), frame.iloc[0]]
    problems = problems_of(lambda: predict(bad))
    kinds = ("no column text (it has: txt)", "an int", "a tuple", "a Series")
    assert [problem.given for problem in problems] == list(kinds)
    assert [problem.where for problem in problems[:2]] == ["rows[1].text", "rows[2]"]
    others: list[tuple[Any, str]] = [("bad", "a str"), (good, "a dict"), (None, "a NoneType")]
    for given_rows, kind in others:
        assert problem_of(partial(predict, given_rows)).given == kind
    renamed = frame.rename(columns={"text": "txt"})
    for rows in (renamed, Dataset.from_pandas(renamed)):
        problem = problem_of(partial(predict, rows))
        assert problem.given == "no column text (it has: txt)"
        assert problem.hint == problems[0].hint == "the template reads text: rename the column"


def test_devices_and_types(toy: MakeConfig, tmp_path: Path) -> None:
    run(toy())
    predict = Predictor(tmp_path / "run")
    half = Predictor(tmp_path / "run", dtype="bfloat16")
    assert half.model.split.dtype == torch.bfloat16
    assert half.predict_proba(["good"]) == pytest.approx(predict.predict_proba(["good"]), abs=0.05)
    assert predict.to("cpu") is predict
    problems = problems_of(lambda: Predictor(tmp_path / "run", "gpu:0", dtype="int8"))
    assert [problem.where for problem in problems] == ["dtype", "device"]
    assert "cpu" in problems[1].expected
    for device in ("meta", "mps:3", "xyz"):
        problem = problem_of(partial(predict.to, device))
        assert (problem.where, problem.given) == ("device", f"{device}: no such device")


def test_a_regression_gives_numbers(toy: MakeConfig, tmp_path: Path) -> None:
    regression = ("task.task_type=regression", "task.metric=pearson")
    run(toy("masked", *regression))
    predict = Predictor(tmp_path / "run")
    numbers = predict.predict(["good", "bad"])
    assert numbers == predict.predict_proba(["good", "bad"])[:, 1].tolist()
    assert [p.label for p in predict(["good", "bad"])] == list(map(str, numbers))


@pytest.mark.parametrize("model", ["masked", "causal"])
def test_threads_share_a_predictor(
    *,
    toy: MakeConfig,
    checkpoints: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
) -> None:
    """With a tokenizer that has threads of its own and, as many have, truncates and pads."""
    folder = tmp_path / "model"
    shutil.copytree(checkpoints[model], folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(folder / "tokenizer.json"))
    run(toy(model, f"model.path={folder}", "data.max_length=24"))
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    predict = Predictor(tmp_path / "run" / "adapter")
    words = ("the film", "good", "bad", "</s> [MASK]", "it was a " * 20)
    calls = [
        [{"text": " ".join(words[(i * j + i + j) % 5] for j in range(1 + i % 7))}] * (1 + i % 3)
        for i in range(60)
    ]
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(predict, calls))
    finally:
        sys.setswitchinterval(usual)
    assert found == [predict(rows) for rows in calls]


@pytest.mark.parametrize("model", ["masked", "causal"])
def test_predictor_refuses_tokens_that_the_embedding_lacks(
    toy: MakeConfig, checkpoints: dict[str, Path], tmp_path: Path, model: str
) -> None:
    larger = tmp_path / "larger"
    shutil.copytree(checkpoints[model], larger)
    tokenizer = AutoTokenizer.from_pretrained(larger)
    tokenizer.add_tokens(["zzz"])
    tokenizer.save_pretrained(larger)
    run(toy(model, f"model.path={larger}"))
    predict = Predictor(tmp_path / "run" / "adapter")
    rows = [{"text": text} for text in ("good", "zzz bad", "bad", "zzz zzz")]
    found = problems_of(lambda: predict(rows))
    assert [problem.where for problem in found] == ["rows[1]", "rows[3]"]
    assert found[0].given == f"'zzz' has the id {len(tokenizer) - 1}"
    assert len(predict(rows[::2])) == 2
