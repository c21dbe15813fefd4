"""Adapters from elsewhere: refused with the reason, before anything is allocated or run."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from lpt.errors import ConfigError
from lpt.experiment import run
from lpt.methods.late_prompt import LatePrompt
from lpt.predictor import Predictor
from lpt.runs.adapter import Description, load_adapter, read_description
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
    """What the message says."""
    with pytest.raises(ConfigError) as caught:
        load_adapter(folder)
    return str(caught.value)


def places(read: Callable[[Path], object], folder: Path) -> list[str]:
    """Where the faults are; none if it can be read."""
    try:
        read(folder)
    except ConfigError as error:
        return [problem.where for problem in error.problems]
    return []


def test_what_is_written_is_read(adapter: Path) -> None:
    description = read_description(adapter)
    assert isinstance(description, Description)
    assert asdict(description) == json.loads((adapter / DESCRIPTION).read_text())
    assert isinstance(load_adapter(adapter), LatePrompt)


def test_a_model_is_read_with_the_attention_that_it_was_trained_with(
    checkpoints: dict[str, Path], toy_data: Path, tmp_path: Path
) -> None:
    """In half precision on a CPU it is not the one that transformers would pick."""
    half = ("model.dtype=bfloat16", "strategy.accelerator=cpu", f"run_dir={tmp_path / 'run'}")
    run(compose_run(*toy_overrides(checkpoints, toy_data, "masked"), *half))
    loaded = load_adapter(tmp_path / "run" / "adapter")
    assert loaded.split.config._attn_implementation == "eager"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format=3), "format 3"),
        (lambda c: c.update(more=1), "'more': unknown"),
        (lambda c: c.pop("task"), "task: missing"),
        (lambda c: c.update(prompt=[]), "prompt.: []"),
        (lambda c: c["prompt"].update(kind="evil"), "prompt.kind: 'evil'"),
        (lambda c: c["prompt"].update(length=10**12), "prompt.length: 1000000000000"),
        (lambda c: c["prompt"].update(length=True), "prompt.length: True"),
        (lambda c: c["prompt"].update(bottleneck=None), "bottleneck None"),
        (lambda c: c["prompt"].update(bottleneck=1 << 20), "down.weight F32 [1048576, 32]"),
        (lambda c: c["prompt"].update(layer=0), "prompt.layer: 0"),
        (lambda c: c["prompt"].update(layer=99), "1 to 4, the layers of"),
        (lambda c: c["backbone"].update(dtype="load"), "backbone.dtype: 'load'"),
        (lambda c: c["backbone"].update(attention="evil"), "backbone.attention: 'evil'"),
        (lambda c: c["backbone"].update(path=7), "backbone.path: 7"),
        (lambda c: c["backbone"].update(gguf_file="../../secret.gguf"), "secret.gguf"),
        (lambda c: c["backbone"].update(gguf_file="/etc/passwd"), "/etc/passwd"),
        (lambda c: c["backbone"].update(path=None, package="os.path"), "os.path is not installed"),
        (lambda c: c["backbone"].update(path=None, package="sys"), "sys is not installed"),
        (lambda c: c["backbone"].update(path=None, package="__main__"), "__main__ is not"),
        (lambda c: c["backbone"].update(fingerprint="0" * 16), "weights 0000000000000000"),
        (lambda c: c["task"].update(labels="01"), "task.labels: '01'"),
        (lambda c: c["task"].update(label_words=["bad"]), "1 words for 2 labels"),
        (lambda c: c["task"].update(max_length=-1), "task.max_length: -1"),
        (lambda c: c["task"].update(value_range=[0.0]), "task.value_range: [0.0]"),
        (lambda c: c["task"].update(value_range=[0.0, math.nan]), "task.value_range: [0.0, nan]"),
        (lambda c: c["task"].update(value_range=[math.nan, 1]), "task.value_range: [nan, 1]"),
        (lambda c: c["task"].update(value_range=[0, math.inf]), "task.value_range: [0, inf]"),
        (lambda c: c["task"].update(value_range=[-math.inf, 0]), "task.value_range: [-inf, 0]"),
        (lambda c: c["task"].update(value_range=[0, 10**400]), "a number of more than 308 digits"),
        (
            lambda c: c["task"].update(value_range=[-(10**400), 0]),
            "a number of more than 308 digits",
        ),
        (lambda c: c["task"].update(value_range=[5, 5]), "task.value_range: [5, 5]"),
        (lambda c: c["task"].update(value_range=[5.0, 0.0]), "task.value_range: [5.0, 0.0]"),
        (lambda c: c["task"].update(value_range=[True, 5]), "task.value_range: [True, 5]"),
    ],
)
def test_a_description_is_held_to_its_schema(copied: Path, change: Change, message: str) -> None:
    rewrite(copied, change)
    assert message in refused(copied)


@pytest.mark.parametrize("end", ["1e999", "-1e999", "NaN", "Infinity", "9" * 5000])
def test_a_range_has_ends(copied: Path, end: str) -> None:
    """However the number is written."""
    rewrite(copied, lambda content: content["task"].update(value_range=["END", 1e308]))
    file = copied / DESCRIPTION
    text = file.read_text()
    file.write_text(text.replace('"END"', end))
    message = refused(copied)
    assert str(file) in message
    assert len(message) < 600
    file.write_text(text.replace('"END"', "-1e3"))
    assert read_description(copied).task.value_range == [-1e3, 1e308]


def test_all_faults_are_named_at_once(copied: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["prompt"].update(layer="3", length=0)
        del content["backbone"]["dtype"]

    rewrite(copied, change)
    message = refused(copied)
    assert "2 problems" in message
    for key in ("prompt.layer", "backbone.dtype"):
        assert f"{copied / DESCRIPTION}: {key}" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "Expecting value"),
        (b"\xff\xfe", "codec can't decode"),
        (b"[" * 200_000, "nested too deeply"),
        (b'"' + b"x" * (1 << 20) + b'"', "more than 1,048,576"),
        (b"[]", "format no object"),
    ],
)
def test_a_description_that_is_none(copied: Path, text: bytes, message: str) -> None:
    (copied / DESCRIPTION).write_bytes(text)
    assert message in refused(copied)


def test_without_files_it_is_no_adapter(copied: Path) -> None:
    (copied / TENSORS).unlink()
    assert TENSORS in refused(copied)
    (copied / DESCRIPTION).unlink()
    assert DESCRIPTION in refused(copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update(more=torch.zeros(1)), "more F32 [1]"),
        (lambda t: t.pop("up.bias"), "up.bias F32"),
        (lambda t: t.update({"up.bias": t["up.bias"][:-1].clone()}), "up.bias F32"),
        (lambda t: t.update({"up.bias": t["up.bias"].double()}), "up.bias F64"),
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


@pytest.fixture(scope="module")
def scratch(adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scratch")
    (folder / TENSORS).write_bytes((adapter / TENSORS).read_bytes())
    return folder


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def assert_sound(description: Description) -> None:
    backbone, prompt, task = description.backbone, description.prompt, description.task
    texts = [description.sha256, backbone.name, backbone.model_type, backbone.fingerprint]
    places = (backbone.path, backbone.revision, backbone.package, backbone.gguf_file)
    texts += [place for place in places if place is not None]
    texts += [task.name, task.template, *task.labels, *task.label_words]
    assert all(type(text) is str for text in texts)
    assert len(task.labels) == len(task.label_words) >= 2
    sizes = [prompt.layer, prompt.length, task.max_length]
    sizes += [prompt.bottleneck] if prompt.bottleneck is not None else []
    assert all(type(size) is int and size >= 1 for size in sizes)
    assert backbone.dtype in ("float32", "bfloat16", "float16")
    assert task.kind in ("masked", "causal")
    if task.value_range is not None:
        low, high = task.value_range
        assert -math.inf < low < high < math.inf


@given(data=st.data())
def test_whatever_stands_in_a_description_is_read_or_refused(
    adapter: Path, scratch: Path, data: st.DataObject
) -> None:
    content = json.loads((adapter / DESCRIPTION).read_text())
    at = content
    while True:
        key = data.draw(st.sampled_from(sorted(at)))
        if isinstance(at[key], dict) and data.draw(st.booleans()):
            at = at[key]
            continue
        at[key] = data.draw(JSON)
        break
    (scratch / DESCRIPTION).write_text(json.dumps(content))
    faults = places(read_description, scratch)
    assert all(str(scratch / DESCRIPTION) in place for place in faults)
    if not faults:  # all of it was taken as it stands, and nothing that was not sound
        found = read_description(scratch)
        assert json.dumps(asdict(found), sort_keys=True) == json.dumps(content, sort_keys=True)
        assert_sound(found)


@given(junk=st.binary(max_size=200), place=st.floats(0, 1), cut=st.booleans())
def test_whatever_stands_in_the_tensors_is_read_or_refused(
    adapter: Path, scratch: Path, junk: bytes, place: float, cut: bool
) -> None:
    content = (adapter / TENSORS).read_bytes()
    at = int(place * len(content))
    (scratch / TENSORS).write_bytes(content[:at] + junk + (b"" if cut else content[at:]))
    (scratch / DESCRIPTION).write_bytes((adapter / DESCRIPTION).read_bytes())
    same = (scratch / TENSORS).read_bytes() == content
    faults = places(load_adapter, scratch)
    assert bool(faults) is not same
    digest = hashlib.sha256((scratch / TENSORS).read_bytes()).hexdigest()
    rewrite(scratch, lambda description: description.update(sha256=digest))
    faults += places(load_adapter, scratch)  # by someone who knows how to count
    assert all(str(scratch / TENSORS) in place for place in faults)


def test_a_predictor_takes_the_same_care(copied: Path) -> None:
    rewrite(copied, lambda content: content["task"].update(template="no hole"))
    with pytest.raises(ConfigError, match="mask"):
        Predictor(copied)
