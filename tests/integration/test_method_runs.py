"""Runs of methods: resumed, on two ranks, in bf16, and their adapters as functions."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lpt.errors import PREEMPTED
from lpt.experiment import run
from lpt.predictor import Predictor
from lpt.runs.adapter import load_adapter
from lpt.training.module import build_model
from lpt.training.plan import prepare
from tests.conftest import BeforeStep, MakeConfig, toy_overrides
from tests.support.configs import configured
from tests.support.outcomes import assert_alike, assert_same, curve
from tests.support.processes import finished
from tests.support.trained import build_data, table

FOURIER = ("peft", "method.config={peft_type: FOURIERFT, n_frequency: 20}")
NO_PROMPT = "prompt.layer=null"


@pytest.mark.parametrize(
    ("model", "given"),
    [
        ("masked", ("full", "method.layer=1", "model.dropout=all")),
        ("masked", ("bitfit", "method.layer=3")),
        ("masked", ("lora", "method.layer=3", "method.dropout=0.3")),
        ("causal", ("adapter", "method.layer=1")),
        ("causal", (*FOURIER, "method.layer=2")),
    ],
)
def test_a_preempted_run_resumes_exactly(
    toy: MakeConfig, tmp_path: Path, before_step: BeforeStep, model: str, given: tuple[str, ...]
) -> None:
    method = (f"method={given[0]}", *given[1:], NO_PROMPT)
    length = ("trainer.max_steps=6", "trainer.eval_every_steps=2", "cache=auto")

    def start(name: str, *more: str) -> None:
        run(toy(model, *method, *length, f"run_dir={tmp_path / name}", *more))

    start("whole")
    for step in (1, 4):
        before_step(step, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(SystemExit) as stopped:
            start("stopped", "resume=auto")
        assert stopped.value.code == PREEMPTED
    start("stopped", "resume=auto")
    assert_same(tmp_path / "stopped", tmp_path / "whole")


@pytest.mark.parametrize(
    ("model", "given"),
    [
        ("masked", ("full", "method.layer=1")),
        pytest.param("causal", ("full", "method.layer=1"), marks=pytest.mark.slow),
        pytest.param("masked", ("bitfit", "method.layer=4"), marks=pytest.mark.slow),
        pytest.param("masked", ("lora", "method.layer=3", "cache=on"), marks=pytest.mark.slow),
        pytest.param("causal", ("ln_tuning", "method.layer=1"), marks=pytest.mark.slow),
    ],
)
def test_two_ranks_compute_what_one_computes(
    checkpoints: dict[str, Path],
    toy_data: Path,
    tmp_path: Path,
    model: str,
    given: tuple[str, ...],
) -> None:
    """Every parameter gets its gradient on both ranks, also where all weights train."""

    def settings(name: str) -> list[str]:
        # A larger epsilon: the keys' biases have a gradient of rounding errors only.
        rate = ("optim.lr=1e-3", "optim.eps=1e-3")
        plain = ("trainer.max_steps=6", "model.dropout=none", *rate, NO_PROMPT)
        folders = (f"run_dir={tmp_path / name}", f"cache.dir={tmp_path / name}-cache")
        method = (f"method={given[0]}", *given[1:])
        toy = toy_overrides(checkpoints, toy_data, model, *plain, *folders, *method)
        return [text for text in toy if text != NO_PROMPT]

    run(configured(*settings("one")))
    two = ("strategy=ddp", "strategy.devices=2", "data.batch_size=8")
    finished([*settings("two"), *two], tmp_path / "two.txt")
    assert_alike(tmp_path / "two", tmp_path / "one")


@pytest.mark.parametrize("layer", [1, 3])
@pytest.mark.parametrize("name", ["lora", "dora", "adapter", "ia3", "vera"])
def test_what_trains_in_a_bf16_model_is_fp32(toy: MakeConfig, name: str, layer: int) -> None:
    method = (f"method={name}", f"method.layer={layer}", NO_PROMPT, "overwrite=true")
    found = []
    for dtype in ("float32", "bfloat16"):
        config = toy("masked", *method, f"model.dtype={dtype}")
        torch.manual_seed(0)
        model, _ = build_model(plan := prepare(config))
        batch = next(iter(build_data(config, plan).test_dataloader()))
        trainable = model.eval().trainable()
        assert {parameter.dtype for parameter in trainable.values()} == {torch.float32}
        assert model.split.dtype == getattr(torch, dtype)
        loss = model(batch).log_softmax(-1)[:, :5].sum()
        found.append(torch.autograd.grad(loss, list(trainable.values())))
    for exact, half in zip(*found, strict=True):
        assert half.dtype == torch.float32
        if exact.norm() > 1e-3:
            assert torch.cosine_similarity(exact.flatten(), half.flatten(), 0) > 0.98


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("adapter", ("model.dtype=bfloat16",)),
        ("lora", ("model.dtype=bfloat16", "cache=on", "method.layer=3")),
        ("full", ("trainer.precision=bf16-mixed",)),
    ],
)
def test_a_run_in_bf16(toy: MakeConfig, tmp_path: Path, name: str, given: tuple[str, ...]) -> None:
    length = ("trainer.max_steps=20", "optim.lr=1e-2", "trainer.eval_every_steps=20")
    run(toy("masked", f"method={name}", *given, *length, NO_PROMPT))
    losses = list(curve(tmp_path / "run", "train/loss").values())
    assert losses[-1] < losses[0]
    saved = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    assert load_adapter(tmp_path / "run" / "adapter").split.layer == (
        3 if "cache=on" in given else 1
    )


@pytest.mark.parametrize(
    ("model", "given"),
    [
        ("masked", ("full",)),
        ("masked", ("bitfit", "method.layer=3")),
        ("causal", ("adapter",)),
        ("masked", ("lora", "method.layer=3")),
        ("causal", ("dora",)),
        ("masked", ("ia3",)),
        ("causal", ("ln_tuning", "method.layer=3")),
        ("masked", ("vera",)),
        ("masked", FOURIER),
    ],
)
def test_predictor_predicts_what_the_run_predicted(
    toy: MakeConfig, tmp_path: Path, toy_data: Path, model: str, given: tuple[str, ...]
) -> None:
    """Also from several threads at once."""
    method = (f"method={given[0]}", *given[1:], "optim.lr=1e-2", NO_PROMPT)
    run(toy(model, *method, "data.eval_batch_size=5"))
    lines = (toy_data / "test.tsv").read_text().splitlines()
    rows = [{"text": line.split("\t")[1]} for line in lines]
    predict = Predictor(tmp_path / "run" / "adapter")
    found = predict(rows)
    written = table(tmp_path / "run" / "predictions.tsv")
    assert [one.label for one in found] == [row["prediction"] for row in written]
    parts = [rows[start::4] for start in range(4)]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(predict, parts * 2))
    for part, again in zip(parts, together[4:], strict=True):
        alone = predict(part)
        assert alone == again
    assert together[:4] == together[4:]
