"""Whole runs on tiny models through the real trainer: what trains, what stays, and how fast."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lpt.experiment import run
from lpt.models.inputs import Batch
from lpt.training.module import build_model
from lpt.training.plan import prepare
from tests.conftest import MakeConfig
from tests.support.trained import KINDS, fit, logged, train_batches


@pytest.mark.parametrize("model", ["masked", "causal"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_trains_and_what_does_not(
    toy: MakeConfig, tmp_path: Path, model: str, kind: str
) -> None:
    config = toy(model, f"prompt={kind}", "trainer.num_sanity_val_steps=1")
    torch.manual_seed(config.seed)
    plan = prepare(config)
    untrained, _ = build_model(plan)
    start = {name: p.detach().clone() for name, p in untrained.named_parameters()}
    torch.manual_seed(config.seed)
    module, _ = fit(config, tmp_path)

    trainable = set(module.model.trainable())
    expected = (
        {"vectors"} if kind == "static" else {"down.weight", "down.bias", "up.weight", "up.bias"}
    )
    assert trainable == {f"generator.{name}" for name in expected}
    for name, parameter in module.model.named_parameters():
        assert torch.equal(parameter, start[name]) == (name not in trainable), name

    for name in ("best", "last"):
        checkpoint = torch.load(tmp_path / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert set(checkpoint["state_dict"]) == {f"model.{name}" for name in trainable}
        states = checkpoint["optimizer_states"][0]["state"]
        assert len(states) == len(trainable)


@pytest.mark.parametrize(("dropout", "below"), [("above", False), ("all", True), ("none", False)])
def test_modes_while_training(toy: MakeConfig, tmp_path: Path, dropout: str, below: bool) -> None:
    config = toy("masked", f"model.dropout={dropout}", "trainer.num_sanity_val_steps=1")
    _, spy = fit(config, tmp_path)
    assert spy.modes == {(True, below, dropout != "none", False)}


@pytest.mark.parametrize("model", ["masked", "causal"])
@pytest.mark.parametrize("loss", ["vocabulary", "label_words"])
def test_learns(toy: MakeConfig, tmp_path: Path, toy_data: Path, model: str, loss: str) -> None:
    """The few examples that it is trained on; a random backbone is no help beyond them."""
    rows = (toy_data / "train.tsv").read_text().splitlines(keepends=True)[:24]
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.tsv").write_text("".join(rows))
    config = toy(
        model,
        f"data.path={tmp_path}",
        f"loss={loss}",
        "prompt=appg",
        "trainer.max_steps=160",
        "trainer.eval_every_steps=160",
        "optim.lr=0.03",
        "model.dropout=none",
        "prompt.dropout=0",
    )
    metrics = run(config)
    assert metrics is not None
    assert metrics.test["accuracy"] >= 0.8
    assert metrics.test["accuracy"] > metrics.majority["test"]["accuracy"] + 0.2
    assert metrics.test["accuracy"] > metrics.zero_shot["test"]["accuracy"] + 0.2


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_learns_with_frozen_weights_in_bf16(
    toy: MakeConfig, tmp_path: Path, precision: str
) -> None:
    config = toy(
        "masked",
        "model.dtype=bfloat16",
        f"trainer.precision={precision}",
        "trainer.max_steps=40",
        "trainer.eval_every_steps=40",
        "optim.lr=0.01",
        "model.dropout=none",
    )
    module, spy = fit(config, tmp_path)
    assert {p.dtype for p in module.model.split.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in module.model.generator.parameters()} == {torch.float32}
    assert sum(spy.losses[-5:]) < 0.5 * sum(spy.losses[:5])


def test_epochs_accumulation_and_patience(toy: MakeConfig, tmp_path: Path) -> None:
    config = toy(
        "masked",
        "trainer=epochs",
        "trainer.max_steps=null",
        "trainer.eval_every_steps=null",
        "trainer.max_epochs=6",
        "trainer.accumulate_grad_batches=2",
        "trainer.patience=1",
        "optim.lr=1e-9",
    )
    metrics = run(config)
    assert metrics is not None
    # 80 examples in 5 batches are 3 steps an epoch; nothing gets better after the first.
    assert [entry["step"] for entry in metrics.dev_history] == [3, 6]


def padding(batches: list[Batch]) -> float:
    real = sum(int(batch.attention_mask.sum()) for batch in batches)
    return 1 - real / sum(batch.attention_mask.numel() for batch in batches)


@pytest.mark.parametrize("model", ["masked", "causal"])
def test_padding_of_the_training_batches_is_reported(
    toy: MakeConfig, tmp_path: Path, model: str
) -> None:
    config = toy(model, "trainer.max_steps=6", "logger=csv", "data.bucketing=false")
    batches = train_batches(config)  # six of them: one more than the data hold
    metrics = run(config)
    assert metrics is not None
    assert metrics.cost.padding_share == pytest.approx(padding(batches), abs=1e-12)
    # Every second step is logged, under its number from 0.
    found = {int(r["step"]): float(r["train/padding"]) for r in logged(tmp_path, "train/padding")}
    expected = {step: padding([batches[step]]) for step in (1, 3, 5)}
    assert found == pytest.approx(expected, abs=1e-6)


def test_bucketing_saves_padding(toy: MakeConfig, tmp_path: Path) -> None:
    """Texts of 1 to 40 words, and texts of one length."""
    shares = {}
    for name, longest in (("uneven", 40), ("even", 1)):
        folder = tmp_path / name
        folder.mkdir()
        rows = [f"{i % 2}\t{'film ' * (1 + 7 * i % longest)}".rstrip() for i in range(80)]
        for split in ("train", "dev", "test"):
            (folder / f"{split}.tsv").write_text("\n".join(rows) + "\n")
        for bucketing in ("true", "false"):
            more = (f"data.path={folder}", f"data.bucketing={bucketing}", "overwrite=true")
            metrics = run(toy("masked", "data.batch_size=8", "trainer.max_steps=10", *more))
            assert metrics is not None
            shares[name, bucketing] = metrics.cost.padding_share
    assert 0 < shares["uneven", "true"] < 0.5 * shares["uneven", "false"]
    assert shares["even", "true"] == shares["even", "false"] == 0
