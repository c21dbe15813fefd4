"""Whole runs on tiny models through the real trainer: what trains, what stays, what is left."""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback
from safetensors.torch import load_file
from torch._dynamo.utils import counters

from lpt.artifact import load_adapter
from lpt.builders import build_data, build_model, build_module
from lpt.config import Config
from lpt.errors import ConfigError
from lpt.experiment import run
from lpt.models.backbone import find_backbone, load_model
from lpt.models.generators import GENERATORS
from lpt.models.late_prompt import Batch
from lpt.models.views import Recomputed
from lpt.module import LatePromptModule
from lpt.plan import prepare
from lpt.predictor import Predictor
from lpt.training import build_trainer
from tests.conftest import MakeConfig

KINDS = (*GENERATORS, "static")


class Spy(Callback):
    """Notes the modes in which training steps run, and the losses."""

    def __init__(self) -> None:
        self.modes: set[tuple[bool, ...]] = set()
        self.losses: list[float] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        split = pl_module.model.split
        parts = (pl_module.model.generator, split.below, split.above, split.head)
        self.modes.add(tuple(part.training for part in parts))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.losses.append(float(outputs["loss"]))


def fit(config: Config, folder: Path) -> tuple[LatePromptModule, Spy]:
    """Train through the project's own builders and trainer, sanity check included."""
    torch.manual_seed(config.seed)
    plan = prepare(config)
    model, _ = build_model(config, plan)
    module = build_module(config, plan, model)
    trainer, spy = build_trainer(config, folder, plan.backbone, model), Spy()
    trainer.callbacks.append(spy)  # type: ignore[attr-defined]
    trainer.fit(module, datamodule=build_data(config, plan))
    return module, spy


@pytest.mark.parametrize("model", ["masked", "causal"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_trains_and_what_does_not(
    toy: MakeConfig, tmp_path: Path, model: str, kind: str
) -> None:
    config = toy(model, f"prompt={kind}", "trainer.sanity_steps=1")
    torch.manual_seed(config.seed)
    plan = prepare(config)
    untrained, _ = build_model(config, plan)
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
    config = toy("masked", f"model.dropout={dropout}", "trainer.sanity_steps=1")
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
    assert metrics["test"]["accuracy"] >= 0.8
    assert metrics["test"]["accuracy"] > metrics["majority"]["test"]["accuracy"] + 0.2
    assert metrics["test"]["accuracy"] > metrics["zero_shot"]["test"]["accuracy"] + 0.2


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


def test_what_a_run_leaves(toy: MakeConfig, tmp_path: Path) -> None:
    config = toy("masked", "logger=[csv,tensorboard]", "data=kshot", "data.k=20", "data.dev_k=30")
    metrics = run(config)
    assert metrics is not None
    run_dir = tmp_path / "run"
    assert {p.name for p in run_dir.iterdir()} == {
        "adapter", "checkpoints", "config.yaml", "csv", "log.txt", "metrics.json",
        "predictions.tsv", "tensorboard",
    }  # fmt: skip
    assert {p.name for p in (run_dir / "adapter").iterdir()} == {
        "adapter.json",
        "adapter.safetensors",
    }
    assert json.loads((run_dir / "metrics.json").read_text()) == metrics
    assert metrics["protocol"]["sizes"] == {"train": 20, "dev": 30, "test": 24}
    assert metrics["parameters"]["trainable"] == 32 * 128 + 128 + 128 * 5 * 32 + 5 * 32
    assert metrics["selection"]["step"] in (2, 4)
    assert [entry["step"] for entry in metrics["dev_history"]] == [2, 4]

    lines = [line.split("\t") for line in (run_dir / "predictions.tsv").read_text().splitlines()]
    assert lines[0] == ["index", "prediction", "label"]
    assert [int(row[0]) for row in lines[1:]] == list(range(24))
    right = sum(prediction == label for _, prediction, label in lines[1:])
    assert metrics["test"]["accuracy"] == pytest.approx(right / 24)
    assert (run_dir / "csv" / "metrics.csv").read_text().splitlines()[0].split(",")[
        0
    ] == "dev/accuracy"

    with pytest.raises(ConfigError, match="finished run"):
        run(config)


def test_test_is_scored_with_the_best_checkpoint(toy: MakeConfig, tmp_path: Path) -> None:
    metrics = run(toy("masked", "trainer.max_steps=12", "optim.lr=0.05"))
    assert metrics is not None
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["global_step"] == metrics["selection"]["step"]
    saved = load_file(tmp_path / "run" / "adapter" / "adapter.safetensors")
    assert {f"model.generator.{name}" for name in saved} == set(best["state_dict"])
    for name, tensor in saved.items():
        assert torch.equal(tensor, best["state_dict"][f"model.generator.{name}"])
    dev = {entry["step"]: entry["accuracy"] for entry in metrics["dev_history"]}
    assert metrics["selection"]["value"] == max(dev.values())


@pytest.mark.parametrize(
    ("model", "kind"), [*(("masked", kind) for kind in KINDS), ("causal", "mppg")]
)
def test_adapter_reloads_bit_identical(
    toy: MakeConfig, tmp_path: Path, checkpoints: dict[str, Path], model: str, kind: str
) -> None:
    config = toy(model, f"prompt={kind}")
    run(config)
    plan = prepare(toy(model, f"prompt={kind}", "overwrite=true"))
    data = build_data(config, plan)
    batches = list(data.test_dataloader())
    state = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    trained, _ = build_model(config, plan)
    module = build_module(config, plan, trained)
    module.load_state_dict(state["state_dict"], strict=False)
    backbone = load_model(plan.backbone, dtype=torch.float32)
    for reloaded in (
        load_adapter(tmp_path / "run" / "adapter"),
        load_adapter(tmp_path / "run" / "adapter", backbone),
    ):
        with torch.no_grad():
            for batch in batches:
                assert torch.equal(reloaded(batch), trained.eval()(batch))


def test_adapter_is_refused_on_another_backbone(
    toy: MakeConfig, tmp_path: Path, checkpoints: dict[str, Path]
) -> None:
    run(toy("masked"))
    path = str(checkpoints["causal"])
    found = find_backbone(name="x", path=path, revision=None, package=None, gguf_file=None)
    other = load_model(found, dtype=torch.float32)
    with pytest.raises(ConfigError) as caught:
        load_adapter(tmp_path / "run" / "adapter", other)
    message = str(caught.value)
    assert str(checkpoints["causal"]) in message
    assert str(checkpoints["masked"]) in message


def test_test_set_without_labels_is_predicted_but_not_scored(
    toy: MakeConfig, tmp_path: Path, toy_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for split in ("train", "dev"):
        rows = (toy_data / f"{split}.tsv").read_text().splitlines()
        (data / f"{split}.tsv").write_text("\n".join(["label\ttext", *rows]) + "\n")
    texts = [row.split("\t")[1] for row in (toy_data / "test.tsv").read_text().splitlines()]
    (data / "test.tsv").write_text("\n".join(["text", *texts]) + "\n")
    with caplog.at_level(logging.WARNING):
        metrics = run(toy("causal", f"data.path={data}", "task.header=null"))
    assert metrics is not None
    assert metrics["test"] is None
    assert metrics["zero_shot"]["test"] is None
    assert metrics["majority"]["test"] is None
    assert "24 of 24 test rows have no labels" in caplog.text
    lines = (tmp_path / "run" / "predictions.tsv").read_text().splitlines()
    assert lines[0] == "index\tprediction"
    assert len(lines) == 1 + len(texts)


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
    assert [entry["step"] for entry in metrics["dev_history"]] == [3, 6]


def test_warns_when_nothing_is_learned(
    toy: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        fit(toy("masked", "optim.lr=1e-30"), tmp_path)
    assert "generator.up.weight" in caplog.text
    assert "did not move" in caplog.text
    assert "All dev predictions are label" in caplog.text


def test_same_seed_same_run(toy: MakeConfig, tmp_path: Path) -> None:
    first, second, other = (
        fit(toy("masked", f"seed={seed}"), tmp_path / str(i))[1].losses
        for i, seed in enumerate((13, 13, 14))
    )
    assert first == second
    assert first != other


def test_a_cold_cache_a_warm_one_and_none_train_alike(toy: MakeConfig, tmp_path: Path) -> None:
    """With dropout on: filling the cache must not use up random numbers of the training."""
    adapters = []
    for cache in ("on", "on", "off"):
        run(toy("masked", f"cache={cache}", f"cache.dir={tmp_path / 'cache'}", "overwrite=true"))
        adapters.append(load_file(tmp_path / "run" / "adapter" / "adapter.safetensors"))
    for other in adapters[1:]:
        for name, tensor in adapters[0].items():
            torch.testing.assert_close(other[name], tensor, atol=1e-5, rtol=1e-4)


def test_adapter_is_refused_with_another_config(toy: MakeConfig, tmp_path: Path) -> None:
    """The same weights do something else with another number of heads."""
    config = toy("masked")
    run(config)
    plan = prepare(toy("masked", "overwrite=true"))
    plan.backbone.config.num_attention_heads = 1
    with pytest.raises(ConfigError, match="the backbone it was trained on"):
        load_adapter(tmp_path / "run" / "adapter", load_model(plan.backbone, dtype=torch.float32))


@pytest.mark.parametrize("model", ["masked", "causal"])
def test_predictor_says_what_the_run_said(
    toy: MakeConfig, tmp_path: Path, toy_data: Path, model: str
) -> None:
    run(toy(model, "data.eval_batch_size=5"))
    rows = [line.split("\t") for line in (toy_data / "test.tsv").read_text().splitlines()]
    predict = Predictor(tmp_path / "run" / "adapter")
    assert predict([]) == []
    predictions = predict([{"text": text} for _, text in rows])
    lines = (tmp_path / "run" / "predictions.tsv").read_text().splitlines()[1:]
    assert [p.label for p in predictions] == [line.split("\t")[1] for line in lines]
    assert all(max(p.scores, key=p.scores.__getitem__) == p.label for p in predictions)


def train_batches(config: Config) -> list[Batch]:
    """The batches that a run with this configuration trains on."""
    return list(build_data(config, prepare(config)).train_dataloader())


def logged(tmp_path: Path, name: str) -> list[dict[str, str]]:
    """The rows of the run's CSV log that tell this value."""
    with (tmp_path / "run" / "csv" / "metrics.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row[name]]


def padding(batches: list[Batch]) -> float:
    real = sum(int(batch.attention_mask.sum()) for batch in batches)
    return 1 - real / sum(batch.attention_mask.numel() for batch in batches)


@pytest.mark.parametrize("model", ["masked", "causal"])
def test_padding_of_the_training_batches_is_told(
    toy: MakeConfig, tmp_path: Path, model: str
) -> None:
    config = toy(model, "trainer.max_steps=6", "logger=csv", "data.bucketing=false")
    batches = train_batches(config)  # six of them: one more than the data hold
    metrics = run(config)
    assert metrics is not None
    assert metrics["speed"]["padding_share"] == pytest.approx(padding(batches), abs=1e-12)
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
            shares[name, bucketing] = metrics["speed"]["padding_share"]
    assert 0 < shares["uneven", "true"] < 0.5 * shares["uneven", "false"]
    assert shares["even", "true"] == shares["even", "false"] == 0


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
    loss = module.training_step(batch, 0)
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
        self.rows.append(batch.index.tolist())


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
