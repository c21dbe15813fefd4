"""Runs of a linear head: out of the cache, saved, predicted, and as good as scikit-learn's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from lpt.experiment import run
from lpt.models.backbone import load_model
from lpt.models.inputs import Batch
from lpt.predictor import Predictor
from lpt.training.plan import prepare
from tests.conftest import MakeConfig
from tests.support.trained import build_data, table

HEAD = ("method=head", "prompt.layer=null", "overwrite=true")


@pytest.mark.parametrize("model", ["masked", "causal"])
def test_the_cache_changes_no_result_and_the_predictor_has_it(
    toy: MakeConfig, tmp_path: Path, model: str
) -> None:
    cached, whole = (run(toy(model, *HEAD, f"cache={mode}")) for mode in ("on", "off"))
    assert cached is not None
    assert whole is not None
    assert cached.cache.sets == ["dev", "test", "train"]
    for field in ("zero_shot", "test", "dev_history", "parameters"):
        assert getattr(cached, field) == getattr(whole, field), field
    assert cached.parameters.trainable == 32 * 2 + 2
    config = toy(model, *HEAD)
    examples = prepare(config).splits.sets["test"]
    rows = [{"text": text} for text in examples.columns["text"]]
    found = Predictor(tmp_path / "run" / "adapter")(rows)
    expected = table(tmp_path / "run" / "predictions.tsv")
    assert [p.label for p in found] == [row["prediction"] for row in expected]


@pytest.mark.parametrize("model", ["masked", "causal"])
def test_as_good_as_logistic_regression(toy: MakeConfig, model: str) -> None:
    """On the states at the scored positions, which transformers gives."""
    steps = ("trainer.max_steps=200", "trainer.eval_every_steps=200")
    config = toy(model, *HEAD, *steps, "data.eval_batch_size=128")
    record = run(config)
    assert record is not None
    plan = prepare(config)
    data, plain = build_data(config, plan), load_model(plan.backbone, dtype=torch.float32)
    features = {}
    for name in ("train", "dev", "test"):
        data.test_set = name
        [batch] = data.test_dataloader()
        features[name] = _scored_states(plain, batch), batch.labels
    reference = LogisticRegression(max_iter=1000).fit(*features["train"])
    assert record.test is not None
    found = record.dev["accuracy"] + record.test["accuracy"]
    expected = sum(reference.score(*features[name]) for name in ("dev", "test"))
    assert found / 2 >= expected / 2 - 0.08  # of 48 examples


def _scored_states(plain: torch.nn.Module, batch: Batch) -> torch.Tensor:
    position = batch.logit_positions if batch.branches is None else batch.summary_index
    mask = torch.arange(batch.input_ids.shape[1]) <= batch.summary_index[:, None]
    mask = batch.attention_mask if batch.branches is None else mask.long()
    with torch.no_grad():
        out = plain.base_model(input_ids=batch.input_ids, attention_mask=mask)
    return out.last_hidden_state[torch.arange(len(position)), position]


@pytest.mark.parametrize(
    "task",
    [("task.task_type=regression", "task.metric=pearson"), ("task.task_type=classification",)],
)
def test_numbers_and_classes(toy: MakeConfig, task: tuple[str, ...]) -> None:
    record = run(toy("masked", *HEAD, *task))
    assert record is not None
    assert record.config["loss"] == "label_words"
