"""Several processes: two on the CPU really run, the sharded strategy is built."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch.strategies import FSDPStrategy
from transformers.models.bert.modeling_bert import BertLayer
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from lpt.models.backbone import find_backbone, load_model
from lpt.models.generators import build_generator
from lpt.models.late_prompt import LatePrompt
from lpt.models.split import SplitModel
from lpt.training import build_strategy
from tests.conftest import CONF


def test_fsdp_shards_by_layer(checkpoints: dict[str, Path]) -> None:
    for kind, layer in (("masked", BertLayer), ("causal", LlamaDecoderLayer)):
        path = str(checkpoints[kind])
        found = find_backbone(name="x", path=path, revision=None, package=None, gguf_file=None)
        split = SplitModel(load_model(found, dtype=torch.float32), 2)
        model = LatePrompt(split, build_generator("npg", hidden_size=32, length=2, bottleneck=3))
        strategy = build_strategy("fsdp", found, model)
        assert isinstance(strategy, FSDPStrategy)
        assert set(strategy.kwargs["auto_wrap_policy"]._module_classes) == {layer}
        ignored = {id(parameter) for parameter in strategy.kwargs["ignored_states"]}
        assert ignored == {id(parameter) for parameter in model.trainable().values()}


@pytest.mark.parametrize("budget", [1, 1e-6], ids=["cached", "no room"])
def test_two_processes_score_every_example_once(
    checkpoints: dict[str, Path], toy_data: Path, tmp_path: Path, budget: float
) -> None:
    """The test set has 24 examples; limited to 23, so that they do not divide."""
    runs = {}
    for name, devices in (("single", 1), ("ddp", 2)):
        run_dir = tmp_path / name
        command = [
            sys.executable, str(CONF.parent / "train.py"), "model=local", "task=reviews",
            f"model.path={checkpoints['masked']}", f"data.path={toy_data}", "task.labels=['0','1']",
            "prompt.layer=3", "data.max_length=64", f"data.batch_size={16 // devices}",
            "data.limit_test=23", "data.bucketing=false",
            "model.dropout=none", "prompt.dropout=0", "trainer.max_steps=4",
            "trainer.eval_every_steps=2", "strategy.accelerator=cpu", f"strategy={name}",
            f"strategy.devices={devices}", f"run_dir={run_dir}", f"cache.dir={run_dir}-cache",
            f"cache.max_gb={budget}",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        runs[name] = json.loads((run_dir / "metrics.json").read_text())
        lines = (run_dir / "predictions.tsv").read_text().splitlines()[1:]
        assert len({line.split("\t")[0] for line in lines}) == len(lines) == 23
        assert len(runs[name]["cache"]["sets"]) == (3 if budget == 1 else 0)
    for part in ("test", "dev", "zero_shot", "majority", "selection"):
        assert runs["ddp"][part] == runs["single"][part]
    left = {"single", "ddp"} | ({"single-cache", "ddp-cache"} if budget == 1 else set())
    assert {path.name for path in tmp_path.iterdir()} == left
