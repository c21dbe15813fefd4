"""Whole runs on tiny models through the real trainer: what trains, what stays, what is left."""

from __future__ import annotations

import csv
import json
import logging
import math
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
from lpt.models.late_prompt import Batch, LabelScorer
from lpt.models.views import Recomputed
from lpt.module import LatePromptModule
from lpt.plan import prepare
from lpt.predictor import Predictor
from lpt.training import build_trainer
from tests.conftest import CONF, Compose, MakeConfig
from tests.shared import DATA_DIR
from tests.tiny import tiny_model
from tests.tokenizers import WORDS, causal, wordpiece

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
    assert {p.name for p in run_dir.iterdir() if p.name != ".lock"} == {
        "progress.json",
        "adapter", "checkpoints", "config.yaml", "csv", "log.txt", "metrics.json",
        "predictions.tsv", "split.json", "tensorboard",
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


def test_speed_is_that_of_the_whole_training(toy: MakeConfig) -> None:
    """Although what is tested is the state after the first evaluation."""
    metrics = run(toy("masked", "trainer.max_steps=6", "optim.lr=1e-12"))
    assert metrics is not None
    assert metrics["selection"]["step"] == 2
    speed = metrics["speed"]
    assert speed["steps"] == 6
    assert speed["examples_per_second"] * speed["train_seconds"] == pytest.approx(6 * 16)


# Numbers, choices, groups, further sets

WORDS_FOR = ("great", "terrible", "bad", "good", "film", "food")  # one token to either tokenizer


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def number_rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {"text": f"the film was {'good ' * (1 + i % 3)}", "label": i % 6, "idx": i}
        for i in range(start, start + count)
    ]


def copa_rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "premise": f"The food was {WORDS[i % len(WORDS)]}.",
            "choice1": "They are good.",
            "choice2": "It was a bad day.",
            "question": ("cause", "effect")[i % 2],
            "label": i // 2 % 2,
            "idx": i,
        }
        for i in range(start, start + count)
    ]


def multirc_rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    def question(number: int, answers: int) -> dict[str, Any]:
        made = [{"text": WORDS[j], "idx": 9 * number + j, "label": j % 2} for j in range(answers)]
        return {"question": "which day", "idx": number, "answers": made}

    return [
        {
            "idx": i,
            "passage": {
                "text": f"<b>Sent 1: </b>no one asked {i}<br>",
                "questions": [question(2 * i, 2), question(2 * i + 1, 3)],
            },
        }
        for i in range(start, start + count)
    ]


def record_rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    text = "The people asked the cast. No one was great."
    entities = [{"start": 4, "end": 9}, {"start": 21, "end": 24}, {"start": 27, "end": 32}]
    names = [text[e["start"] : e["end"] + 1] for e in entities]
    return [
        {
            "idx": i,
            "passage": {"text": text, "entities": entities},
            "qas": [
                {
                    "idx": i,
                    "query": "@placeholder are good",
                    "answers": [{"text": names[i % 3]}, {"text": names[(i + 1) % 3]}],
                }
            ],
        }
        for i in range(start, start + count)
    ]


ROWS = {"stsb": number_rows, "copa": copa_rows, "multirc": multirc_rows, "record": record_rows}
NAMES = {
    "stsb": ("pearson", "spearman"),
    "copa": ("accuracy",),
    "multirc": ("f1a", "exact_match"),
    "record": ("record_f1", "record_em"),
}
EXAMPLES = {"stsb": 1, "copa": 2, "multirc": 5, "record": 3}  # that a row of `ROWS` becomes
COLUMNS = {
    "stsb": ["index", "id", "prediction", "label"],
    "copa": ["index", "id", "group", "answer", "prediction", "label"],
    "multirc": ["index", "id", "group", "answer", "prediction", "label"],
    "record": ["index", "id", "group", "answer", "prediction", "label"],
}


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models as in `checkpoints` with room for the longest templates, spelled out."""
    folder = tmp_path_factory.mktemp("roomy")
    made = {"masked": ("bert", wordpiece()), "causal": ("llama", causal())}
    for kind, (family, tokenizer) in made.items():
        sizes = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
        model = tiny_model(family, **sizes, max_position_embeddings=256)
        model.save_pretrained(folder / kind)
        tokenizer.save_pretrained(folder / kind)
    return {kind: folder / kind for kind in made}


@pytest.fixture
def official(composed: Compose, roomy: dict[str, Path], tmp_path: Path) -> MakeConfig:
    """A short run of a task as it is configured, with words that the tiny models know."""

    def make(model: str, task: str, folder: Path, *overrides: str) -> Config:
        labels = composed("model=local", "model.path=x", f"task={task}").task.labels
        return composed(
            "model=local",
            f"model.path={roomy[model]}",
            f"task={task}",
            f"task.words=[{','.join(WORDS_FOR[: len(labels)])}]",
            f"data.path={folder}",
            "prompt.layer=3",
            "data.batch_size=4",
            "data.max_length=250",
            "trainer.max_steps=2",
            "trainer.eval_every_steps=1",
            "strategy.accelerator=cpu",
            f"run_dir={tmp_path / 'run'}",
            *overrides,
        )

    return make


def table(path: Path) -> list[dict[str, str]]:
    head, *lines = (line.split("\t") for line in path.read_text().splitlines())
    return [dict(zip(head, line, strict=True)) for line in lines]


def make_task(folder: Path, task: str, train: int = 10, dev: int = 6, test: int = 6) -> Path:
    rows, start = ROWS[task], 0
    for split, count in (("train", train), ("dev", dev), ("test", test)):
        write_jsonl(folder / f"{split}.jsonl", rows(count, start))
        start += count
    return folder


@pytest.mark.parametrize("model", ["masked", "causal"])
@pytest.mark.parametrize("task", ROWS)
def test_tasks_that_are_more_than_labels(
    official: MakeConfig, tmp_path: Path, model: str, task: str
) -> None:
    each = EXAMPLES[task]
    settings = ["data.limit_train=8", "data.limit_test=4"]
    if task == "stsb":
        settings.append("task.aliases={s1:[text],s2:[text]}")
    metrics = run(official(model, task, make_task(tmp_path / "data", task), *settings))
    assert metrics is not None
    assert metrics["protocol"]["sizes"]["dev"] == 6 * each
    assert metrics["loss"] == ("label_words" if task == "stsb" else "vocabulary")
    assert metrics["metrics"] == list(NAMES[task])
    assert metrics["selection"]["metric"] == NAMES[task][0]
    for scores in (
        *(metrics[name] for name in ("dev", "test")),
        *(metrics[kind][name] for kind in ("majority", "zero_shot") for name in ("dev", "test")),
    ):
        assert set(scores) == set(NAMES[task])
        assert all(-1 <= value <= 1 for value in scores.values())
    assert metrics["extra"] == {}

    rows = table(tmp_path / "run" / "predictions.tsv")
    assert list(rows[0]) == COLUMNS[task]
    assert len({row["index"] for row in rows}) == len(rows) == metrics["protocol"]["sizes"]["test"]
    assert len({row["id"] for row in rows}) == len(rows)
    if task == "stsb":
        assert all(0 <= float(row["prediction"]) <= 5 for row in rows)
        return
    groups = {
        group: [r for r in rows if r["group"] == group] for group in {r["group"] for r in rows}
    }
    assert len(groups) == 4  # groups are what limits count
    chosen = {g: [r["prediction"] for r in of].count("1") for g, of in groups.items()}
    if task != "multirc":
        assert set(chosen.values()) == {1}
        right = sum(r["prediction"] == r["label"] == "1" for r in rows)
        name = "record_em" if task == "record" else "accuracy"
        assert metrics["test"][name] == pytest.approx(right / 4, abs=1e-6)
    else:
        whole = sum(all(r["prediction"] == r["label"] for r in of) for of in groups.values())
        assert metrics["test"]["exact_match"] == pytest.approx(whole / 4, abs=1e-6)


@pytest.mark.parametrize("task", ["copa", "multirc", "record"])
def test_groups_are_drawn_whole(official: MakeConfig, tmp_path: Path, task: str) -> None:
    folder = make_task(tmp_path / "data", task, train=20)
    (folder / "test.jsonl").unlink()
    metrics = run(official("masked", task, folder, "data=kshot", "data.k=4", "data.dev_k=6"))
    assert metrics is not None
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    each = EXAMPLES[task]
    for name, count in (("train", 4), ("dev", 6)):
        rows = split["sets"][name]["rows"]
        if task != "multirc":
            assert len(rows) == count * each
            assert all({row // each * each + i for i in range(each)} <= set(rows) for row in rows)
        else:  # of five examples two are of the first question
            questions = {(row // 5, row % 5 >= 2) for row in rows}
            assert len(questions) == count
            assert len(rows) == sum(3 if second else 2 for _, second in questions)
    assert not set(split["sets"]["train"]["rows"]) & set(split["sets"]["dev"]["rows"])


@pytest.mark.parametrize("model", ["masked", "causal"])
@pytest.mark.parametrize("kind", ["npg", "static"])
def test_a_number_moves_every_trainable_tensor(
    official: MakeConfig, tmp_path: Path, model: str, kind: str
) -> None:
    folder = make_task(tmp_path / "data", "stsb")
    config = official(
        model, "stsb", folder, "task.aliases={s1:[text],s2:[text]}", f"prompt={kind}",
        "prompt.layer=3", "model.dropout=none", "prompt.dropout=0", "optim.lr=0.01",
    )  # fmt: skip
    torch.manual_seed(config.seed)
    plan = prepare(config)
    start = {n: p.detach().clone() for n, p in build_model(config, plan)[0].trainable().items()}
    torch.manual_seed(config.seed)
    module, spy = fit(config, tmp_path)
    moved = module.model.trainable()
    assert set(moved) == set(start)
    assert all(not torch.equal(moved[name], start[name]) for name in start)
    assert all(loss > 0 for loss in spy.losses)


@pytest.mark.parametrize("model", ["masked", "causal"])
def test_learns_a_number(official: MakeConfig, tmp_path: Path, model: str) -> None:
    """Good is 5, bad is 0, and in between is in between."""
    texts = {5: "a good film", 0: "a bad film", 2.5: "the day"}
    rows = [{"text": text, "label": number} for number, text in texts.items()] * 2
    for split in ("train", "dev", "test"):
        write_jsonl(tmp_path / "data" / f"{split}.jsonl", rows)
    metrics = run(
        official(
            model,
            "stsb",
            tmp_path / "data",
            "task.aliases={s1:[text],s2:[text]}",
            "prompt=appg",
            "prompt.layer=3",
            "model.dropout=none",
            "prompt.dropout=0",
            "optim.lr=0.03",
            "trainer.max_steps=80",
            "trainer.eval_every_steps=80",
            "data.batch_size=6",
        )
    )
    assert metrics is not None
    assert metrics["test"]["pearson"] > 0.9
    found = [float(row["prediction"]) for row in table(tmp_path / "run" / "predictions.tsv")]
    assert found == pytest.approx([5, 0, 2.5] * 2, abs=1.0)


def further(folder: Path, toy_data: Path) -> tuple[str, ...]:
    """The toy data with two further sets, one of them without labels, and one that is absent."""
    shutil.copytree(toy_data, folder)
    lines = (toy_data / "test.tsv").read_text().splitlines()
    (folder / "more.tsv").write_text("\n".join(lines[:10]) + "\n")
    (folder / "blind.tsv").write_text(
        "\n".join(f"-1\t{x.split(chr(9))[1]}" for x in lines[:7]) + "\n"
    )
    more = "more:{file:more.tsv,metrics:[matthews_correlation,f1]}"
    sets = f"{{{more},blind:{{file:blind.tsv}},absent:{{file:no.tsv}}}}"
    return f"data.path={folder}", f"+task.extra={sets}"


@pytest.mark.parametrize("model", ["masked", "causal"])
def test_further_sets(
    toy: MakeConfig,
    tmp_path: Path,
    toy_data: Path,
    caplog: pytest.LogCaptureFixture,
    model: str,
) -> None:
    settings = further(tmp_path / "data", toy_data)
    with caplog.at_level(logging.WARNING):
        metrics = run(toy(model, *settings, "logger=csv"))
    assert metrics is not None
    assert set(metrics["extra"]) == {"more", "blind"}
    assert metrics["extra"]["blind"] is None
    assert set(metrics["extra"]["more"]) == {"matthews_correlation", "f1"}
    assert set(metrics["test"]) == {"accuracy"}
    for kind in ("majority", "zero_shot"):
        assert set(metrics[kind]) == {"dev", "test", "more", "blind"}
        assert set(metrics[kind]["more"]) == {"matthews_correlation", "f1"}
        assert metrics[kind]["blind"] is None
    assert metrics["protocol"]["sizes"] == {
        "train": 80, "dev": 24, "test": 24, "more": 10, "blind": 7,
    }  # fmt: skip
    assert set(metrics["protocol"]["truncated"]) == set(metrics["protocol"]["sizes"])
    assert "7 of 7 blind rows have no labels: blind was predicted, but not scored" in caplog.text

    run_dir = tmp_path / "run"
    # The same checkpoint answers the same rows alike, whatever the set is called.
    test = table(run_dir / "predictions.tsv")
    assert table(run_dir / "predictions-more.tsv") == test[:10]
    blind = table(run_dir / "predictions-blind.tsv")
    assert blind == [{k: row[k] for k in ("index", "prediction")} for row in test[:7]]
    split = json.loads((run_dir / "split.json").read_text())
    assert set(split["sets"]) == set(metrics["protocol"]["sizes"])
    assert split["sha256"] == metrics["protocol"]["split_sha256"]
    written = json.loads((run_dir / "metrics.json").read_text())
    assert written["extra"] == metrics["extra"]

    without = run(toy(model, *settings, "data.extra=false", "overwrite=true"))
    assert without is not None
    assert without["extra"] == {}
    assert not (run_dir / "predictions-more.tsv").exists()
    for key in ("test", "dev_history", "selection"):
        assert without[key] == metrics[key]


def test_a_run_on_the_data_of_another(toy: MakeConfig, tmp_path: Path, toy_data: Path) -> None:
    drawn = ("data=kshot", "data.k=20", "data.dev_k=30")
    first = run(toy("masked", *drawn))
    assert first is not None
    split = tmp_path / "split.json"
    shutil.copy(tmp_path / "run" / "split.json", split)
    verified = (*drawn, f"data.verify={split}", "overwrite=true")
    second = run(toy("masked", *verified, "seed=14"))  # the model's seed is another matter
    assert second is not None
    assert second["protocol"]["split_sha256"] == first["protocol"]["split_sha256"]
    # The template is another; the rows and their texts, of which the file tells, are the same.
    causal_run = run(toy("causal", *verified, 'task.template="It was {word} : {text}"'))
    assert causal_run is not None
    assert causal_run["protocol"]["split_sha256"] != first["protocol"]["split_sha256"]

    before = (tmp_path / "run" / "metrics.json").read_text()
    changed = tmp_path / "changed"
    shutil.copytree(toy_data, changed)
    text = (changed / "dev.tsv").read_text()
    (changed / "dev.tsv").write_text(text.replace("film", "movie"))
    for setting, sets in (
        ("data.seed=21", ["train", "dev"]),
        ("data.k=21", ["train", "dev"]),
        ("data.limit_test=23", ["test"]),
        (f"data.path={changed}", ["test"]),
    ):
        with pytest.raises(ConfigError) as caught:
            run(toy("masked", *verified, setting))
        assert {p.where for p in caught.value.problems} == {"data.verify"}
        assert [p.given.split(":")[0] for p in caught.value.problems] == sets
    assert (tmp_path / "run" / "metrics.json").read_text() == before


def number_batch(labels: list[float]) -> Batch:
    each, none = torch.arange(len(labels)), torch.zeros(len(labels), dtype=torch.long)
    return Batch(
        input_ids=none[:, None], attention_mask=none[:, None], read_at=none, pool_length=none,
        rows=each, positions=none, scored=each, targets=none - 100, sequences=each,
        labels=torch.tensor(labels), index=each,
    )  # fmt: skip


@pytest.mark.parametrize("scale", [(0.0, 5.0), (1.0, 2.0)])
def test_loss_of_a_number(scale: tuple[float, float]) -> None:
    """Soft cross-entropy; its gradient is that of the KL divergence, as in LM-BFF."""
    low, high = scale
    shares = torch.tensor([0.0, 1.0, 0.5, 0.2])
    batch = number_batch((low + (high - low) * shares).tolist())
    logits = torch.tensor([[2.0, -1.0], [0.0, 0.5], [3.0, 3.0], [-1.0, 1.0]], requires_grad=True)
    loss = LabelScorer("masked", [7, 8], scale).loss(logits, batch, "label_words")
    by_hand = 0.0
    for (first, second), share in zip(logits.tolist(), shares.tolist(), strict=True):
        whole = math.log(math.exp(first) + math.exp(second))
        by_hand += ((1 - share) * (whole - first) + share * (whole - second)) / 4
    assert loss.item() == pytest.approx(by_hand, rel=1e-6)
    [gradient] = torch.autograd.grad(loss, logits)
    target = torch.stack([1 - shares, shares], dim=1)
    log_shares = logits.log_softmax(1)
    divergence = torch.nn.functional.kl_div(log_shares, target, reduction="batchmean")
    [expected] = torch.autograd.grad(divergence, logits, retain_graph=True)
    torch.testing.assert_close(gradient, expected)
    torch.testing.assert_close(gradient, (logits.softmax(1) - target).detach() / 4)


def test_the_best_loss_of_a_number_is_at_its_share() -> None:
    batch = number_batch([4.0])
    scorer = LabelScorer("masked", [7, 8], (0.0, 5.0))

    def loss(share: float) -> float:
        logits = torch.tensor([[math.log(1 - share), math.log(share)]])
        return scorer.loss(logits, batch, "label_words").item()

    shares = [i / 20 for i in range(1, 20)]
    assert min(shares, key=loss) == 0.8


# Real data, where they are

TASKS = sorted(
    p.stem for p in (CONF / "task").glob("*.yaml") if p.stem not in ("custom", "reviews")
)


def folders_of(task: str, names: list[str]) -> list[Path]:
    return [path for name in names for path in sorted(DATA_DIR.glob(f"*/{name}"))]


@pytest.mark.parametrize("model", ["masked", "causal"])
@pytest.mark.parametrize("task", TASKS)
def test_every_task_trains_and_is_tested(
    official: MakeConfig, composed: Compose, tmp_path: Path, task: str, model: str
) -> None:
    config = composed("model=local", "model.path=x", f"task={task}").task
    folders = folders_of(task, list(dict.fromkeys([config.folder or task, task])))
    if not folders:
        pytest.skip(f"no data of {task} in {DATA_DIR}")
    ran = 0
    for number, folder in enumerate(folders):
        if not any((folder / f"train.{kind}").exists() for kind in ("tsv", "jsonl")):
            continue
        run_dir = tmp_path / f"run{number}"
        k, dev_k, test = 2 * len(config.labels), 6, 8
        test_file = config.files.get("test")
        if config.fixed_test and not (folder / str(test_file)).exists():
            continue
        metrics = run(
            official(
                model,
                task,
                folder,
                "data=kshot",
                f"data.k={k}",
                f"data.dev_k={dev_k}",
                f"data.limit_test={test}",
                f"run_dir={run_dir}",
            )
        )
        ran += 1
        assert metrics is not None
        names = [config.metric, *config.metrics]
        assert set(metrics["dev"]) == set(names)
        assert set(metrics["test"]) == set(config.test_metrics or names)
        assert metrics["speed"]["steps"] == 2
        sizes = metrics["protocol"]["sizes"]
        assert sizes["train"] >= k
        assert len(table(run_dir / "predictions.tsv")) == sizes["test"] >= test
        split = json.loads((run_dir / "split.json").read_text())
        assert {name: len(of["rows"]) for name, of in split["sets"].items()} == sizes
    if not ran:
        pytest.skip(f"no training set of {task} in {', '.join(map(str, folders))}")
