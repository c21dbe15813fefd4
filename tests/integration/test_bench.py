"""The benchmark: what it counts, and that it runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.flops import Shape
from lpt.methods.late_prompt import LatePrompt
from lpt.models.generators import build_generator
from lpt.models.scoring import sequence_losses
from lpt.models.split import SplitModel
from tests.support.configs import ROOT
from tests.support.late_prompts import make_batch
from tests.support.tiny import tiny_model


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("layer", [2, 4])
def test_work_is_counted_as_torch_counts_it(layer: int, cached: bool) -> None:
    model = tiny_model("roberta", intermediate_size=128, attn_implementation="eager")
    split = SplitModel(model, layer)
    generator = build_generator("static", hidden_size=32, length=5, bottleneck=None)
    late = LatePrompt(split, generator)
    ids = torch.randint(5, 100, (3, 20))
    batch = make_batch(ids, torch.ones_like(ids))
    if cached:
        batch = batch._replace(hidden=split.forward_lower(batch.input_ids, batch.attention_mask))
    with FlopCounterMode(display=False) as counter:
        sequence_losses(late(batch), batch, 3).mean().backward()
    shape = Shape(layers=4, width=32, vocabulary=120)
    assert shape.step("prompt", 3, 20, layer=layer, prompt=5, cached=cached) == pytest.approx(
        counter.get_total_flops(), rel=1e-3
    )


@pytest.mark.slow
def test_benchmark_runs(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    pytest.importorskip("matplotlib")
    options = ["--model", "small", "--turns", "1", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "bench", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results["methods"]) >= 7
    assert all(row["examples_per_second"] > 0 for row in results["methods"])
    assert (tmp_path / "speed.png").stat().st_size > 10_000
