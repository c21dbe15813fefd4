"""The data loaders of a run."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from lightning.pytorch.trainer.states import RunningStage

from lpt.data.datamodule import TaskDataModule
from lpt.data.examples import Examples
from lpt.data.splits import Splits
from lpt.models.inputs import Batch
from lpt.training.plan import prepare
from tests.conftest import MakeConfig
from tests.support.caching import small_trainer
from tests.support.trained import build_data
from tests.unit.data.test_batching import LABELS, ROW_IDS, TEXTS, WORD_IDS, encoder

FIRST_WORDS = {"train": "good", "dev": "bad", "test": "great", "more": "terrible"}


@pytest.mark.parametrize("kind", ["masked", "causal"])
@pytest.mark.parametrize("score_all_labels", [True, False])
def test_loaders(kind: str, score_all_labels: bool) -> None:
    parts = {
        name: Examples({"text": [f"{word} {text}" for text in TEXTS]}, LABELS, ROW_IDS)
        for name, word in FIRST_WORDS.items()
    }
    extra = {"more": parts["more"]}
    data = TaskDataModule(
        Splits(parts["train"], parts["dev"], parts["test"], origin={}, extra=extra),
        encoder(kind),
        word_ids=WORD_IDS,
        batch_size=4,
        eval_batch_size=5,
        seed=13,
        train_batches=5,
        score_all_labels=score_all_labels,
    )
    loaders = {"train": data.train_dataloader()}
    loaders |= {"dev": data.val_dataloader(), "test": data.test_dataloader()}
    data.test_set = "more"
    loaders["more"] = data.test_dataloader()
    for name, loader in loaders.items():
        batches: list[Batch] = list(loader)
        assert len(batches) == len(loader) == (5 if name == "train" else 2)
        seen = Counter(row for batch in batches for row in batch.row_ids.tolist())
        assert set(seen) == set(ROW_IDS)
        assert set(seen.values()) == ({2, 3} if name == "train" else {1})  # 2 batches per pass
        every_label = kind == "causal" and (name != "train" or score_all_labels)
        for batch in batches:
            assert (batch.branches is not None) == every_label
            texts = encoder(kind).tokenizer.batch_decode(batch.input_ids, skip_special_tokens=True)
            assert all(text.strip().startswith(FIRST_WORDS[name]) for text in texts)


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
        data.set_hidden_states(states)
        on_cpu = list(make_loader())
        data.set_hidden_states({name: hidden.to("meta") for name, hidden in states.items()})
        on_device = list(make_loader())
        data.set_hidden_states(states)  # stands for the device
        for batch, expected in zip(on_device, on_cpu, strict=True):
            assert batch.hidden is None
            assert batch.hidden_index.shape == batch.input_ids.shape
            received = data.on_after_batch_transfer(batch, 0)
            assert received.hidden_index is None
            assert torch.equal(received.input_ids, expected.input_ids)
            real = batch.attention_mask.bool()
            assert torch.equal(received.hidden[real], expected.hidden[real])
            assert torch.equal(received.hidden[real], states[name][batch.hidden_index[real]])
