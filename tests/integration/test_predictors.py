"""Several adapters on one backbone: the predictions of each alone, from one lower pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM

from lpt.experiment import run
from lpt.predictor import Prediction, Predictor, Predictors
from tests.conftest import toy_overrides
from tests.support.configs import configured

TEXTS = ["good", "the food was bad and the people were bad", "the film", "no one asked"]
RUNS = {
    "late": (),
    "lower": ("prompt.layer=2", "prompt=appg", "seed=7", "task.label_words=[good,bad]"),
    "head": ("method=head", "prompt.layer=null"),
    "prefix": ("method=prefix", "method.layer=3", "prompt.layer=null"),
    "lora": ("method=lora", "method.layer=3", "prompt.layer=null"),
    "other": ('task.template="{text} , so <mask> ."',),
}
Make = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def folders(
    checkpoints: dict[str, Path], toy_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The folder of a run of each kind."""
    root = tmp_path_factory.mktemp("several")
    for name, settings in RUNS.items():
        where = f"run_dir={root / name}"
        run(configured(*toy_overrides(checkpoints, toy_data, "masked", where, *settings)))
    return {name: root / name for name in RUNS}


def count_passes(predictors: Predictors, name: str) -> list[int]:
    """A list that gets an element for every pass over the embeddings of a predictor's model."""
    passes: list[int] = []
    lower = predictors[name].model.split.lower
    assert lower is not None
    lower.get_input_embeddings().register_forward_hook(lambda *_: passes.append(1))
    return passes


def close(found: list[Prediction], expected: list[Prediction]) -> bool:
    same = [p.label for p in found] == [p.label for p in expected]
    scores = [[list(p.scores.values()) for p in each] for each in (found, expected)]
    return same and bool(torch.allclose(*map(torch.tensor, scores), atol=1e-5))


def test_each_predicts_as_alone_and_texts_are_read_once(folders: dict[str, Path]) -> None:
    predictors = Predictor.many(folders)
    shared, own = count_passes(predictors, "late"), count_passes(predictors, "lora")
    found = predictors(TEXTS, batch_size=2)
    assert list(found) == list(RUNS)
    assert (len(shared), len(own)) == (4, 2)  # 2 batches, in 2 templates; LoRA has its own model
    for name, folder in folders.items():
        assert close(found[name], Predictor(folder)(TEXTS))
        assert close(predictors[name](TEXTS), found[name])
    assert predictors.to("cpu") is predictors


def test_in_half_precision(folders: dict[str, Path]) -> None:
    names = {name: folders[name] for name in ("late", "lower")}
    found = Predictor.many(names, dtype="bfloat16")(TEXTS)
    for name, folder in names.items():
        assert close(found[name], Predictor(folder, dtype="bfloat16")(TEXTS))


def test_a_backbone_at_hand(folders: dict[str, Path], checkpoints: dict[str, Path]) -> None:
    model = AutoModelForMaskedLM.from_pretrained(checkpoints["masked"])
    predictors = [Predictor(folders[name], model=model) for name in ("late", "head")]
    embeddings = model.get_input_embeddings()
    for name, predict in zip(("late", "head"), predictors, strict=True):
        assert predict.model.split.lower is not None
        assert predict.model.split.lower.get_input_embeddings() is embeddings
        assert close(predict(TEXTS), Predictor(folders[name])(TEXTS))


def test_causal_models_share_a_pass_if_their_words_are_the_same(
    checkpoints: dict[str, Path], toy_data: Path, tmp_path: Path
) -> None:
    settings = {"a": (), "b": ("prompt.layer=2",), "c": ("task.label_words=[good,bad]",)}
    for name, more in settings.items():
        where = f"run_dir={tmp_path / name}"
        run(configured(*toy_overrides(checkpoints, toy_data, "causal", where, *more)))
    folders = {name: tmp_path / name for name in settings}
    predictors = Predictor.many(folders)
    passes = count_passes(predictors, "a")
    found = predictors(TEXTS)
    assert len(passes) == 2
    for name, folder in folders.items():
        assert close(found[name], Predictor(folder)(TEXTS))
