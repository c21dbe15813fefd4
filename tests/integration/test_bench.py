"""The benchmark: what it counts, and that it runs."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench import predict
from bench.flops import Loss, StepWork
from bench.synthetic import make_batch
from lpt.config.method_schema import PromptConfig
from lpt.experiment import run
from lpt.methods.registry import build_method
from lpt.models.scoring import sequence_losses
from tests.conftest import MakeConfig
from tests.support.configs import ROOT
from tests.support.tiny import tiny_model
from tests.unit.methods.test_methods import method_config


@pytest.mark.parametrize("layer", [1, 2, 4])
@pytest.mark.parametrize("name", ["late_prompt", "lora", "adapter", "full"])
def test_work_is_that_of_a_step(name: str, layer: int) -> None:
    """Of a model with weights, in a batch of another size."""

    def loss(device: str) -> Loss:
        model = tiny_model("roberta", attn_implementation="eager").to(device)
        prompt = PromptConfig(kind="static", layer=layer, length=5, init="normal", lr=1e-3)
        config = method_config(name, layer)
        if name == "late_prompt":
            config = replace(config, prompt=prompt, method=replace(config.method, layer=None))
        method = build_method(config, model, None).to(device)
        return lambda batch: sequence_losses(method(batch), batch, len(batch.labels)).mean()

    cached = layer > 1
    work = StepWork(loss("meta"), 32 if cached else None)
    batch = make_batch(3, 20, "cpu")
    if cached:
        batch = batch._replace(hidden=torch.randn(3, 20, 32))
    with FlopCounterMode(display=False) as counter:
        loss("cpu")(batch).backward()
    assert work(3, 20) == pytest.approx(counter.get_total_flops(), rel=1e-6)


def test_late_methods_do_a_part_of_the_work() -> None:
    """Of the layers below, nothing is computed."""
    parts = {}
    for layer in (1, 3):
        model = tiny_model("roberta", attn_implementation="eager").to("meta")
        method = build_method(method_config("lora", layer), model, None)
        work = StepWork(lambda batch, method=method: method(batch).sum(), 32 if layer > 1 else None)
        parts[layer] = work(8, 64)
    assert 0.4 < parts[3] / parts[1] < 0.6


@pytest.mark.slow
def test_benchmark_runs(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    pytest.importorskip("matplotlib")
    options = ["--model", "small", "--turns", "1", "--group", "full", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "bench", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads((tmp_path / "results.json").read_text())
    ran = [(row["plain"], row["method"], row["layer"]) for row in results["methods"]]
    late = [(False, "full", layer) for layer in (1, 4, 5, 1)]
    assert ran == [(True, "lora", 1), *late]
    assert all(row["examples_per_second"] > 0 for row in results["methods"])
    assert "full, layer 4, cached" in done.stdout


def test_benchmark_of_predictions_runs(
    toy: MakeConfig,
    toy_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(toy())
    rows = tmp_path / "rows.tsv"
    rows.write_text("label\ttext\n" + (toy_data / "test.tsv").read_text())
    options = [str(tmp_path / "run"), str(rows), "--turns", "1", "--batch-size", "8"]
    monkeypatch.setattr(sys, "argv", ["bench.predict", *options])
    capsys.readouterr()
    predict.main()
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("24 rows, batches of 8")
    assert len(lines) == 3
