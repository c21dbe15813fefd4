"""The data loaders of a run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from lightning.pytorch.trainer.states import RunningStage

from lpt.training.plan import prepare
from tests.conftest import MakeConfig
from tests.support.caching import small_trainer
from tests.support.trained import build_data


@pytest.mark.parametrize("model", ["masked", "causal"])
@pytest.mark.parametrize("loss", ["vocabulary", "label_words"])
def test_loaders(toy: MakeConfig, toy_data: Path, model: str, loss: str) -> None:
    extra = f"+task.extra={{more:{{file:{toy_data / 'dev.tsv'}}}}}"
    config = toy(model, f"loss={loss}", extra, "data.eval_batch_size=5", "trainer.max_steps=12")
    plan = prepare(config)
    data = build_data(config, plan)
    loaders = {"train": data.train_dataloader()}
    loaders |= {"dev": data.val_dataloader(), "test": data.test_dataloader()}
    data.test_set = "more"
    loaders["more"] = data.test_dataloader()
    assert [len(loader) for loader in loaders.values()] == [12, 5, 5, 5]
    for name, loader in loaders.items():
        texts = plan.splits.sets[name].columns["text"]
        seen: Counter[int] = Counter()
        for batch in loader:
            every_label = model == "causal" and (name != "train" or loss == "label_words")
            assert (batch.branches is not None) == every_label
            rows = batch.row_ids.tolist()
            seen.update(rows)
            decoded = plan.encoder.tokenizer.batch_decode(batch.input_ids, skip_special_tokens=True)
            for text, row in zip(decoded, rows, strict=True):
                assert text.strip().startswith(texts[row])
        assert set(seen) == set(range(len(texts)))
        assert set(seen.values()) == ({2, 3} if name == "train" else {1})  # 5 batches per pass


@pytest.mark.parametrize("model", ["masked", "causal"])
def test_hidden_states_on_another_device_are_gathered_there(toy: MakeConfig, model: str) -> None:
    config = toy(model, "data.eval_batch_size=5")
    data = build_data(config, prepare(config))
    states = {name: torch.randn(tokens.num_tokens, 3) for name, tokens in data.packed.items()}
    data.trainer = trainer = small_trainer()
    for stage, name, make_loader in (
        (RunningStage.TRAINING, "train", data.train_dataloader),
        (RunningStage.SANITY_CHECKING, "dev", data.val_dataloader),
        (RunningStage.VALIDATING, "dev", data.val_dataloader),
        (RunningStage.TESTING, "test", data.test_dataloader),
    ):
        trainer.state.stage = stage
        data.hidden = states
        on_cpu = list(make_loader())
        data.hidden = {name: hidden.to("meta") for name, hidden in states.items()}
        on_device = list(make_loader())
        data.hidden = states  # stands for the device
        for batch, expected in zip(on_device, on_cpu, strict=True):
            assert batch.hidden is None
            assert batch.hidden_index.shape == batch.input_ids.shape
            received = data.on_after_batch_transfer(batch, 0)
            assert received.hidden_index is None
            assert torch.equal(received.input_ids, expected.input_ids)
            real = batch.attention_mask.bool()
            assert torch.equal(received.hidden[real], expected.hidden[real])
            assert torch.equal(received.hidden[real], states[name][batch.hidden_index[real]])
