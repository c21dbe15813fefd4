"""Adapters that do not fit are refused, before anything of their sizes is allocated."""

from __future__ import annotations

import hashlib
import json
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

TENSORS, DESCRIPTION = "adapter.safetensors", "adapter.json"


@pytest.fixture(scope="module")
def adapter(
    checkpoints: dict[str, Path], toy_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    run_dir = tmp_path_factory.mktemp("adapters") / "run"
    run(configured(*toy_overrides(checkpoints, toy_data, "masked"), f"run_dir={run_dir}"))
    return run_dir / "adapter"


@pytest.fixture
def copied(adapter: Path, tmp_path: Path) -> Path:
    for name in (TENSORS, DESCRIPTION):
        (tmp_path / name).write_bytes((adapter / name).read_bytes())
    return tmp_path


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
        (lambda c: c["prompt"].update(bottleneck=None), "bottleneck None"),
        (lambda c: c["prompt"].update(bottleneck=1 << 20), "down.weight"),
        (lambda c: c["prompt"].update(layer=99), "1..4"),
        (lambda c: c["backbone"].update(gguf_file="../../secret.gguf"), "secret.gguf"),
        (lambda c: c["backbone"].update(path=None, package="os.path"), "os.path is not installed"),
        (lambda c: c["backbone"].update(fingerprint="0" * 16), "weights 0000000000000000"),
        (lambda c: c["task"].update(label_words=["bad"]), "task.label_words"),
    ],
)
def test_what_the_description_names_must_fit(copied: Path, change: Change, message: str) -> None:
    change_description(copied, change)
    assert message in refused(copied)


def test_without_files_it_is_not_an_adapter(copied: Path) -> None:
    (copied / TENSORS).unlink()
    assert TENSORS in refused(copied)
    (copied / DESCRIPTION).unlink()
    assert DESCRIPTION in refused(copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update(more=torch.zeros(1)), "more"),
        (lambda t: t.pop("up.bias"), "up.bias"),
        (lambda t: t.update({"up.bias": t["up.bias"][:-1].clone()}), "up.bias"),
        (lambda t: t.update({"up.bias": t["up.bias"].double()}), "other types than float32"),
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
