"""Adapters are read as they were written; what does not fit is refused before it is allocated."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lpt.errors import ConfigError
from lpt.experiment import run
from lpt.methods.late_prompt import LatePrompt
from lpt.models.backbone import attention_implementation
from lpt.predictor import Predictor
from lpt.runs.adapter import AdapterDescription, load_adapter, read_description
from tests.conftest import compose_run, toy_overrides

TENSORS, DESCRIPTION = "adapter.safetensors", "adapter.json"


@pytest.fixture(scope="module")
def adapter(
    checkpoints: dict[str, Path], toy_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    run_dir = tmp_path_factory.mktemp("adapters") / "run"
    run(compose_run(*toy_overrides(checkpoints, toy_data, "masked"), f"run_dir={run_dir}"))
    return run_dir / "adapter"


@pytest.fixture
def copied(adapter: Path, tmp_path: Path) -> Path:
    for name in (TENSORS, DESCRIPTION):
        (tmp_path / name).write_bytes((adapter / name).read_bytes())
    return tmp_path


Change = Callable[[dict[str, Any]], object]


def rewrite(folder: Path, change: Change) -> None:
    content = json.loads((folder / DESCRIPTION).read_text())
    change(content)
    (folder / DESCRIPTION).write_text(json.dumps(content))


def refused(folder: Path) -> str:
    """The message."""
    with pytest.raises(ConfigError) as caught:
        load_adapter(folder)
    return str(caught.value)


def test_what_is_written_is_read(adapter: Path) -> None:
    description = read_description(adapter)
    assert isinstance(description, AdapterDescription)
    assert description.model_dump() == json.loads((adapter / DESCRIPTION).read_text())
    assert isinstance(load_adapter(adapter), LatePrompt)


def test_a_model_is_loaded_with_the_attention_it_was_trained_with(
    checkpoints: dict[str, Path], toy_data: Path, tmp_path: Path
) -> None:
    """In half precision on a CPU it is not transformers' default."""
    half = ("model.dtype=bfloat16", "strategy.accelerator=cpu", f"run_dir={tmp_path / 'run'}")
    run(compose_run(*toy_overrides(checkpoints, toy_data, "masked"), *half))
    loaded = load_adapter(tmp_path / "run" / "adapter")
    assert attention_implementation(loaded.split.config) == "eager"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["prompt"].update(bottleneck=None), "bottleneck None"),
        (lambda c: c["prompt"].update(bottleneck=1 << 20), "down.weight"),
        (lambda c: c["prompt"].update(layer=99), "1 to 4"),
        (lambda c: c["backbone"].update(gguf_file="../../secret.gguf"), "secret.gguf"),
        (lambda c: c["backbone"].update(path=None, package="os.path"), "os.path is not installed"),
        (lambda c: c["backbone"].update(fingerprint="0" * 16), "weights 0000000000000000"),
        (lambda c: c["task"].update(label_words=["bad"]), "a label word for each label"),
        (lambda c: c["task"].update(value_range=[5, 5]), "the smaller one"),
    ],
)
def test_what_the_description_names_must_fit(copied: Path, change: Change, message: str) -> None:
    rewrite(copied, change)
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
    copied: Path, change: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    tensors = load_file(copied / TENSORS)
    change(tensors)
    save_file(tensors, copied / TENSORS)
    digest = hashlib.sha256((copied / TENSORS).read_bytes()).hexdigest()
    rewrite(copied, lambda content: content.update(sha256=digest))
    assert message in refused(copied)


@pytest.mark.parametrize("rehash", [False, True])
@pytest.mark.parametrize("place", [0, 4, 40, -4])
def test_damaged_tensors_are_refused(copied: Path, place: int, *, rehash: bool) -> None:
    content = (copied / TENSORS).read_bytes()
    (copied / TENSORS).write_bytes(content[:place] + b"\xff" * 100)
    if rehash:
        digest = hashlib.sha256((copied / TENSORS).read_bytes()).hexdigest()
        rewrite(copied, lambda description: description.update(sha256=digest))
    assert TENSORS in refused(copied)


def test_a_predictor_refuses_a_damaged_description(copied: Path) -> None:
    rewrite(copied, lambda content: content["task"].update(template="no hole"))
    with pytest.raises(ConfigError, match="mask"):
        Predictor(copied)
