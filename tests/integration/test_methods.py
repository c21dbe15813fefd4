"""Runs of every method: what trains, what is saved, and that it comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from peft import PeftModel
from safetensors.torch import load_file

from lpt.experiment import run
from lpt.models.backbone import load_model
from lpt.runs.adapter import load_adapter
from lpt.training.plan import prepare
from tests.conftest import MakeConfig
from tests.support.trained import build_data

pytestmark = [  # PEFT's own, when the plain library loads an adapter
    pytest.mark.filterwarnings(f"ignore:{text}")
    for text in (".is_gradient_checkpointing. is deprecated", "Unsupported layer type")
]
METHODS = (
    *("adalora", "adapter", "bitfit", "dora", "full", "ia3", "ln_tuning", "lora", "prefix"),
    *("ptuning", "vera"),
)
OF_PEFT = ("adalora", "dora", "ia3", "ln_tuning", "lora", "prefix", "ptuning", "vera")
# Besides what trains, for PEFT: random matrices; what the encoder computes.
CONSTANTS = {"vera": 2, "ptuning": 1}
SETTINGS = {"prefix": ("method.length=3",), "ptuning": ("method.length=3",)}


class Spy(Callback):
    """Keeps the parameters as they were before the training."""

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.model = pl_module.model
        self.start = {n: p.detach().clone() for n, p in self.model.named_parameters()}


@pytest.mark.parametrize(
    ("name", "model", "layer"),
    [
        *(("prefix", "masked", 1), ("ptuning", "masked", 1)),
        *(
            (name, *where)
            for where in (("masked", 3), ("causal", 1))
            for name in METHODS
            # llama has no biases, P-tuning is at the input
            if (name, *where) not in (("bitfit", "causal", 1), ("ptuning", "masked", 3))
        ),
    ],
)
def test_what_trains_is_saved_and_comes_back(
    toy: MakeConfig,
    tmp_path: Path,
    callbacks: list[Callback],
    name: str,
    model: str,
    layer: int,
) -> None:
    callbacks.append(spy := Spy())
    what = (f"method={name}", f"method.layer={layer}", "prompt.layer=null")
    config = toy(model, *what, *SETTINGS.get(name, ()), "cache=off")
    record = run(config)
    assert record is not None
    assert record.config["prompt"] is None
    trained, trainable = spy.model, spy.model.trainable()
    same = {id(parameter) for parameter in trainable.values()}
    for key, parameter in trained.named_parameters():
        assert torch.equal(parameter, spy.start[key]) == (id(parameter) not in same), key
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "best.ckpt", weights_only=True)
    assert set(checkpoint["state_dict"]) == {f"model.{key}" for key in trainable}

    adapter = tmp_path / "run" / "adapter"
    saved = load_file(adapter / "adapter_model.safetensors")
    assert len(saved) == len(trainable) + CONSTANTS.get(name, 0)
    plan = prepare(toy(model, f"method={name}", "prompt.layer=null", "overwrite=true"))
    batches = list(build_data(config, plan).test_dataloader())
    reloaded = load_adapter(adapter)
    trained.eval()
    with torch.no_grad():
        assert all(torch.equal(reloaded(batch), trained(batch)) for batch in batches)
    if name in OF_PEFT and (name, layer) != ("prefix", 3):  # PEFT has it in all layers only
        plain = PeftModel.from_pretrained(
            load_model(plan.backbone, dtype=torch.float32), str(adapter)
        )
        batch = next(iter(build_data(config, plan).train_dataloader()))  # one label part each
        in_front = 3 if name == "ptuning" else 0
        with torch.no_grad():
            logits = plain(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
            expected = logits[batch.logit_rows, batch.logit_positions + in_front]
            torch.testing.assert_close(expected, reloaded(batch), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "ptuning"])
def test_the_cache_changes_no_result(toy: MakeConfig, name: str) -> None:
    what = (f"method={name}", "method.layer=3", "prompt.layer=null", "overwrite=true")
    cached, whole = (run(toy("masked", *what, f"cache={mode}")) for mode in ("on", "off"))
    assert cached is not None
    assert whole is not None
    assert cached.cache.sets
    assert not whole.cache.sets
    for field in ("zero_shot", "test", "dev_history", "parameters"):
        assert getattr(cached, field) == getattr(whole, field), field


@pytest.mark.parametrize("model", ["masked", "causal"])
@pytest.mark.parametrize(
    "prompt",
    [
        ("prompt=idpg", "prompt.layer=1"),
        ("prompt=idpg", "prompt.layer=3"),
        ("prompt=mppg", "prompt.layer=null", "prompt.layers=[2,4]"),
    ],
)
def test_the_cache_changes_no_result_of_a_prompt(
    toy: MakeConfig, model: str, prompt: tuple[str, ...]
) -> None:
    dropout = ("model.dropout=none", "prompt.dropout=0", "overwrite=true")
    cached, whole = (run(toy(model, *prompt, *dropout, f"cache={mode}")) for mode in ("on", "off"))
    assert cached is not None
    assert whole is not None
    assert cached.cache.sets == ["dev", "test", "train"]
    assert not whole.cache.sets
    for field in ("zero_shot", "test", "dev_history", "parameters"):
        assert getattr(cached, field) == getattr(whole, field), field
