"""What must not change the results of a run: caching, compiling, gradient checkpointing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lpt.data.batching import Collator
from lpt.experiment import run
from lpt.models.inputs import Batch
from lpt.models.layers import CheckpointedLayer
from lpt.runs.record import RunRecord
from lpt.training.module import build_model, build_module
from lpt.training.plan import prepare
from tests.conftest import MakeConfig
from tests.support.outcomes import curve
from tests.support.trained import table, train_batches

NO_DROPOUT = ("model.dropout=none", "prompt.dropout=0", "overwrite=true")


def train(toy: MakeConfig, folder: Path, *overrides: str) -> tuple[RunRecord, dict[str, Tensor]]:
    """A run's record and adapter."""
    record = run(toy(*overrides, "overwrite=true"))
    assert record is not None
    return record, load_file(folder / "run" / "adapter" / "adapter_model.safetensors")


def assert_same_scores(first: RunRecord, second: RunRecord) -> None:
    for field in ("zero_shot", "test", "selection", "dev_history", "parameters"):
        assert getattr(first, field) == getattr(second, field), field


@pytest.mark.parametrize("model", ["masked", "causal"])
def test_caching_changes_no_result(
    toy: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    """With dropout: filling the cache must not use up random numbers of the training."""
    folder = f"cache.dir={tmp_path / 'cache'}"
    results = [train(toy, tmp_path, model, f"cache={m}", folder) for m in ("on", "on", "off")]
    collate = Collator.__call__

    def send_index(self: Collator, examples: Sequence[int]) -> Batch:
        self.hidden, self.with_hidden_index = None, True
        return collate(self, examples)

    # As with hidden states on a GPU: a batch carries their indices, in every stage of the run.
    monkeypatch.setattr(Collator, "__call__", send_index)
    results.append(
        train(toy, tmp_path, model, "cache=on", folder, "trainer.num_sanity_val_steps=1")
    )
    assert [len(record.cache.sets) for record, _ in results] == [3, 3, 0, 3]
    for record, adapter in results[1:]:
        assert_same_scores(record, results[0][0])
        for name, tensor in results[0][1].items():
            torch.testing.assert_close(adapter[name], tensor, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="torch.compile needs a C++ compiler"
)
def test_compiling_changes_no_result(
    toy: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inductor = tmp_path / "inductor"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(inductor))
    settings = ("prompt.layer=4", "optim.lr=0.03", "logger=csv", *NO_DROPOUT)
    records, losses = [], []
    for compiled in ("false", "true"):
        torch.compiler.reset()
        record, _ = train(toy, tmp_path, "masked", f"trainer.compile={compiled}", *settings)
        records.append(record)
        losses.append(list(curve(tmp_path / "run", "train/loss").values()))
        assert any(inductor.glob("**/*.so")) == (compiled == "true")
    assert_same_scores(*records)
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[0][1] < losses[0][0]


@pytest.mark.parametrize("model", ["masked", "causal"])
def test_gradient_checkpointing_changes_no_result(
    toy: MakeConfig, tmp_path: Path, model: str
) -> None:
    results, predictions = [], []
    for enabled in ("false", "true"):
        switch = f"trainer.gradient_checkpointing={enabled}"
        results.append(train(toy, tmp_path, model, switch, "optim.lr=0.03", *NO_DROPOUT))
        model_of_run, _ = build_model(prepare(toy(model, switch, "overwrite=true")))
        checkpointed = [m for m in model_of_run.modules() if isinstance(m, CheckpointedLayer)]
        assert bool(checkpointed) == (enabled == "true")
        rows = table(tmp_path / "run" / "predictions.tsv")
        predictions.append([row["prediction"] for row in rows])
    assert_same_scores(results[0][0], results[1][0])
    assert predictions[0] == predictions[1]
    torch.testing.assert_close(results[1][1], results[0][1], atol=1e-6, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")  # without a trainer
def test_loss_over_label_words_equals_that_of_all_logits(toy: MakeConfig) -> None:
    """The head's rows of the label words suffice."""
    config = toy("masked", "loss=label_words", *NO_DROPOUT)
    plan = prepare(config)
    model, _ = build_model(plan)
    module = build_module(plan, model)
    module.model.train()
    batch = train_batches(config)[0]
    widths: list[int] = []
    model.register_forward_hook(lambda _, __, logits: widths.append(logits.shape[-1]))
    loss = module.training_step(batch, 0)["loss"]
    logits = model(batch)
    assert widths == [2, len(plan.backbone.tokenizer)]
    expected = torch.nn.functional.cross_entropy(logits[:, plan.word_ids], batch.labels)
    torch.testing.assert_close(loss, expected)
    trainable = list(model.trainable().values())
    gradients = [torch.autograd.grad(x, trainable, retain_graph=True) for x in (loss, expected)]
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)
    targets = torch.tensor(plan.word_ids)[batch.labels]
    assert loss < torch.nn.functional.cross_entropy(logits, targets) - 0.1
