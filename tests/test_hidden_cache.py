"""The hidden-state cache: what is stored, when it is used, what is refused."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.trainer.states import RunningStage
from safetensors.torch import load_file
from torch import Tensor

from lpt.builders import at_hand, build_data, build_model
from lpt.cache import main
from lpt.config import Config
from lpt.data.batching import Collator
from lpt.data.datamodule import LatePromptData
from lpt.data.hidden_cache import HiddenCache
from lpt.data.hidden_entry import Entry, Recipe
from lpt.data.packing import PackedTokens
from lpt.data.templates import Encoded
from lpt.errors import ConfigError
from lpt.experiment import run
from lpt.models.families import FAMILIES
from lpt.models.generators import build_generator
from lpt.models.late_prompt import Batch, LabelScorer, LatePrompt
from lpt.models.split import SplitModel
from lpt.plan import prepare
from lpt.reading import TextCollator, read_ahead
from lpt.validation import reason_not_to_cache
from tests.conftest import Compose, MakeConfig
from tests.tiny import tiny_model

RECIPE = Recipe("weights", 3, "float32", "32-true", "sdpa", "tokens", "cpu", "torch 1")
SHAPE = (4, 6)
MASKED = Encoded([[5, 6, 7, 8], [5, 9], [5, 6, 7, 8, 9, 10]], mask_at=[2, 1, 4])
CAUSAL = Encoded(
    [[5, 6, 7, 8], [5, 9], [5, 6, 7]],
    endings=[[[20, 2], [21, 2]], [[20, 2], [21, 22, 2]], [[23], [24]]],
)


def filled(cache: HiddenCache, recipe: Recipe = RECIPE, value: float = 1.0) -> Tensor:
    """Build an entry of that value."""
    unfinished = cache.begin(recipe, SHAPE, torch.float32)
    matrix = cache.fill(unfinished, SHAPE, torch.float32)
    matrix.fill_(value)
    cache.finish(unfinished, recipe, "test", SHAPE, torch.float32)
    return matrix.clone()


def got(cache: HiddenCache, recipe: Recipe = RECIPE) -> Tensor | None:
    return cache.get(recipe, SHAPE, torch.float32)


def redescribed(folder: Path, **changes: Any) -> None:
    """As someone's editor would change an entry's description; 1e999 and the like in quotes."""
    file = folder / "entry.json"
    text = json.dumps(json.loads(file.read_text()) | changes)
    file.write_text(text.replace('"!', "").replace('!"', ""))


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


@pytest.fixture
def cache(tmp_path: Path) -> HiddenCache:
    return HiddenCache(tmp_path / "cache", max_bytes=10**9)


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
    split.free_below()
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


def test_what_an_entry_depends_on() -> None:
    changes = {
        "weights": "other", "layer": 4, "dtype": "bfloat16", "precision": "bf16-mixed",
        "attention": "eager", "tokens": "other", "device": "cuda", "versions": "torch 2",
    }  # fmt: skip
    keys = {replace(RECIPE, **{name: value}).key() for name, value in changes.items()}
    assert len(keys | {RECIPE.key()}) == 1 + len(changes)
    assert set(changes) == set(RECIPE.__dataclass_fields__)
    other = Encoded([[5, 6, 7, 8], [5, 9], [5, 6, 7, 8, 9, 11]], mask_at=[2, 1, 4])
    assert PackedTokens(MASKED, 0).digest() != PackedTokens(other, 0).digest()


def test_round_trip(cache: HiddenCache) -> None:
    assert got(cache) is None
    matrix = filled(cache)
    found = got(cache)
    assert found is not None
    assert torch.equal(found, matrix)
    assert got(cache, replace(RECIPE, layer=4)) is None


@pytest.mark.parametrize("damage", ["flip", "truncate", "grow", "missing", "foreign", "json"])
def test_damage_is_found_and_never_read(
    cache: HiddenCache, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    filled(cache)
    folder = cache.folder / RECIPE.key()
    file, entry = folder / "hidden.bin", folder / "entry.json"
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[17] ^= 1
        file.write_bytes(data)
    elif damage == "truncate":
        file.write_bytes(data[:-4])
    elif damage == "grow":
        file.write_bytes(data + b"0000")
    elif damage == "missing":
        file.unlink()
    elif damage == "foreign":
        known = json.loads(entry.read_text())
        known["recipe"]["layer"] = 7
        entry.write_text(json.dumps(known))
    else:
        entry.write_text("{")
    assert got(cache) is None
    assert "built anew" in caplog.text
    assert not folder.exists()
    filled(cache, value=2.0)
    rebuilt = got(cache)
    assert rebuilt is not None
    assert (rebuilt == 2.0).all()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"shape": [6, 4]}, "foreign: float32 [6, 4] instead of float32 [4, 6]"),  # the same size
        ({"shape": [8, 6], "dtype": "bfloat16"}, "foreign: bfloat16 [8, 6]"),
        ({"dtype": "float16"}, "foreign: float16 [4, 6]"),
        ({"shape": [-4, -6]}, "shape: [-4, -6]"),
        ({"shape": [0, 6]}, "shape: [0, 6]"),
        ({"shape": [4]}, "shape: [4]"),
        ({"shape": [4.0, 6]}, "shape: [4.0, 6]"),
        ({"shape": "!NaN!"}, "shape: nan"),
        ({"shape": ["!NaN!", 6]}, "shape: [nan, 6]"),
        ({"shape": ["!1e999!", 6]}, "shape: [inf, 6]"),
        ({"shape": [10**300, 6]}, "foreign: float32 [1000"),
        ({"shape": [10**400, 6]}, "a number of more than 308 digits"),
        ({"shape": ["!" + "9" * 5000 + "!", 6]}, "digits"),
        ({"dtype": "load"}, "dtype: 'load'"),
        ({"format": 1}, "format: 1"),
        ({"format": True}, "format: True"),
    ],
)
def test_an_entry_of_another_shape_or_type_is_told_and_never_read(
    cache: HiddenCache, caplog: pytest.LogCaptureFixture, changes: dict[str, Any], told: str
) -> None:
    filled(cache)
    folder = cache.folder / RECIPE.key()
    redescribed(folder, **changes)
    assert got(cache) is None
    assert f"Hidden states in {folder} are built anew: " in caplog.text
    assert told in caplog.text
    assert len(caplog.text) < 600
    filled(cache, value=2.0)
    rebuilt = got(cache)
    assert rebuilt is not None
    assert (rebuilt == 2.0).all()


def test_states_are_held_to_what_is_wanted(cache: HiddenCache) -> None:
    """A sound entry is none for who wants another shape or type."""
    wanted: list[tuple[tuple[int, int], torch.dtype]] = [
        ((6, 4), torch.float32),
        ((4, 6), torch.bfloat16),
        ((4, 5), torch.float32),
    ]
    for shape, dtype in wanted:
        filled(cache)
        assert cache.get(RECIPE, shape, dtype) is None
    filled(cache)
    assert got(cache) is not None


HUGE: list[dict[str, Any]] = [
    {"shape": [10**12, 10**6]},
    {"shape": [10**400, 10**400]},
    {"shape": [-(10**12), 10**6]},
    {"shape": ["!NaN!", "!1e999!"]},
]


@pytest.mark.parametrize("changes", HUGE)
def test_a_description_frees_nothing_that_is_not_there(
    cache: HiddenCache, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """What a full disk lacks is not to be had by evicting an entry that says that it is huge."""
    filled(cache)
    filled(cache, replace(RECIPE, layer=7))
    free = 2 << 30
    usage = shutil.disk_usage(cache.folder)._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    cache.max_bytes = 1 << 50
    wanted = 3 << 30
    assert "has free" in (cache.shortage(wanted) or "")
    redescribed(cache.folder / RECIPE.key(), **changes)
    assert "has free" in (cache.shortage(wanted) or "")
    assert cache.shortage(free // 4) is None


@pytest.mark.parametrize("changes", [*HUGE, {"shape": [2, 6]}, {"recipe": 3}, {"dtype": "float16"}])
def test_what_says_something_wrong_makes_room_first(
    cache: HiddenCache, changes: dict[str, Any]
) -> None:
    sound = [replace(RECIPE, layer=layer) for layer in (5, 6)]
    for recipe in (*sound, RECIPE):
        filled(cache, recipe)
    redescribed(cache.folder / RECIPE.key(), **changes)  # the one used last
    cache.max_bytes = 3 * 4 * SHAPE[0] * SHAPE[1]
    cache.make_room(1)
    assert sorted(path.name for path in cache.folder.glob("[!.]*")) == sorted(
        recipe.key() for recipe in sound
    )


def test_a_file_of_holes_costs_no_entry_its_place(cache: HiddenCache) -> None:
    """It says of itself, rightly, that it is larger than the whole cache, and takes no room."""
    sound = [replace(RECIPE, layer=layer) for layer in (5, 6)]
    for recipe in (*sound, RECIPE):
        filled(cache, recipe)
    folder, size = cache.folder / RECIPE.key(), 1 << 40
    os.truncate(folder / "hidden.bin", size)
    redescribed(folder, shape=[size // 4, 1])
    before = shutil.disk_usage(cache.folder).free
    cache.max_bytes = 1 << 60
    assert "has free" in (cache.shortage(before + size // 2) or "")
    cache.max_bytes = 4 * 4 * SHAPE[0] * SHAPE[1]
    cache.make_room(1)
    assert [got(cache, recipe) is not None for recipe in (*sound, RECIPE)] == [True, True, False]


def test_what_was_half_removed_is_in_nobodys_way(cache: HiddenCache) -> None:
    filled(cache)
    (cache.folder / RECIPE.key() / "entry.json").unlink()
    assert got(cache) is None
    filled(cache)
    assert got(cache) is not None


def test_an_entry_that_vanishes_while_it_is_opened_is_not_there(
    cache: HiddenCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process needs the room just then."""
    filled(cache)

    def evict(self: Entry, **_: bool) -> None:
        shutil.rmtree(self.path)

    monkeypatch.setattr(Entry, "problem", evict)
    assert got(cache) is None


def test_entries_of_another_version_are_rebuilt_and_make_room_first(cache: HiddenCache) -> None:
    filled(cache)
    other = replace(RECIPE, layer=9)
    filled(cache, other)
    file = cache.folder / RECIPE.key() / "entry.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 0}))
    assert [entry.path.name for entry in cache.entries()] == [other.key()]
    cache.max_bytes = 2 * 4 * SHAPE[0] * SHAPE[1]
    cache.make_room(1)
    assert [path.name for path in cache.folder.glob("[!.]*")] == [other.key()]
    filled(cache)
    assert got(cache) is not None


def test_what_a_killed_build_left_is_swept_and_a_living_one_is_not(cache: HiddenCache) -> None:
    dead, alive = replace(RECIPE, layer=7), replace(RECIPE, layer=8)
    left = cache.begin(dead, SHAPE, torch.float32)
    with cache.lock(alive):
        building = cache.begin(alive, SHAPE, torch.float32)
        assert not left.exists()
        filled(cache)
        assert building.exists()
    filled(cache, replace(RECIPE, layer=6))
    assert not building.exists()


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


def test_oldest_unused_entries_go_first(tmp_path: Path) -> None:
    size = SHAPE[0] * SHAPE[1] * 4
    cache = HiddenCache(tmp_path, max_bytes=3 * size)
    recipes = [replace(RECIPE, layer=i) for i in range(4)]
    for i, recipe in enumerate(recipes[:3]):
        filled(cache, recipe)
        os.utime(tmp_path / recipe.key() / "entry.json", (i, i))
    assert got(cache, recipes[0]) is not None  # used just now
    filled(cache, recipes[3])
    assert [got(cache, r) is not None for r in recipes] == [True, False, True, True]


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


def test_one_builds_the_other_waits(
    toy: MakeConfig,
    tmp_path: Path,
) -> None:
    cache = HiddenCache(tmp_path / "cache", 10**9)
    config: Config = toy("masked")
    plan = prepare(config)
    reads: list[int] = []
    results: list[str | None] = []

    class Counting(SplitModel):
        def read_layers(
            self, layers: Sequence[int], input_ids: Tensor, *text: Any
        ) -> dict[int, Tensor]:
            reads.append(len(input_ids))
            return super().read_layers(layers, input_ids, *text)

    splits = [build_model(config, plan)[0].split for _ in range(2)]

    def work(split: SplitModel) -> None:
        split.__class__ = Counting
        data = build_data(config, plan)
        trainer = Trainer(
            accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
        )
        done = read_ahead(split, data, trainer, cache, recipe=RECIPE, title="test")
        results.append(done)

    threads = [threading.Thread(target=work, args=(split,)) for split in splits]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [None, None]
    assert sum(reads) == sum(len(part) for _, part in plan.splits.items())


def test_clear_removes_everything(cache: HiddenCache) -> None:
    filled(cache)
    cache.begin(replace(RECIPE, layer=7), SHAPE, torch.float32)
    assert cache.clear() == 2
    assert not cache.entries()
    shutil.rmtree(cache.folder)
    assert cache.clear() == 0


def test_command_line(
    cache: HiddenCache, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    filled(cache)
    options = ["--dir", str(cache.folder)]
    assert main(["list", *options]) == 0
    assert RECIPE.key()[:6] in capsys.readouterr().out
    assert main(["verify", *options]) == 0
    (cache.folder / RECIPE.key() / "hidden.bin").write_bytes(b"torn")
    assert main(["verify", *options]) == 1
    assert "size is wrong" in capsys.readouterr().out
    assert main(["clear", *options]) == 0
    assert not cache.entries()
    assert main(["verify", *options]) == 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [*((changes, "") for changes in HUGE), ({"title": "[/bold] [red]x :100: \x1b[31m"}, "sound")],
)
def test_the_command_line_shows_whatever_an_entry_says(
    cache: HiddenCache,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    told: str,
) -> None:
    monkeypatch.setenv("COLUMNS", "4000")
    filled(cache)
    redescribed(cache.folder / RECIPE.key(), **changes)
    options = ["--dir", str(cache.folder)]
    assert main(["list", *options]) == 0
    shown = capsys.readouterr().out
    assert RECIPE.key()[:12] in shown
    assert main(["verify", *options]) == (0 if told == "sound" else 1)
    assert told in capsys.readouterr().out
    if "title" in changes:
        assert "[/bold] [red]x :100: \\x1b[31m" in shown
        assert "\x1b" not in shown


def test_a_folder_with_any_name_can_be_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    cache = HiddenCache(tmp_path / "[bold]a :100: [/b]", max_bytes=10**9)
    filled(cache)
    for action in ("list", "verify", "clear"):
        assert main([action, "--dir", str(cache.folder)]) == 0
        assert str(cache.folder) in capsys.readouterr().out


def test_an_entry_that_vanishes_costs_only_time(
    toy: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Another process may evict it between filling and opening: the lower stack stays then."""
    get = HiddenCache.get
    opened: list[str] = []

    def forgetful(self: HiddenCache, recipe: Recipe, *wanted: Any, **_: bool) -> Tensor | None:
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
    on_disk, in_use = used
    assert set(in_use) == {"train", "dev", "test"}
    for name, hidden in in_use.items():
        assert torch.equal(hidden, on_disk[name])
        assert (hidden.data_ptr() != on_disk[name].data_ptr()) == copied


@pytest.mark.parametrize(
    ("max_bytes", "held"),
    [(31, ""), (32, "dev"), (47, "dev"), (48, "train"), (80, "dev train"), (400, "dev train")],
)
def test_what_fits_is_held_in_memory_train_first(max_bytes: int, held: str) -> None:
    hidden = {"dev": torch.ones(2, 4), "test": torch.ones(200, 4), "train": torch.ones(3, 4)}
    placed = at_hand(hidden, max_bytes, torch.device("cpu"))
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
        metrics = run(toy("masked", "trainer.sanity_steps=1", *settings))
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
