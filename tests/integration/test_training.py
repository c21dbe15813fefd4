"""Whole runs on tiny models through the real trainer: what trains, what stays, and how fast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer

from lpt.experiment import run
from lpt.models.inputs import Batch
from tests.conftest import MakeConfig
from tests.support.outcomes import curve, weights
from tests.support.trained import KINDS, train_batches


class Spy(Callback):
    """Sees a run's parameters before the training, the modes of its steps, and the losses."""

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.model = pl_module.model
        self.start = {n: p.detach().clone() for n, p in self.model.named_parameters()}
        self.modes: set[tuple[bool, ...]] = set()
        self.losses: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        split = self.model.split
        parts = (self.model.generator, split.lower, split.upper, split.head)
        self.modes.add(tuple(part.training for part in parts))

    def on_train_batch_end(self, trainer: Trainer, _: Any, outputs: Any, *__: Any) -> None:
        self.losses.append(float(outputs["loss"]))


@pytest.fixture
def spy(callbacks: list[Callback]) -> Spy:
    callbacks.append(Spy())
    return callbacks[-1]  # type: ignore[return-value]


WHOLE = ("cache=off", "trainer.num_sanity_val_steps=1")  # the lower layers are not released


@pytest.mark.parametrize("model", ["masked", "causal"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_trains_and_what_does_not(
    toy: MakeConfig, tmp_path: Path, spy: Spy, model: str, kind: str
) -> None:
    run(toy(model, f"prompt={kind}", *WHOLE))
    trainable = set(spy.model.trainable())
    layers = {"inception": [f"branches.{k}.{i}" for k in range(3) for i in (0, 2)], "static": []}
    expected = {f"{n}.{p}" for n in layers.get(kind, ["down", "up"]) for p in ("weight", "bias")}
    expected |= {
        "static": {"vectors"},
        "inception": {"start.vectors"},
        "attention": {"score.weight"},
        "idpg": {"down.rule", "up.rule"},
    }.get(kind, set())
    assert trainable == {f"generator.{name}" for name in expected}
    for name, parameter in spy.model.named_parameters():
        assert torch.equal(parameter, spy.start[name]) == (name not in trainable), name

    for name in ("best", "last"):
        file = tmp_path / "run" / "checkpoints" / f"{name}.ckpt"
        checkpoint = torch.load(file, weights_only=True)
        assert set(checkpoint["state_dict"]) == {f"model.{name}" for name in trainable}
        states = checkpoint["optimizer_states"][0]["state"]
        assert len(states) == len(trainable)


@pytest.mark.parametrize(("dropout", "below"), [("above", False), ("all", True), ("none", False)])
def test_modes_while_training(toy: MakeConfig, spy: Spy, dropout: str, below: bool) -> None:
    run(toy("masked", f"model.dropout={dropout}", *WHOLE))
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
def test_learns_with_frozen_weights_in_bf16(toy: MakeConfig, spy: Spy, precision: str) -> None:
    config = toy(
        "masked",
        "model.dtype=bfloat16",
        f"trainer.precision={precision}",
        "trainer.max_steps=80",
        "trainer.eval_every_steps=80",
        "optim.lr=0.01",
        "model.dropout=none",
        *WHOLE,
    )
    run(config)
    assert {p.dtype for p in spy.model.split.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in spy.model.generator.parameters()} == {torch.float32}
    assert sum(spy.losses[-5:]) < 0.5 * sum(spy.losses[:5])


BY_EPOCHS = "trainer=epochs trainer.max_steps=null trainer.eval_every_steps=null"


@pytest.mark.parametrize(
    ("length", "steps"),
    [
        ("trainer.max_steps=2 trainer.eval_every_steps=100", [2]),
        ("trainer.max_steps=5 trainer.eval_every_steps=3", [3, 5]),
        (
            "trainer.max_steps=3 trainer.eval_every_steps=2 trainer.accumulate_grad_batches=3",
            [2, 3],
        ),
        (f"{BY_EPOCHS} trainer.max_epochs=3 trainer.eval_every_epochs=2", [10, 15]),
        (f"{BY_EPOCHS} trainer.max_epochs=1 trainer.eval_every_epochs=3", [5]),
        (f"{BY_EPOCHS} trainer.max_epochs=2 trainer.eval_every_steps=4", [4, 8, 10]),
        (f"{BY_EPOCHS} trainer.max_epochs=1 trainer.eval_every_steps=40", [5]),
    ],
)
def test_the_last_step_is_always_evaluated(
    toy: MakeConfig, tmp_path: Path, length: str, steps: list[int]
) -> None:
    """Also in a run that is killed after it, which is trained no further when it is resumed."""
    metrics = run(toy("masked", *length.split()))
    assert metrics is not None
    assert [scores["step"] for scores in metrics.dev_history] == steps
    assert metrics.cost.steps == steps[-1]
    last = weights(tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    again = run(toy("masked", *length.split(), "resume=auto"))
    assert again is not None
    assert (again.dev_history, again.test) == (metrics.dev_history, metrics.test)
    assert again.cost.steps == steps[-1]
    torch.testing.assert_close(weights(tmp_path / "run"), last, rtol=0, atol=0)


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
    expected = {str(step): padding([batches[step]]) for step in (1, 3, 5)}
    assert curve(tmp_path / "run", "train/padding") == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("longest", [1, 40])
def test_bucketing_saves_padding(toy: MakeConfig, tmp_path: Path, longest: int) -> None:
    """Texts of one length, and texts of 1 to 40 words."""
    rows = [f"{i % 2}\t{'film ' * (1 + 7 * i % longest)}".rstrip() for i in range(80)]
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.tsv").write_text("\n".join(rows) + "\n")
    more = (f"data.path={tmp_path}", "data.batch_size=8", "trainer.max_steps=10")
    bucketed, plain = (
        padding(train_batches(toy("masked", *more, f"data.bucketing={switch}")))
        for switch in ("true", "false")
    )
    if longest == 1:
        assert bucketed == plain == 0
    else:
        assert 0 < bucketed < 0.5 * plain
