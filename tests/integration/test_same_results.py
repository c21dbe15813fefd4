"""What must not change the results of a run: caches, compiling, checkpointing, interruptions."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback
from safetensors.torch import load_file
from torch._dynamo.utils import counters

from lpt.experiment import run
from lpt.methods.late_prompt import Batch
from lpt.models.views import Recomputed
from lpt.training.build import build_data, build_model, build_module
from lpt.training.plan import prepare
from lpt.training.trainer import build_trainer
from tests.conftest import MakeConfig
from tests.support.trained import logged, train_batches


def test_a_cold_cache_a_warm_one_and_none_train_alike(toy: MakeConfig, tmp_path: Path) -> None:
    """With dropout on: filling the cache must not use up random numbers of the training."""
    adapters = []
    for cache in ("on", "on", "off"):
        run(toy("masked", f"cache={cache}", f"cache.dir={tmp_path / 'cache'}", "overwrite=true"))
        adapters.append(load_file(tmp_path / "run" / "adapter" / "adapter.safetensors"))
    for other in adapters[1:]:
        for name, tensor in adapters[0].items():
            torch.testing.assert_close(other[name], tensor, atol=1e-5, rtol=1e-4)


NO_DROPOUT = ("model.dropout=none", "prompt.dropout=0", "overwrite=true")


def assert_alike(first: dict[str, Any] | None, second: dict[str, Any] | None) -> None:
    """Two runs came to the same scores, and by the same way."""
    assert first is not None
    assert second is not None
    for key in ("zero_shot", "test", "selection", "dev_history"):
        assert first[key] == second[key], key


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="torch.compile needs a C++ compiler"
)
def test_compiling_changes_no_result(
    toy: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    settings = ("prompt.layer=4", "optim.lr=0.03", "logger=csv", *NO_DROPOUT)
    results, losses = [], []
    for compiled in ("false", "true"):
        torch._dynamo.reset()
        counters.clear()
        results.append(run(toy("masked", f"trainer.compile={compiled}", *settings)))
        assert bool(counters["stats"]["unique_graphs"]) == (compiled == "true")
        losses.append([float(row["train/loss"]) for row in logged(tmp_path, "train/loss")])
    assert_alike(*results)
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[0][1] < losses[0][0]


@pytest.mark.parametrize("model", ["masked", "causal"])
def test_gradient_checkpointing_changes_no_result(
    toy: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    used: list[Recomputed] = []
    forward = Recomputed.forward

    def note(self: Recomputed, *inputs: Any, **more: Any) -> Any:
        used.append(self)
        return forward(self, *inputs, **more)

    monkeypatch.setattr(Recomputed, "forward", note)
    results, adapters, predictions = [], [], []
    for twice in ("false", "true"):
        switch = f"trainer.gradient_checkpointing={twice}"
        results.append(run(toy(model, switch, "optim.lr=0.03", *NO_DROPOUT)))
        assert bool(used) == (twice == "true")
        adapters.append(load_file(tmp_path / "run" / "adapter" / "adapter.safetensors"))
        predictions.append((tmp_path / "run" / "predictions.tsv").read_text())
    assert_alike(*results)
    assert predictions[0] == predictions[1]
    torch.testing.assert_close(adapters[1], adapters[0], atol=1e-6, rtol=1e-5)


def test_loss_over_label_words_is_that_of_their_logits(toy: MakeConfig) -> None:
    """Only the head's rows of the label words are computed, which is as good as all of them."""
    config = toy("masked", "loss=label_words", *NO_DROPOUT)
    plan = prepare(config)
    model, _ = build_model(config, plan)
    module = build_module(config, plan, model)
    module.model.train()
    batch = train_batches(config)[0]
    widths: list[int] = []
    model.register_forward_hook(lambda _, __, logits: widths.append(logits.shape[-1]))
    loss = module.training_step(batch, 0)["loss"]
    whole = model(batch)
    assert widths == [2, len(plan.backbone.tokenizer)]
    expected = torch.nn.functional.cross_entropy(whole[:, plan.word_ids], batch.labels)
    torch.testing.assert_close(loss, expected)
    trainable = list(model.trainable().values())
    for grad, other in zip(
        torch.autograd.grad(loss, trainable, retain_graph=True),
        torch.autograd.grad(expected, trainable),
        strict=True,
    ):
        torch.testing.assert_close(grad, other, atol=1e-6, rtol=1e-4)
    over_all = torch.nn.functional.cross_entropy(whole, torch.tensor(plan.word_ids)[batch.labels])
    assert loss < over_all - 0.1


class Order(Callback):
    """Notes the rows of each training batch; pulls the plug before a given step."""

    def __init__(self, plug: int | None = None) -> None:
        self.plug = plug
        self.rows: list[list[int]] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, _: int) -> None:
        if trainer.global_step == self.plug:
            raise RuntimeError("pulled the plug")
        self.rows.append(batch.row_ids.tolist())


@pytest.mark.parametrize(
    "length",
    [
        ("trainer.max_steps=12", "trainer.eval_every_steps=3"),
        (
            "trainer=epochs",
            "trainer.max_steps=null",
            "trainer.max_epochs=3",
            "trainer.eval_every_steps=null",
            "trainer.eval_every_epochs=1",
        ),
        (
            "trainer.max_steps=12",
            "trainer.eval_every_steps=3",
            "trainer.accumulate_grad_batches=2",
            "data.num_workers=2",
        ),
    ],
    ids=["steps", "epochs", "accumulated"],
)
def test_a_resumed_run_goes_on_in_the_same_order(
    toy: MakeConfig, tmp_path: Path, length: tuple[str, ...]
) -> None:
    """80 examples are 5 batches; the plug is pulled in the second pass."""
    without = ("model.dropout=none", "prompt.dropout=0")
    config = toy("masked", *without, *length)
    plan = prepare(config)

    def train(plug: int | None, checkpoint: Path | None) -> tuple[Order, dict[str, Any]]:
        torch.manual_seed(config.seed)
        model, _ = build_model(config, plan)
        module, order = build_module(config, plan, model), Order(plug)
        trainer = build_trainer(config, tmp_path / str(plug), plan.backbone, model)
        trainer.callbacks.append(order)  # type: ignore[attr-defined]
        data = build_data(config, plan)
        try:
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        except RuntimeError as error:
            assert str(error) == "pulled the plug"  # noqa: PT017
        return order, {name: p.detach() for name, p in model.trainable().items()}

    whole, expected = train(None, None)
    before, _ = train(8, None)
    assert before.rows == whole.rows[: len(before.rows)]
    after, found = train(None, tmp_path / "8" / "checkpoints" / "last.ckpt")
    assert 2 <= len(whole.rows) - len(after.rows) <= len(before.rows)
    assert after.rows == whole.rows[-len(after.rows) :]
    assert all(torch.equal(found[name], expected[name]) for name in expected)
