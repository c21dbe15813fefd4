"""lpt-export: adapters of lpt in PEFT's format and back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file

from lpt.cli.export import main
from lpt.config import extras
from lpt.errors import USAGE_ERROR
from lpt.experiment import run
from lpt.models.inputs import Batch
from lpt.peft import LatePromptConfig
from lpt.predictor import Predictor
from lpt.runs.adapter import load_adapter, load_adapter_backbone
from tests.conftest import MakeConfig
from tests.support.trained import train_batches

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated")
Export = Callable[..., tuple[int, str, str]]
ROWS = [{"text": "good film"}, {"text": "the bad film was bad"}]


@pytest.fixture
def export(capsys: pytest.CaptureFixture[str]) -> Export:
    """Exit status, output, messages."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()  # what the run printed
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as error:
            status = int(str(error.code))
        return status, *capsys.readouterr()

    return call


def scored(model: PeftModel, batch: Batch) -> torch.Tensor:
    """Logits of rows whose prompt is made of what lpt makes it of."""
    context = None if (batch.summary_index == 0).all() else batch.summary_index + 1
    options = {} if context is None else {"context_length": context}
    with torch.no_grad():
        out = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **options)
    return out.logits[batch.logit_rows, batch.logit_positions]


@pytest.mark.parametrize("model", ["masked", "causal"])
@pytest.mark.parametrize("layers", ["prompt.layer=3", "prompt.layers=[2,4]"])
def test_an_adapter_is_exported_and_comes_back(
    toy: MakeConfig, tmp_path: Path, export: Export, model: str, layers: str
) -> None:
    config = toy(model, *(["prompt.layer=null"] if "layers" in layers else []), layers)
    run(config)
    adapter, out = tmp_path / "run" / "adapter", tmp_path / "peft"
    assert export("peft", tmp_path / "run", "--out", out) == (0, f"{out}\n", "")
    own = load_adapter(adapter)
    tuned = PeftModel.from_pretrained(load_adapter_backbone(adapter), str(out))
    batch = train_batches(toy(model, "overwrite=true"))[0]
    with torch.no_grad():
        assert batch.branches is None
        torch.testing.assert_close(scored(tuned, batch), own(batch), atol=1e-5, rtol=1e-5)

    status, _, message = export("lpt", out, "--out", tmp_path / "back")
    assert (status, message) == (0, "")
    for name in ("adapter.json", "adapter_model.safetensors"):
        if name.endswith("json"):
            old, new = (json.loads((at / name).read_text()) for at in (adapter, tmp_path / "back"))
            assert {**old, "sha256": ""} == {**new, "sha256": ""}
    one, other = (load_file(at / name) for at in (adapter, tmp_path / "back"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    folder = json.loads((tmp_path / "run" / "metrics.json").read_text())["config"]["model"]["path"]
    assert Predictor(tmp_path / "back", model=folder)(ROWS) == Predictor(adapter)(ROWS)


def test_a_prompt_trained_by_peft_predicts_in_lpt(
    toy: MakeConfig, tmp_path: Path, export: Export
) -> None:
    """With the task and the model of another adapter, which may be of another method."""
    run(toy("masked", "method=lora", "prompt.layer=null"))
    adapter, saved, out = tmp_path / "run" / "adapter", tmp_path / "peft", tmp_path / "out"
    prompt = LatePromptConfig(kind="appg", layer=2, length=2, bottleneck=8)
    model = get_peft_model(load_adapter_backbone(adapter), prompt).eval()
    model.save_pretrained(saved)
    status, _, message = export("lpt", saved, "--out", out)
    assert status == USAGE_ERROR
    assert "hint: --like ADAPTER" in message
    assert not out.exists()
    assert export("lpt", saved, "--out", out, "--like", adapter)[0] == 0
    backbone = load_adapter_backbone(adapter)
    batch = train_batches(toy("masked", "overwrite=true"))[0]
    with torch.no_grad():
        found = load_adapter(out, backbone)(batch)
    torch.testing.assert_close(scored(model, batch), found, atol=1e-5, rtol=1e-5)


def test_methods_of_peft_are_copied_and_others_refused(
    toy: MakeConfig, tmp_path: Path, export: Export
) -> None:
    out = tmp_path / "out"
    run(toy("masked", "method=lora", "prompt.layer=null"))
    adapter = tmp_path / "run" / "adapter"
    assert export("peft", adapter, "--out", out)[0] == 0
    assert {file.name for file in out.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    PeftModel.from_pretrained(load_adapter_backbone(adapter), str(out))
    status, _, message = export("lpt", out, "--out", tmp_path / "back", "--like", adapter)
    assert status == USAGE_ERROR
    assert "an adapter of type PeftType.LORA" in message
    run(toy("masked", "method=bitfit", "prompt.layer=null", "overwrite=true"))
    status, _, message = export("peft", adapter, "--out", tmp_path / "other")
    assert status == USAGE_ERROR
    assert "an adapter of method=bitfit" in message
    assert not (tmp_path / "other").exists()


def test_peft_is_missing(tmp_path: Path, export: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "EXTRAS", {"peft": ("no_such_package",)})
    (tmp_path / "file").touch()
    status, _, message = export("peft", tmp_path, "--out", tmp_path / "file")
    assert status == USAGE_ERROR
    assert "lpt-export: not installed: no_such_package" in message
    assert "--out: " in message  # all problems at once


def test_what_is_no_adapter_is_refused(toy: MakeConfig, tmp_path: Path, export: Export) -> None:
    run(toy("masked"))
    adapter, good, out = tmp_path / "run" / "adapter", tmp_path / "good", tmp_path / "out"
    assert export("peft", adapter, "--out", good)[0] == 0
    status, _, message = export("peft", adapter, "--out", good)
    assert status == USAGE_ERROR
    assert "--out: " in message
    assert "expected: a new or an empty folder" in message
    (tmp_path / "file").write_text("")
    assert export("peft", adapter, "--out", tmp_path / "file" / "out")[0] == USAGE_ERROR
    assert export("peft", adapter)[0] == USAGE_ERROR
    assert export("peft", adapter, "--out", out, "--like", adapter)[0] == USAGE_ERROR
    assert export("lpt", adapter, "--out", out)[0] == USAGE_ERROR
    assert export("lpt", tmp_path / "none", "--out", out)[0] == USAGE_ERROR
    faults = {
        "adapter_config.json": ("{", '{"peft_type": "NO_SUCH"}', '{"kind": "npg"}'),
        "adapter_model.safetensors": ("", "{}" * 9),
    }
    for name, contents in faults.items():
        for content in contents:
            bad = tmp_path / "bad"
            shutil.copytree(good, bad)
            (bad / name).write_text(content)
            status, _, message = export("lpt", bad, "--out", out)
            assert status == USAGE_ERROR, content
            assert name in message
            shutil.rmtree(bad)
    config = json.loads((good / "adapter_config.json").read_text())
    del config["lpt_adapter"]["task"]
    (good / "adapter_config.json").write_text(json.dumps(config))
    status, _, message = export("lpt", good, "--out", out)
    assert "lpt_adapter.task: Field required" in message
    assert not out.exists()
