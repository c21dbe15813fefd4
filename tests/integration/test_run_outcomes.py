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
from lpt.runs.adapter import load_adapter
from lpt.runs.record import RunRecord
from lpt.training.module import build_model, build_module
from lpt.training.plan import prepare
from tests.conftest import BeforeStep, MakeConfig
from tests.support.outcomes import curve
from tests.support.problems import problems_of
from tests.support.trained import KINDS, build_data, table


def test_outputs_of_a_run(toy: MakeConfig, tmp_path: Path) -> None:
    config = toy("masked", "logger=[csv,tensorboard]", "data=kshot", "data.k=20", "data.dev_k=30")
    metrics = run(config)
    assert metrics is not None
    run_dir = tmp_path / "run"
    assert {p.name for p in run_dir.iterdir() if p.name != ".lock"} == {
        *("config.yaml", "split.json", "backbone.json", "log.txt", "csv", "tensorboard"),
        "progress.json",
        *("checkpoints", "adapter", "predictions.tsv", "predictions-dev.tsv", "metrics.json"),
    }
    names = {path.name for path in (run_dir / "adapter").iterdir()}
    assert names == {"adapter.json", "adapter_model.safetensors"}
    assert RunRecord.read(run_dir) == metrics
    assert metrics.split.sizes == {"train": 20, "dev": 30, "test": 24}
    assert metrics.parameters.trainable == 32 * 128 + 128 + 128 * 5 * 32 + 5 * 32
    assert metrics.selection.step in (2, 4)
    assert [entry["step"] for entry in metrics.dev_history] == [2, 4]

    rows = table(run_dir / "predictions.tsv")
    assert list(rows[0]) == ["index", "prediction", "label", "p(0)", "p(1)", "text"]
    assert [int(row["index"]) for row in rows] == list(range(24))
    for row in rows:
        assert float(row["p(0)"]) + float(row["p(1)"]) == pytest.approx(1, abs=2e-6)
        assert row["prediction"] == max("01", key=lambda label: float(row[f"p({label})"]))
    on_dev = table(run_dir / "predictions-dev.tsv")
    assert metrics.dev["accuracy"] == pytest.approx(
        sum(row["prediction"] == row["label"] for row in on_dev) / 30
    )
    right = sum(row["prediction"] == row["label"] for row in rows)
    assert metrics.test["accuracy"] == pytest.approx(right / 24)
    dev = {f"{entry['step'] - 1:.0f}": entry["accuracy"] for entry in metrics.dev_history}
    assert curve(run_dir, "dev/accuracy") == pytest.approx(dev)  # Lightning counts from 0

    with pytest.raises(ConfigError, match="finished run"):
        run(config)


def test_test_is_scored_with_the_best_checkpoint(toy: MakeConfig, tmp_path: Path) -> None:
    metrics = run(toy("masked", "trainer.max_steps=12", "optim.lr=0.05"))
    assert metrics is not None
    best = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["global_step"] == metrics.selection.step
    saved = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    assert {f"model.{name}" for name in saved} == set(best["state_dict"])
    for name, tensor in saved.items():
        assert torch.equal(tensor, best["state_dict"][f"model.{name}"])
    dev = {entry["step"]: entry["accuracy"] for entry in metrics.dev_history}
    assert metrics.selection.value == max(dev.values())


@pytest.mark.parametrize(
    ("model", "kind", "where"),
    [
        *(("masked", kind, "prompt.layer=3") for kind in KINDS),
        ("causal", "mppg", "prompt.layer=3"),
        ("masked", "static", "prompt.layers=[4,1]"),
        ("causal", "idpg", "prompt.layers=[4,3]"),
    ],
)
def test_adapter_reloads_bit_identical(
    toy: MakeConfig, tmp_path: Path, model: str, kind: str, where: str
) -> None:
    overrides = (f"prompt={kind}", "prompt.layer=null", where)
    run(toy(model, *overrides))
    config = toy(model, *overrides, "overwrite=true")
    plan = prepare(config)
    batches = list(build_data(config, plan).test_dataloader())
    state = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    trained, _ = build_model(plan)
    module = build_module(plan, trained)
    module.load_state_dict(state["state_dict"], strict=False)
    backbone = load_model(plan.backbone, dtype=torch.float32)
    trained.eval()
    for given in (None, backbone):
        reloaded = load_adapter(tmp_path / "run" / "adapter", given)
        with torch.no_grad():
            assert all(torch.equal(reloaded(batch), trained(batch)) for batch in batches)


def test_test_set_without_labels_is_predicted_but_not_scored(
    toy: MakeConfig, tmp_path: Path, toy_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for split in ("train", "dev", "test"):
        content = f"label\ttext\n{(toy_data / f'{split}.tsv').read_text()}"
        unlabelled = re.sub(r"^\w+\t", "", content, flags=re.MULTILINE)
        (data / f"{split}.tsv").write_text(unlabelled if split == "test" else content)
    with caplog.at_level(logging.WARNING):
        metrics = run(toy("causal", f"data.path={data}", "task.header=null"))
    assert metrics is not None
    assert metrics.test is metrics.zero_shot["test"] is metrics.majority["test"] is None
    assert "None of the 24 test examples has a label" in caplog.text
    rows = table(tmp_path / "run" / "predictions.tsv")
    assert [list(row) for row in rows] == [["index", "prediction", "p(0)", "p(1)", "text"]] * 24


def test_test_set_that_is_labeled_in_part(
    toy: MakeConfig, tmp_path: Path, toy_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(toy_data, data)
    test = (data / "test.tsv").read_text().splitlines()
    (data / "test.tsv").write_text("\n".join([f"\t{test[0][2:]}", "-1\tgood", *test[2:]]) + "\n")
    metric = ("task.metric=f1", "task.metrics=[accuracy]", "task.positive_label=0")
    record = run(toy("masked", f"data.path={data}", *metric))
    assert record is not None
    assert record.split.labeled == {"test": 22}
    rows = table(tmp_path / "run" / "predictions.tsv")
    known = [(row["prediction"], row["label"]) for row in rows if row["label"]]
    assert (len(rows), len(known)) == (24, 22)
    right, found = (sum(pair[i] == "0" for pair in known) for i in (1, 0))
    hits = known.count(("0", "0"))
    accuracy = sum(a == b for a, b in known) / 22
    expected = {"f1": 2 * hits / (right + found) if right + found else 0.0, "accuracy": accuracy}
    assert record.test == pytest.approx(expected, abs=1e-6)
    assert record.zero_shot["test"]
    assert record.majority["test"]
    output = " ".join(capsys.readouterr().out.split())
    assert "f1 is the F1 of the label '0'" in output
    assert "scored on the 22 of 24 with a label" in output


def test_adapter_is_refused_with_another_config(toy: MakeConfig, tmp_path: Path) -> None:
    """The same weights compute something else with another number of heads."""
    run(toy("masked"))
    plan = prepare(toy("masked", "overwrite=true"))
    plan.backbone.config.num_attention_heads = 1
    with pytest.raises(ConfigError, match="the backbone it was trained on"):
        load_adapter(tmp_path / "run" / "adapter", load_model(plan.backbone, dtype=torch.float32))


@pytest.mark.parametrize("model", ["masked", "causal"])
def test_extra_evaluation_sets(
    toy: MakeConfig, tmp_path: Path, toy_data: Path, caplog: pytest.LogCaptureFixture, model: str
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
        assert {name: scores and set(scores) for name, scores in kind.items()} == {
            **{name: {"accuracy"} for name in ("dev", "test")},
            **{"more": {"matthews_correlation", "f1"}, "blind": None},
        }
    sizes = {"train": 80, "dev": 24, "test": 24, "more": 10, "blind": 7}
    assert metrics.split.sizes == sizes
    assert set(metrics.split.truncated) == set(metrics.split.sizes)
    assert "None of the 7 blind examples has a label: blind was predicted" in caplog.text

    run_dir = tmp_path / "run"
    # The sets share rows with the test set.
    test = table(run_dir / "predictions.tsv")
    assert table(run_dir / "predictions-more.tsv") == test[:10]
    blind = table(run_dir / "predictions-blind.tsv")
    assert blind == [{k: v for k, v in row.items() if k != "label"} for row in test[:7]]
    split = json.loads((run_dir / "split.json").read_text())
    assert set(split["sets"]) == set(metrics.split.sizes)
    assert split["sha256"] == metrics.split.sha256
    assert RunRecord.read(run_dir).extra == metrics.extra

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
    assert cost.peak_memory_mb >= first["peak_memory_mb"] > 0
    assert cost.examples_per_second * cost.train_seconds == pytest.approx(6 * 16)


def test_the_resolved_configuration_is_written(toy: MakeConfig, tmp_path: Path) -> None:
    record = run(toy("masked", "prompt.layer=null"))
    assert record is not None
    assert OmegaConf.to_container(OmegaConf.load(tmp_path / "run" / "config.yaml")) == record.config
    assert record.config["prompt"]["layer"] == 3
    assert record.config["prompt"]["dropout"] == 0.1
    assert record.config["model"]["attention"] == "sdpa"
    assert "<mask>" in record.config["task"]["template"]
    assert record.config["run_dir"] == str(tmp_path / "run")


def test_the_data_of_another_run_are_verified(toy: MakeConfig, tmp_path: Path) -> None:
    drawn = ("data=kshot", "data.k=20", "data.dev_k=30")
    first = run(toy("masked", *drawn))
    assert first is not None
    split = tmp_path / "split.json"
    shutil.copy(tmp_path / "run" / "split.json", split)
    verified = (*drawn, f"data.verify={split}", "overwrite=true")
    second = run(toy("masked", *verified, "seed=14"))  # another seed, but not of the data
    assert second is not None
    assert second.split.sha256 == first.split.sha256

    before = (tmp_path / "run" / "metrics.json").read_text()
    problems = problems_of(lambda: run(toy("masked", *verified, "data.seed=21")))
    assert {problem.where for problem in problems} == {"data.verify"}
    assert [problem.given.split(":")[0] for problem in problems] == ["train", "dev"]
    assert (tmp_path / "run" / "metrics.json").read_text() == before


def test_costs_of_a_run_that_was_resumed_after_its_training(
    toy: MakeConfig, tmp_path: Path
) -> None:
    first = run(toy("masked"))
    (tmp_path / "run" / "metrics.json").unlink()
    second = run(toy("masked", "resume=auto"))
    assert first is not None
    assert second is not None
    assert second.cost.starts == 2
    assert second.cost.peak_memory_mb == pytest.approx(first.cost.peak_memory_mb, rel=0.2)
    # As noted at the last checkpoint: not lost, as it would be if only this start counted.
    assert second.cost.train_seconds > first.cost.train_seconds / 4
    assert second.cost.total_seconds > second.cost.train_seconds > 0
