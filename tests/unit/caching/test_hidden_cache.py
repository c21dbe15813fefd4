"""The hidden-state cache in runs: when it is filled and used, and what is held in memory."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.trainer.states import RunningStage
from safetensors.torch import load_file
from torch import Tensor

from lpt.caching.entry import CacheKey
from lpt.caching.precompute import TextCollator
from lpt.caching.store import HiddenCache
from lpt.config.validation import reason_not_to_cache
from lpt.data.batching import Collator
from lpt.data.datamodule import LatePromptData
from lpt.data.packing import PackedTokens
from lpt.data.templates import Encoded
from lpt.errors import ConfigError
from lpt.experiment import run
from lpt.methods.late_prompt import Batch, LabelScorer, LatePrompt
from lpt.models.families import FAMILIES
from lpt.models.generators import build_generator
from lpt.models.split import SplitModel
from lpt.training.build import build_data, load_into_memory
from lpt.training.plan import prepare
from tests.conftest import Compose, MakeConfig
from tests.support.tiny import tiny_model

MASKED = Encoded([[5, 6, 7, 8], [5, 9], [5, 6, 7, 8, 9, 10]], mask_at=[2, 1, 4])


CAUSAL = Encoded(
    [[5, 6, 7, 8], [5, 9], [5, 6, 7]],
    endings=[[[20, 2], [21, 2]], [[20, 2], [21, 22, 2]], [[23], [24]]],
)


def kept(folder: Path) -> dict[tuple[int, str], Tensor]:
    """The hidden states of all entries, by layer and token ids."""
    entries = HiddenCache(folder, 1).entries()
    return {(e.recipe["layer"], e.recipe["tokens"]): e.load() for e in entries}


def refuse_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on the lower stack must not be run."""

    def refuse(*_: object) -> None:
        raise AssertionError("the text was read again")

    monkeypatch.setattr(SplitModel, "read", refuse)
    monkeypatch.setattr(SplitModel, "read_layers", refuse)


@pytest.mark.parametrize("encoded", [MASKED, CAUSAL])
def test_rows_to_read_hold_every_token_once(encoded: Encoded) -> None:
    packed = PackedTokens(encoded, pad_id=0)
    batch = TextCollator(packed)([2, 0, 1])
    kept = batch.places[batch.attention_mask.bool()]
    assert sorted(kept.tolist()) == list(range(packed.tokens))
    assert torch.equal(batch.input_ids[batch.attention_mask.bool()].int(), packed.ids[kept])


@pytest.mark.parametrize("over", ["label_words", "vocabulary"])
@pytest.mark.parametrize("family", FAMILIES)
def test_cached_training_is_uncached_training(family: str, over: str) -> None:
    """The same batches, 50 steps, without dropout: the same losses to 1e-5."""
    kind = FAMILIES[family].kind
    encoded = MASKED if kind == "masked" else CAUSAL
    split = SplitModel(tiny_model(family), 3, word_ids=[7, 8] if kind == "masked" else None)
    packed = PackedTokens(encoded, split.config.pad_token_id)
    matrix = torch.empty(packed.tokens, 32)
    for part in ([1, 2], [0]):  # other batches than those that train: other padding
        text = TextCollator(packed)(part)
        real = text.attention_mask.bool()
        matrix[text.places[real]] = split.read(*text[:3])[real]

    def losses(hidden: Tensor | None) -> list[float]:
        torch.manual_seed(3)
        generator = build_generator("appg", hidden_size=32, length=3, bottleneck=6)
        model = LatePrompt(split, generator, frozen_dropout="none").train()
        score_all = over == "label_words"
        collate = Collator(packed, [0, 1, 1], [0, 1, 2], [7, 8], score_all=score_all, hidden=hidden)
        scorer = LabelScorer(kind, [7, 8])
        optimizer = torch.optim.AdamW(generator.parameters(), lr=1e-2)
        curve = []
        for _ in range(50):
            batch = collate([0, 1, 2])
            assert (batch.hidden is None) == (hidden is None)
            words_only = scorer.words_only and over == "label_words"
            loss = scorer.loss(model(batch, words_only=words_only), batch, over)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curve.append(loss.item())
        return curve

    uncached = losses(None)
    split.release_lower()
    assert losses(matrix) == pytest.approx(uncached, abs=1e-5)
    assert uncached[-1] < uncached[0]


@pytest.mark.parametrize("model", ["masked", "causal"])
def test_runs_with_and_without_cache_agree(
    toy: MakeConfig,
    tmp_path: Path,
    model: str,
) -> None:
    settings = ("model.dropout=none", "prompt.dropout=0", "overwrite=true")
    plain = run(toy(model, "cache=off", *settings))
    folder = f"cache.dir={tmp_path / 'cache'}"
    built = run(toy(model, "cache=on", folder, *settings))
    reused = run(toy(model, "cache=on", folder, *settings))
    assert plain is not None
    assert built is not None
    assert reused is not None
    assert built["test"] == reused["test"] == plain["test"]
    assert built["zero_shot"] == plain["zero_shot"]
    assert built["parameters"] == plain["parameters"]
    assert len(HiddenCache(tmp_path / "cache", 1).entries()) == 3


def test_lower_stack_is_not_run_when_everything_is_cached(
    toy: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = toy("masked", "cache=on", f"cache.dir={tmp_path / 'cache'}", "overwrite=true")
    first = run(config)
    refuse_to_read(monkeypatch)
    assert first is not None
    again = run(config)
    assert again is not None
    assert again["test"] == first["test"]


def test_a_set_of_which_little_is_seen_is_not_read(
    toy: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Unless all of it is asked for, or has been read before."""
    folder = f"cache.dir={tmp_path / 'cache'}"
    little = ("data.batch_size=4", "overwrite=true", folder)  # 16 of 80
    for mode, sets in (("auto", ["dev", "test"]), ("on", ["dev", "test", "train"])):
        for _ in range(2):
            metrics = run(toy("masked", *little, f"cache={mode}"))
            assert metrics is not None
            assert metrics["cache"]["sets"] == sets
    assert "train: training sees 16 of 80 examples (cache.mode=on reads them all)" in caplog.text
    metrics = run(toy("masked", *little))
    assert metrics is not None
    assert metrics["cache"]["sets"] == ["dev", "test", "train"]


def test_generators_seeds_and_lengths_share_an_entry(
    toy: MakeConfig,
    tmp_path: Path,
) -> None:
    folder = f"cache.dir={tmp_path / 'cache'}"
    for change in ("prompt=mppg", "seed=5", "prompt.length=2", "optim.lr=0.1"):
        run(toy("masked", "cache=on", folder, "overwrite=true", change))
    assert len(HiddenCache(tmp_path / "cache", 1).entries()) == 3
    run(toy("masked", "cache=on", folder, "overwrite=true", "prompt.layer=2"))
    assert len(HiddenCache(tmp_path / "cache", 1).entries()) == 6


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_a_full_disk_leaves_nothing(
    toy: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    mode: str,
) -> None:
    """The second of the files finds no room."""
    allocate, calls = os.posix_fallocate, []

    def full(*arguments: int) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        allocate(*arguments)

    monkeypatch.setattr(os, "posix_fallocate", full)
    config = toy("masked", f"cache={mode}", f"cache.dir={tmp_path / 'cache'}")
    if mode == "on":
        with pytest.raises(ConfigError, match="No space left"):
            run(config)
    else:
        metrics = run(config)
        assert metrics is not None
        assert metrics["cache"]["sets"] == []
        assert "No space left" in metrics["cache"]["why_not"]
        assert "No space left" in caplog.text
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_an_interrupted_build_leaves_nothing(
    toy: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "cache"
    config = toy("masked", "cache=on", f"cache.dir={folder}")

    def interrupt(*_: object) -> None:
        raise RuntimeError("pulled the plug")

    monkeypatch.setattr(SplitModel, "read_layers", interrupt)
    with pytest.raises(RuntimeError, match="pulled the plug"):
        run(config)
    assert not [path for path in folder.iterdir() if path.is_dir()]


def test_a_sweep_over_layers_stays_within_the_budget(toy: MakeConfig, tmp_path: Path) -> None:
    """It is for one layer and a little more; the sets of a run are built at the same time."""
    data = build_data(toy(), prepare(toy()))
    size = sum(packed.tokens for packed in data.packed.values()) * 32 * 4
    cache = HiddenCache(tmp_path / "cache", size + 100)
    for layer in (2, 3, 4):
        budget = (f"cache.dir={cache.folder}", f"cache.max_gb={cache.max_bytes / 1e9}")
        run(toy("masked", "cache=on", f"prompt.layer={layer}", "overwrite=true", *budget))
        assert sum(entry.size for entry in cache.entries()) <= cache.max_bytes
        assert {entry.recipe["layer"] for entry in cache.entries()} == {layer}


def test_what_does_not_fit_is_not_kept(
    toy: MakeConfig,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics = run(toy("masked", f"cache.dir={tmp_path / 'cache'}", "cache.max_gb=1e-6"))
    assert metrics is not None
    assert "cache.max_gb" in caplog.text
    file = tmp_path / "file"
    file.write_text("")
    metrics = run(toy("masked", f"cache.dir={file / 'cache'}", "overwrite=true"))
    assert metrics is not None
    assert "not kept" in caplog.text


def test_an_entry_that_vanishes_costs_only_time(
    toy: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Another process may evict it between filling and opening: the lower stack stays then."""
    get = HiddenCache.get
    opened: list[str] = []

    def forgetful(self: HiddenCache, recipe: CacheKey, *wanted: Any, **_: bool) -> Tensor | None:
        opened.append(recipe.key())
        return get(self, recipe, *wanted) if opened.count(recipe.key()) < 2 else None

    monkeypatch.setattr(HiddenCache, "get", forgetful)
    assert run(toy("masked", f"cache.dir={tmp_path / 'cache'}")) is not None
    assert "gone again" in caplog.text


@pytest.mark.parametrize("model", ["masked", "causal"])
def test_one_run_reads_for_a_sweep_over_layers(
    toy: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    for layer in (2, 3, 4):
        run(toy(model, f"cache.dir={alone}", f"prompt.layer={layer}", "overwrite=true"))
    run(toy(model, f"cache.dir={together}", "cache.layers=[2,4]", "overwrite=true"))
    expected, found = kept(alone), kept(together)
    assert sorted(layer for layer, _ in found) == [2, 2, 2, 3, 3, 3, 4, 4, 4]
    assert set(found) == set(expected)
    for state, hidden in found.items():
        torch.testing.assert_close(hidden, expected[state], atol=1e-6, rtol=1e-5)
    refuse_to_read(monkeypatch)
    folder = f"cache.dir={together}"
    metrics = run(toy(model, "cache=on", folder, "prompt.layer=4", "overwrite=true"))
    assert metrics is not None
    assert metrics["cache"]["sets"] == ["dev", "test", "train"]


def test_other_layers_are_left_out_where_the_budget_is_for_one(
    toy: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = build_data(toy(), prepare(toy()))
    size = sum(packed.tokens for packed in data.packed.values()) * 32 * 4
    folder = tmp_path / "cache"
    budget = f"cache.max_gb={(size + 100) / 1e9}"
    metrics = run(toy("masked", "cache=on", f"cache.dir={folder}", "cache.layers=[2,4]", budget))
    assert metrics is not None
    assert metrics["cache"]["why_not"] is None
    assert metrics["cache"]["sets"] == ["dev", "test", "train"]
    assert [layer for layer, _ in kept(folder)] == [3, 3, 3]
    for layer in (2, 4):
        for name in ("train", "dev", "test"):
            assert f"Layer {layer}, {name} is not kept: it takes" in caplog.text


@pytest.mark.parametrize(("setting", "copied"), [("0", False), ("1e-6", False), ("2", True)])
def test_small_states_are_held_in_memory_and_large_ones_stay_on_disk(
    toy: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    copied: bool,
) -> None:
    used: list[dict[str, Tensor]] = []
    use_hidden = LatePromptData.use_hidden

    def note(self: LatePromptData, hidden: dict[str, Tensor]) -> None:
        use_hidden(self, hidden)
        used.append(self.hidden)

    monkeypatch.setattr(LatePromptData, "use_hidden", note)
    run(toy("masked", f"cache.dir={tmp_path / 'cache'}", f"cache.memory_gb={setting}"))
    on_disk, is_locked = used
    assert set(is_locked) == {"train", "dev", "test"}
    for name, hidden in is_locked.items():
        assert torch.equal(hidden, on_disk[name])
        assert (hidden.data_ptr() != on_disk[name].data_ptr()) == copied


@pytest.mark.parametrize(
    ("max_bytes", "held"),
    [(31, ""), (32, "dev"), (47, "dev"), (48, "train"), (80, "dev train"), (400, "dev train")],
)
def test_what_fits_is_held_in_memory_train_first(max_bytes: int, held: str) -> None:
    hidden = {"dev": torch.ones(2, 4), "test": torch.ones(200, 4), "train": torch.ones(3, 4)}
    placed = load_into_memory(hidden, max_bytes, torch.device("cpu"))
    copied = [name for name in hidden if placed[name].data_ptr() != hidden[name].data_ptr()]
    assert copied == held.split()
    assert all(torch.equal(placed[name], hidden[name]) for name in hidden)


@pytest.mark.parametrize("model", ["masked", "causal"])
def test_states_on_another_device_are_looked_up_there(toy: MakeConfig, model: str) -> None:
    config = toy(model, "data.eval_batch_size=5")
    data = build_data(config, prepare(config))
    sets = data.packed.items()
    states = {name: torch.randn(packed.tokens, 3) for name, packed in sets}
    data.trainer = trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    for stage, name, make in (
        (RunningStage.TRAINING, "train", data.train_dataloader),
        (RunningStage.SANITY_CHECKING, "dev", data.val_dataloader),
        (RunningStage.VALIDATING, "dev", data.val_dataloader),
        (RunningStage.TESTING, "test", data.test_dataloader),
    ):
        trainer.state.stage = stage
        data.use_hidden(states)
        gathered = list(make())
        data.use_hidden({name: hidden.to("meta") for name, hidden in states.items()})
        sent = list(make())
        data.use_hidden(states)  # in place of a device that is not there
        for batch, expected in zip(sent, gathered, strict=True):
            assert batch.hidden is None
            assert batch.places.shape == batch.input_ids.shape
            filled_in = data.on_after_batch_transfer(batch, 0)
            assert filled_in.places is None
            real = batch.attention_mask.bool()
            assert torch.equal(filled_in.hidden[real], expected.hidden[real])
            assert torch.equal(filled_in.hidden[real], states[name][batch.places[real]])
            assert torch.equal(filled_in.input_ids, expected.input_ids)


def test_a_run_fills_in_what_is_looked_up_on_the_device(
    toy: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through Lightning's own hook, in every stage; the lower stack is gone by then."""
    call = Collator.__call__

    def send_places(self: Collator, examples: list[int]) -> Batch:
        self.hidden, self.places = None, True
        return call(self, examples)

    settings = ("cache=on", f"cache.dir={tmp_path / 'cache'}", "overwrite=true")
    results = []
    for _ in range(2):
        metrics = run(toy("masked", "trainer.num_sanity_val_steps=1", *settings))
        assert metrics is not None
        adapter = load_file(tmp_path / "run" / "adapter" / "adapter.safetensors")
        results.append((metrics["zero_shot"], metrics["test"], metrics["dev_history"], adapter))
        monkeypatch.setattr(Collator, "__call__", send_places)
    (*scores, adapter), (*scores_again, adapter_again) = results
    assert scores_again == scores
    for name, tensor in adapter.items():
        assert torch.equal(adapter_again[name], tensor)


def test_nothing_is_cached_where_the_reading_layers_are_sharded(composed: Compose) -> None:
    config = composed("strategy=fsdp", "strategy.accelerator=gpu")
    assert "fsdp" in (reason_not_to_cache(config, 3) or "")
    assert reason_not_to_cache(composed(), 3) is None
