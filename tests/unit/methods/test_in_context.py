"""In-context learning: what a prompt holds, and its scores as plain transformers has them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from lpt.data.templates import Encoder
from lpt.errors import ConfigError
from lpt.experiment import run
from lpt.methods.in_context import DemonstrationEncoder, draw_demonstrations
from lpt.models.backbone import load_model
from lpt.predictor import Predictor
from lpt.runs.record import RunRecord
from lpt.training.plan import Plan, prepare
from tests.conftest import MakeConfig
from tests.support.trained import table

METHOD = ("method=in_context", "prompt.layer=null", "overwrite=true")


@pytest.fixture
def plan(toy: MakeConfig) -> Plan:
    return prepare(toy("causal", *METHOD))


def drawn(plan: Plan, seed: int = 13, max_length: int = 10_000) -> tuple[str, ...]:
    tokenizer, template = plan.encoder.tokenizer, plan.task.template
    encoder = Encoder(tokenizer, template, plan.encoder.label_words, max_length)
    return draw_demonstrations(encoder, plan.splits.sets["train"], seed)


def test_demonstrations_are_training_texts_balanced_and_seeded(plan: Plan) -> None:
    train, words = plan.splits.sets["train"], plan.encoder.label_words
    rows = zip(train.columns["text"], train.labels, strict=True)
    rendered = {f"{text} It was {words[int(label)]} ." for text, label in rows}
    texts = drawn(plan)
    assert set(texts) <= rendered
    assert len(set(texts)) == len(texts) == 2 * min(train.labels.count(i) for i in (0, 1))
    for start in range(0, len(texts), 2):
        pair = texts[start : start + 2]
        assert sorted(word for text in pair for word in words if f" {word} " in text) == [
            *sorted(words)
        ]
    assert texts == drawn(plan)
    assert texts != drawn(plan, seed=21)
    assert drawn(plan, max_length=64) == texts[: len(drawn(plan, max_length=64))]


@pytest.mark.parametrize("max_length", [20, 64, 200])
def test_the_prompt_is_the_concatenated_text_with_all_that_fit(plan: Plan, max_length: int) -> None:
    tokenizer, words = plan.encoder.tokenizer, plan.encoder.label_words
    texts = drawn(plan)
    plain = Encoder(tokenizer, plan.task.template, words, max_length)
    columns = {"text": ["the food", "the room was bad and no one asked"]}
    encoded = DemonstrationEncoder(plain, texts).encode(columns)
    for row, text in enumerate(columns["text"]):
        own = [[*encoded.context[row], *part] for part in encoded.label_parts[row]]
        fitting = []
        for number in range(len(texts) + 1):
            before = "".join(f"{shown}\n\n" for shown in texts[:number])
            whole = [f"{before}{text} It was {word} ." for word in words]
            ids = [tokenizer.encode(t, add_special_tokens=False) for t in whole]
            ids = [[tokenizer.bos_token_id, *i, tokenizer.eos_token_id] for i in ids]
            if max(map(len, ids)) <= max_length:
                fitting.append(ids)
        assert own == fitting[-1]
    assert encoded.truncated == 0


def finished(toy: MakeConfig, *overrides: str) -> RunRecord:
    record = run(toy("causal", *METHOD, "data.max_length=90", *overrides))
    assert record is not None
    return record


def test_scores_are_the_log_likelihoods_of_the_concatenated_text(
    toy: MakeConfig, tmp_path: Path
) -> None:
    """A run from its start to its adapter; each row's text is put together here once more."""
    record = finished(toy)
    plan = prepare(toy("causal", *METHOD, "data.max_length=90"))
    model = load_model(plan.backbone, dtype=torch.float32)
    encoder = DemonstrationEncoder(
        plan.encoder, draw_demonstrations(plan.encoder, plan.splits.sets["train"], 13)
    )
    texts = plan.splits.sets["test"].columns["text"][:4]
    predictor = Predictor(tmp_path / "run" / "adapter")
    found = predictor([{"text": text} for text in texts])
    encoded = encoder.encode({"text": texts})
    for row, prediction in enumerate(found):
        context = encoded.context[row]
        assert len(context) > 60  # most of it demonstrations
        for part, score in zip(encoded.label_parts[row], prediction.scores.values(), strict=True):
            ids = torch.tensor([[*context, *part]])
            with torch.no_grad():
                logits = model(ids).logits[0, len(context) - 1 : -1]
            assert score == pytest.approx(
                -nn.functional.cross_entropy(logits, torch.tensor(part)).item(), abs=1e-5
            )
    expected = [line["prediction"] for line in table(tmp_path / "run" / "predictions.tsv")]
    assert [prediction.label for prediction in found] == expected[:4]
    assert (record.parameters.trainable, record.selection.step, record.cost.steps) == (0, 0, 0)
    [history] = record.dev_history
    assert history == {"step": 0, **record.dev}
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_zero_shot_scores_are_without_demonstrations(toy: MakeConfig) -> None:
    record = finished(toy, "cache=off")
    other = run(toy("causal", "method=full", "prompt.layer=null", "overwrite=true", "cache=off"))
    assert other is not None
    assert record.zero_shot == other.zero_shot


@pytest.mark.parametrize(
    ("model", "overrides", "expected"),
    [
        ("masked", (), "causal"),
        ("causal", ("method.layer=2",), "method.layer"),
        ("causal", ("task.task_type=regression", "task.metric=pearson"), "number"),
    ],
)
def test_what_does_not_fit_is_refused(
    toy: MakeConfig, model: str, overrides: tuple[str, ...], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        prepare(toy(model, *METHOD, *overrides))
