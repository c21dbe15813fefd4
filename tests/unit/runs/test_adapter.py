"""Adapters that do not fit are refused, before anything of their sizes is allocated."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save

from lpt.errors import ConfigError
from lpt.experiment import run
from lpt.models.backbone import attention_implementation
from lpt.predictor import Predictor
from lpt.runs.adapter import load_adapter
from tests.conftest import toy_overrides
from tests.support.configs import configured

TENSORS, DESCRIPTION = "adapter_model.safetensors", "adapter.json"
BIAS = "generator.up.bias"


@pytest.fixture(scope="module")
def adapter(
    checkpoints: dict[str, Path], toy_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    run_dir = tmp_path_factory.mktemp("adapters") / "run"
    run(configured(*toy_overrides(checkpoints, toy_data, "masked"), f"run_dir={run_dir}"))
    return run_dir / "adapter"


@pytest.fixture
def copied(adapter: Path, tmp_path: Path) -> Path:
    """In a copy of the run's folder."""
    for file in (*adapter.iterdir(), adapter.parent / "metrics.json"):
        copy = tmp_path / file.relative_to(adapter.parent)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(file.read_bytes())
    return tmp_path / "adapter"


Change = Callable[[dict[str, Any]], object]


def change_description(folder: Path, change: Change) -> None:
    content = json.loads((folder / DESCRIPTION).read_text())
    change(content)
    (folder / DESCRIPTION).write_text(json.dumps(content))


def write_tensors(folder: Path, content: bytes) -> None:
    (folder / TENSORS).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    change_description(folder, lambda description: description.update(sha256=digest))


def refused(folder: Path) -> str:
    """The message."""
    with pytest.raises(ConfigError) as caught:
        load_adapter(folder)
    return str(caught.value)


def test_a_model_is_loaded_with_the_attention_it_was_trained_with(
    checkpoints: dict[str, Path], toy_data: Path, tmp_path: Path
) -> None:
    """In half precision on a CPU it is not transformers' default."""
    half = ("model.dtype=bfloat16", "strategy.accelerator=cpu", f"run_dir={tmp_path / 'run'}")
    run(configured(*toy_overrides(checkpoints, toy_data, "masked"), *half))
    loaded = load_adapter(tmp_path / "run" / "adapter")
    assert attention_implementation(loaded.split.config) == "eager"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["prompt"].update(bottleneck=None), "prompt.bottleneck: null"),
        (lambda c: c["prompt"].update(bottleneck=1 << 20), "down.weight"),
        (lambda c: c.update(layer=99), "layer 99 is outside"),
        (
            lambda c: c["backbone"].update(package="gguf", gguf_file="../../secret.gguf"),
            "secret.gguf",
        ),
        (lambda c: c["backbone"].update(path=None, package="os.path"), "os.path is not installed"),
        (lambda c: c["backbone"].update(fingerprint="0" * 16), "fingerprint 0000000000000000"),
        (lambda c: c["task"].update(label_words=["bad"]), "task.label_words"),
    ],
)
def test_what_the_description_names_must_fit(copied: Path, change: Change, message: str) -> None:
    change_description(copied, change)
    assert message in refused(copied)


def test_it_names_no_folder_of_the_machine(
    copied: Path, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """Outside the folder of its run it needs to be told where its backbone is."""
    text = (copied / DESCRIPTION).read_text()
    assert str(checkpoints["masked"].parent) not in text
    assert json.loads(text)["backbone"]["name"] == "masked"
    shared = copied.rename(tmp_path / "shared")
    (shared.parent / "metrics.json").unlink()
    assert refused(shared).startswith(
        f"Found 1 problem:\n1. model: none for {shared}, whose backbone masked was a local folder"
    )
    with pytest.raises(ConfigError, match="model=FOLDER"):
        Predictor(shared)
    moved = tmp_path / "moved"
    shutil.copytree(checkpoints["masked"], moved)
    given = [{"text": "good"}]
    at_home = Predictor(shared, model=checkpoints["masked"])(given)
    assert Predictor(shared, model=str(moved))(given) == at_home
    assert load_adapter(shared, moved).split.layer == 3
    with pytest.raises(ConfigError, match=r"the tokenizer of .*causal, fingerprint"):
        Predictor(shared, model=checkpoints["causal"])
    weights = bytearray((moved / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (moved / "model.safetensors").write_bytes(weights)
    with pytest.raises(ConfigError, match="the backbone it was trained on: masked, float32"):
        Predictor(shared, model=moved)


def test_a_run_whose_backbone_moved(copied: Path, adapter: Path) -> None:
    """The folder that its metrics.json names is gone."""
    assert load_adapter(copied).split.layer == 3
    metrics = copied.parent / "metrics.json"
    content = json.loads(metrics.read_text())
    content["config"]["model"]["path"] = "gone"
    metrics.write_text(json.dumps(content))
    assert "whose backbone masked was a local folder" in refused(copied)


def test_without_files_it_is_not_an_adapter(copied: Path) -> None:
    (copied / TENSORS).unlink()
    assert TENSORS in refused(copied)
    (copied / DESCRIPTION).unlink()
    assert DESCRIPTION in refused(copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update(more=torch.zeros(1)), "more"),
        (lambda t: t.pop(BIAS), BIAS),
        (lambda t: t.update({BIAS: t[BIAS][:-1].clone()}), BIAS),
        (lambda t: t.update({BIAS: t[BIAS].double()}), BIAS),
    ],
)
def test_other_tensors_than_described_are_refused(
    copied: Path, change: Change, message: str
) -> None:
    tensors = load_file(copied / TENSORS)
    change(tensors)
    write_tensors(copied, save(tensors))
    assert message in refused(copied)


@pytest.mark.parametrize("place", [0, 4, 40, -4])
def test_damaged_tensors_are_refused(copied: Path, place: int) -> None:
    content = (copied / TENSORS).read_bytes()
    write_tensors(copied, content[:place] + b"\xff" * 100)
    assert TENSORS in refused(copied)


def test_one_changed_number_is_refused(copied: Path) -> None:
    content = (copied / TENSORS).read_bytes()
    (copied / TENSORS).write_bytes(content[:-4] + b"\0" * 4)
    assert "SHA-256" in refused(copied)


def test_a_predictor_refuses_a_damaged_description(copied: Path) -> None:
    change_description(copied, lambda content: content["task"].update(template="no hole"))
    with pytest.raises(ConfigError, match="mask"):
        Predictor(copied)


@pytest.fixture(scope="module")
def lora(
    checkpoints: dict[str, Path], toy_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    method = ("method=lora", "method.layer=3", "prompt.layer=null", f"run_dir={folder / 'run'}")
    run(configured(*toy_overrides(checkpoints, toy_data, "masked", *method)))
    return folder / "run" / "adapter"


NOTHING = {"r": None, "alpha": None, "dropout": None}
BOTTLENECK = {"bottleneck": 6, "placement": "houlsby"}


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"name": "dora"}, "query.lora_magnitude_vector"),
        ({"name": "vera", "alpha": None}, "query.vera_lambda_b"),
        ({"name": "ia3", **NOTHING}, "key.ia3_l"),
        ({"name": "ln_tuning", **NOTHING}, "LayerNorm.ln_tuning_layers.bias"),
        ({"name": "adapter", **NOTHING, **BOTTLENECK}, "other tensors: base_model"),
        ({"name": "full", **NOTHING}, "other tensors: base_model"),
        ({"name": "peft", **NOTHING, "config": {"peft_type": "OFT"}}, "other tensors: base_model"),
        ({"name": "adapter"}, "method.bottleneck: null"),
        ({"name": "late_prompt", **NOTHING}, "prompt: null"),
        ({"name": "lorra"}, "method.name: 'lorra'"),
        ({"r": 4}, "query.lora_A.weight"),
        ({"r": 1 << 40}, "1 to 32, the width"),
        ({"r": None}, "method.r: null"),
        ({"r": "x"}, "method.r"),
        ({"target_modules": "(("}, "method.target_modules: (("),
        ({"target_modules": ["key", "value"]}, "key.lora_A.weight"),
        ({"config": {"rr": 1}}, "method.config.rr: 1"),
    ],
)
def test_an_adapter_of_another_method_is_refused(
    lora: Path, method: dict[str, Any], message: str
) -> None:
    description = (lora / DESCRIPTION).read_text()
    change_description(lora, lambda content: content["method"].update(method))
    try:
        assert message in refused(lora)
    finally:
        (lora / DESCRIPTION).write_text(description)
    assert load_adapter(lora).split.layer == 3
