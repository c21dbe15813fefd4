"""Outputs of a run: scores with the best checkpoint, predictions, a loadable adapter."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from lpt.errors import ConfigError
from lpt.experiment import run
from lpt.models.backbone import load_model
from lpt.predictor import Predictor
from lpt.runs.adapter import load_adapter
from lpt.runs.record import RunRecord
from lpt.training.module import build_model, build_module
from lpt.training.plan import prepare
from tests.conftest import BeforeStep, MakeConfig
from tests.support.csv_curves import read_curves
from tests.support.trained import KINDS, build_data, table
from tests.support.wandb_files import OfflineRun


def test_outputs_of_a_run(toy: MakeConfig, tmp_path: Path) -> None:
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
    assert RunRecord.read(run_dir) == metrics
    assert metrics.split.sizes == {"train": 20, "dev": 30, "test": 24}
    assert metrics.parameters.trainable == 32 * 128 + 128 + 128 * 5 * 32 + 5 * 32
    assert metrics.selection.step in (2, 4)
    assert [entry["step"] for entry in metrics.dev_history] == [2, 4]

    lines = [line.split("\t") for line in (run_dir / "predictions.tsv").read_text().splitlines()]
    assert lines[0] == ["index", "prediction", "label"]
    assert [int(row[0]) for row in lines[1:]] == list(range(24))
    right = sum(prediction == label for _, prediction, label in lines[1:])
    assert metrics.test["accuracy"] == pytest.approx(right / 24)
    assert "dev/accuracy" in read_curves(run_dir)[0]

    with pytest.raises(ConfigError, match="finished run"):
        run(config)


def test_test_is_scored_with_the_best_checkpoint(toy: MakeConfig, tmp_path: Path) -> None:
    metrics = run(toy("masked", "trainer.max_steps=12", "optim.lr=0.05"))
    assert metrics is not None
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["global_step"] == metrics.selection.step
    saved = load_file(tmp_path / "run" / "adapter" / "adapter.safetensors")
    assert {f"model.generator.{name}" for name in saved} == set(best["state_dict"])
    for name, tensor in saved.items():
        assert torch.equal(tensor, best["state_dict"][f"model.generator.{name}"])
    dev = {entry["step"]: entry["accuracy"] for entry in metrics.dev_history}
    assert metrics.selection.value == max(dev.values())


@pytest.mark.parametrize(
    ("model", "kind"), [*(("masked", kind) for kind in KINDS), ("causal", "mppg")]
)
def test_adapter_reloads_bit_identical(
    toy: MakeConfig, tmp_path: Path, model: str, kind: str
) -> None:
    run(toy(model, f"prompt={kind}"))
    config = toy(model, f"prompt={kind}", "overwrite=true")
    plan = prepare(config)
    batches = list(build_data(config, plan).test_dataloader())
    state = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    trained, _ = build_model(plan)
    module = build_module(plan, trained)
    module.load_state_dict(state["state_dict"], strict=False)
    backbone = load_model(plan.backbone, dtype=torch.float32)
    for reloaded in (
        load_adapter(tmp_path / "run" / "adapter"),
        load_adapter(tmp_path / "run" / "adapter", backbone),
    ):
        with torch.no_grad():
            for batch in batches:
                assert torch.equal(reloaded(batch), trained.eval()(batch))


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
    assert metrics.test is None
    assert metrics.zero_shot["test"] is None
    assert metrics.majority["test"] is None
    assert "24 of 24 test rows have no labels" in caplog.text
    lines = (tmp_path / "run" / "predictions.tsv").read_text().splitlines()
    assert lines[0] == "index\tprediction"
    assert len(lines) == 1 + len(texts)


def test_adapter_is_refused_with_another_config(toy: MakeConfig, tmp_path: Path) -> None:
    """The same weights compute something else with another number of heads."""
    run(toy("masked"))
    plan = prepare(toy("masked", "overwrite=true"))
    plan.backbone.config.num_attention_heads = 1
    with pytest.raises(ConfigError, match="the backbone it was trained on"):
        load_adapter(tmp_path / "run" / "adapter", load_model(plan.backbone, dtype=torch.float32))


@pytest.mark.parametrize("model", ["masked", "causal"])
def test_predictor_predicts_what_the_run_predicted(
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
    with pytest.raises(ConfigError, match=r"rows\[1\]: no column text"):
        predict([{"text": "good"}, {"txt": "bad"}])


@pytest.mark.parametrize("model", ["masked", "causal"])
def test_extra_evaluation_sets(
    toy: MakeConfig,
    tmp_path: Path,
    toy_data: Path,
    caplog: pytest.LogCaptureFixture,
    model: str,
) -> None:
    """Two extra sets, one of them unlabelled; a third one has no file."""
    folder = tmp_path / "data"
    shutil.copytree(toy_data, folder)
    lines = (toy_data / "test.tsv").read_text().splitlines()
    (folder / "more.tsv").write_text("\n".join(lines[:10]) + "\n")
    unlabelled = (re.sub(r"^\d", "-1", line) for line in lines[:7])
    (folder / "blind.tsv").write_text("\n".join(unlabelled) + "\n")
    more = "more:{file:more.tsv,metrics:[matthews_correlation,f1]}"
    sets = f"{{{more},blind:{{file:blind.tsv}},absent:{{file:no.tsv}}}}"
    settings = (f"data.path={folder}", f"+task.extra={sets}")
    with caplog.at_level(logging.WARNING):
        metrics = run(toy(model, *settings, "logger=csv"))
    assert metrics is not None
    assert set(metrics.extra) == {"more", "blind"}
    assert metrics.extra["blind"] is None
    assert set(metrics.extra["more"]) == {"matthews_correlation", "f1"}
    assert set(metrics.test) == {"accuracy"}
    for kind in (metrics.majority, metrics.zero_shot):
        assert set(kind) == {"dev", "test", "more", "blind"}
        assert set(kind["more"]) == {"matthews_correlation", "f1"}
        assert kind["blind"] is None
    assert metrics.split.sizes == {
        "train": 80, "dev": 24, "test": 24, "more": 10, "blind": 7,
    }  # fmt: skip
    assert set(metrics.split.truncated) == set(metrics.split.sizes)
    assert "7 of 7 blind rows have no labels: blind was predicted, but not scored" in caplog.text

    run_dir = tmp_path / "run"
    # The sets share rows with the test set.
    test = table(run_dir / "predictions.tsv")
    assert table(run_dir / "predictions-more.tsv") == test[:10]
    blind = table(run_dir / "predictions-blind.tsv")
    assert blind == [{k: row[k] for k in ("index", "prediction")} for row in test[:7]]
    split = json.loads((run_dir / "split.json").read_text())
    assert set(split["sets"]) == set(metrics.split.sizes)
    assert split["sha256"] == metrics.split.sha256
    written = json.loads((run_dir / "metrics.json").read_text())
    assert written["extra"] == metrics.extra

    without = run(toy(model, *settings, "data.extra=false", "overwrite=true"))
    assert without is not None
    assert without.extra == {}
    assert not (run_dir / "predictions-more.tsv").exists()
    for key in ("test", "dev_history", "selection"):
        assert getattr(without, key) == getattr(metrics, key)


def test_costs_add_up_over_the_starts_of_a_run(
    toy: MakeConfig, tmp_path: Path, before_step: BeforeStep
) -> None:
    length = ("trainer.max_steps=6", "trainer.eval_every_steps=2")

    def fail() -> None:
        raise RuntimeError("stopped")

    before_step(5, fail)
    with pytest.raises(RuntimeError, match="stopped"):
        run(toy("masked", *length))
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    first = saved["callbacks"]["ThroughputMonitor"]
    record = run(toy("masked", *length, "resume=auto"))
    assert record is not None
    cost = record.cost
    assert (cost.starts, cost.steps) == (2, 6)
    assert cost.total_seconds > first["total_seconds"] > first["train_seconds"] > 0
    assert cost.train_seconds > first["train_seconds"]
    assert cost.total_seconds > cost.train_seconds
    assert cost.cache_seconds > first["cache_seconds"] > 0
    assert cost.peak_memory_mib >= first["peak_memory"] > 0
    assert cost.examples_per_second * cost.train_seconds == pytest.approx(6 * 16)


@pytest.mark.usefixtures("wandb_home")
def test_the_same_resolved_configuration_everywhere(toy: MakeConfig, tmp_path: Path) -> None:
    record = run(toy("masked", "logger=wandb", "logger.wandb.mode=offline", "prompt.layer=null"))
    assert record is not None
    config = OmegaConf.to_container(OmegaConf.load(tmp_path / "run" / "config.yaml"))
    logged = OfflineRun(tmp_path / "run" / "wandb").config
    assert config == record.config
    assert {key: logged[key] for key in record.config} == record.config
    assert record.config["prompt"]["layer"] == 3
    assert record.config["prompt"]["dropout"] == 0.1
    assert record.config["model"]["attention"] == "sdpa"
    assert "<mask>" in record.config["task"]["template"]
    assert record.config["run_dir"] == str(tmp_path / "run")


def test_the_data_of_another_run_are_verified(
    toy: MakeConfig, tmp_path: Path, toy_data: Path
) -> None:
    drawn = ("data=kshot", "data.k=20", "data.dev_k=30")
    first = run(toy("masked", *drawn))
    assert first is not None
    split = tmp_path / "split.json"
    shutil.copy(tmp_path / "run" / "split.json", split)
    verified = (*drawn, f"data.verify={split}", "overwrite=true")
    second = run(toy("masked", *verified, "seed=14"))  # another seed, but not of the data
    assert second is not None
    assert second.split.sha256 == first.split.sha256
    # The template differs; the rows and their texts, which the file describes, are the same.
    causal_run = run(toy("causal", *verified, 'task.template="It was {word} : {text}"'))
    assert causal_run is not None
    assert causal_run.split.sha256 != first.split.sha256

    before = (tmp_path / "run" / "metrics.json").read_text()
    changed = tmp_path / "changed"
    shutil.copytree(toy_data, changed)
    text = (changed / "dev.tsv").read_text()
    (changed / "dev.tsv").write_text(text.replace("film", "movie"))
    for setting, sets in (
        ("data.seed=21", ["train", "dev"]),
        (f"data.path={changed}", ["test"]),
    ):
        with pytest.raises(ConfigError) as caught:
            run(toy("masked", *verified, setting))
        assert {p.where for p in caught.value.problems} == {"data.verify"}
        assert [p.given.split(":")[0] for p in caught.value.problems] == sets
    assert (tmp_path / "run" / "metrics.json").read_text() == before
