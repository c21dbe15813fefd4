"""Filling the cache, and training from it."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lpt.caching.entry import SetLayer
from lpt.caching.precompute import HiddenStatePrecomputer
from lpt.caching.store import HiddenCache
from lpt.data.batching import Collator
from lpt.data.packing import PackedTokens
from lpt.data.templates import Encoded
from lpt.methods.late_prompt import LatePrompt
from lpt.models.families import FAMILIES
from lpt.models.generators import build_generator
from lpt.models.scoring import LabelScorer
from lpt.models.split import SplitModel
from tests.conftest import MakeConfig
from tests.support.caching import Filling, fill_as_run, folders, other_key, small_trainer, stored
from tests.support.processes import ended, forked
from tests.support.tiny import tiny_model

MASKED = Encoded([[5, 6, 7, 8], [5, 9], [5, 6, 7, 8, 9, 10]], mask_index=[2, 1, 4])
CAUSAL = Encoded(
    [[5, 6, 7, 8], [5, 9], [5, 6, 7]],
    label_parts=[[[20, 2], [21, 2]], [[20, 2], [21, 22, 2]], [[23], [24]]],
)


@pytest.mark.parametrize("loss", ["label_words", "vocabulary"])
@pytest.mark.parametrize("family", FAMILIES)
def test_training_from_the_cache_equals_training_without(
    family: str, loss: str, tmp_path: Path
) -> None:
    """On the same batches, without dropout; the cache was filled in batches of other lengths."""
    kind = FAMILIES[family].kind
    split = SplitModel(tiny_model(family), 3, word_ids=[7, 8] if kind == "masked" else None)
    packed = PackedTokens([MASKED if kind == "masked" else CAUSAL], int(split.config.pad_token_id))
    key, name = other_key(shape=(packed.num_tokens, 32)), SetLayer("train", 3)
    cache = HiddenCache(tmp_path, 10**9)
    precomputer = HiddenStatePrecomputer(split, {"train": packed}, 2, cache, {name: key}, "", {})
    cached = precomputer.compute(small_trainer())

    def train(hidden: Tensor | None) -> list[float]:
        torch.manual_seed(3)
        generator = build_generator("appg", hidden_size=32, length=3, bottleneck=6)
        model = LatePrompt(split, generator, frozen_dropout="none").train()
        score_all = loss == "label_words"
        collate = Collator(packed, [0, 1, 1], [0, 1, 2], [7, 8], score_all=score_all, hidden=hidden)
        scorer = LabelScorer(kind, [7, 8])
        optimizer = torch.optim.AdamW(generator.parameters(), lr=1e-2)
        losses = []
        for _ in range(20):
            batch = collate([0, 1, 2])
            assert (batch.hidden is None) == (hidden is None)
            logits = model(batch, words_only=scorer.words_only and loss == "label_words")
            value = scorer.loss(logits, batch, loss)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            losses.append(value.item())
        return losses

    uncached = train(None)
    split.release_lower()
    assert train(cached[name]) == pytest.approx(uncached, abs=1e-5)
    assert uncached[-1] < uncached[0]


@pytest.mark.parametrize("model", ["masked", "causal"])
def test_one_pass_fills_several_layers(toy: MakeConfig, tmp_path: Path, model: str) -> None:
    for layer in (2, 3, 4):
        fill_as_run(toy(model, f"cache.dir={tmp_path / 'single'}", f"prompt.layer={layer}"))
    fill_as_run(toy(model, f"cache.dir={tmp_path / 'together'}", "cache.layers=[2,4]"))
    single, together = stored(tmp_path / "single"), stored(tmp_path / "together")
    assert sorted(layer for layer, _ in single) == [2, 2, 2, 3, 3, 3, 4, 4, 4]
    assert set(together) == set(single)
    for name, hidden in together.items():
        torch.testing.assert_close(hidden, single[name], atol=1e-6, rtol=1e-5)


def test_cached_layers_are_not_computed_again(toy: MakeConfig, tmp_path: Path) -> None:
    """Whatever generator, seed, prompt length or learning rate the next run has."""
    folder = f"cache.dir={tmp_path / 'cache'}"
    fill_as_run(toy("masked", folder, "cache.layers=[4]"))
    for changes in (
        ("prompt=mppg", "prompt.length=2", "seed=5", "optim.lr=0.1"),
        ("prompt.layer=4", "cache=on"),
    ):
        usage, filled = fill_as_run(toy("masked", folder, *changes))
        assert usage.sets == ["dev", "test", "train"]
        assert filled.rows == []
        assert filled.split.lower is None
        data = filled.data
        for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
            assert all(batch.hidden is not None for batch in loader)
    _, filled = fill_as_run(toy("masked", folder, "prompt.layer=2"))
    assert sum(filled.rows) == 128


@pytest.mark.parametrize("layer", [1, 3])
def test_final_states_are_cached_for_prompts_that_read_them(
    toy: MakeConfig, tmp_path: Path, layer: int
) -> None:
    folder = tmp_path / "cache"
    changes = ("prompt=idpg", f"prompt.layer={layer}", f"cache.dir={folder}")
    usage, filled = fill_as_run(toy("masked", *changes))
    assert usage.sets == ["dev", "test", "train"]
    assert usage.reason is None
    assert {of for of, _ in stored(folder)} == ({5} if layer == 1 else {3, 5})
    assert (filled.split.lower is None) == (layer > 1)
    for loader in (filled.data.train_dataloader(), filled.data.test_dataloader()):
        for batch in loader:
            assert batch.final.shape == (len(batch.labels), 1, 32)
            assert (batch.hidden is None) == (layer == 1)


def test_processes_wait_for_each_other(toy: MakeConfig, tmp_path: Path) -> None:
    """Two start at the same time: one computes, the other uses its entries."""
    config = toy("masked", f"cache.dir={tmp_path / 'cache'}")
    ready = multiprocessing.get_context("fork").Barrier(2)

    def fill(result: Path) -> None:
        filling = Filling(config)
        ready.wait(60)
        result.write_text(json.dumps([filling.fill().sets, sum(filling.rows)]))

    results = [tmp_path / "first.json", tmp_path / "second.json"]
    children = [forked(partial(fill, result), tmp_path / "errors.txt") for result in results]
    assert [ended(child) for child in children] == [0, 0]
    sets, rows = zip(*(json.loads(result.read_text()) for result in results), strict=True)
    assert sets == (["dev", "test", "train"],) * 2
    assert sum(rows) == 128


@pytest.mark.parametrize("failing", ["open", "map", "map a new entry"])
def test_a_cache_that_cannot_be_read_is_not_used_and_kept(
    *,
    toy: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    failing: str,
) -> None:
    folder = f"cache.dir={tmp_path / 'cache'}"
    fill_as_run(toy("masked", folder))
    cached = folders(HiddenCache(tmp_path / "cache", 1))
    layer = "prompt.layer=4" if failing == "map a new entry" else "prompt.layer=3"
    filling = Filling(toy("masked", folder, layer))
    caplog.clear()
    with monkeypatch.context() as patched:
        if failing == "open":
            patched.setattr(Path, "read_bytes", unreadable)
        else:
            patched.setattr(torch, "from_file", unmapped)
        usage = filling.fill()
    assert usage.sets == []
    assert "Too many open files" in (usage.reason or "")
    [warning] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "Hidden states are not cached: dev: " in warning.getMessage()
    assert folders(HiddenCache(tmp_path / "cache", 1)) == cached
    assert filling.split.lower is not None  # still needed
    assert fill_as_run(toy("masked", folder))[1].rows == []


def unreadable(path: Path) -> bytes:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))


def unmapped(file: str, **_: object) -> Tensor:
    raise RuntimeError(f"unable to open file <{file}> in read-only mode: Too many open files (24)")


def test_an_interrupted_precomputation_leaves_nothing(toy: MakeConfig, tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise RuntimeError("interrupted")

    filling = Filling(toy("masked", "cache=on", f"cache.dir={tmp_path / 'cache'}"))
    filling.embeddings.register_forward_hook(interrupt)
    with pytest.raises(RuntimeError, match="interrupted"):
        filling.fill()
    assert not folders(HiddenCache(tmp_path / "cache", 1))
