"""Entries of the hidden-state cache: what is stored, what is refused, what makes room."""

from __future__ import annotations

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
from torch import Tensor

from lpt.caching.entry import Entry
from lpt.caching.precompute import precompute
from lpt.caching.store import HiddenCache
from lpt.cli.cache import main
from lpt.config.schema import Config
from lpt.data.packing import PackedTokens
from lpt.data.templates import Encoded
from lpt.models.split import SplitModel
from lpt.training.build import build_data, build_model
from lpt.training.plan import prepare
from tests.conftest import MakeConfig
from tests.support.hidden_entries import HUGE, RECIPE, SHAPE, filled, got, redescribed


@pytest.fixture
def cache(tmp_path: Path) -> HiddenCache:
    return HiddenCache(tmp_path / "cache", max_bytes=10**9)


def test_what_an_entry_depends_on() -> None:
    changes = {
        "weights": "other", "layer": 4, "dtype": "bfloat16", "precision": "bf16-mixed",
        "attention": "eager", "tokens": "other", "device": "cuda", "versions": "torch 2",
    }  # fmt: skip
    keys = {replace(RECIPE, **{name: value}).key() for name, value in changes.items()}
    assert len(keys | {RECIPE.key()}) == 1 + len(changes)
    assert set(changes) == set(RECIPE.__dataclass_fields__)
    other = Encoded([[5, 6, 7, 8], [5, 9], [5, 6, 7, 8, 9, 11]], mask_at=[2, 1, 4])
    one = Encoded([*other.context[:2], [5, 6, 7, 8, 9, 10]], mask_at=other.mask_at)
    assert PackedTokens(one, 0).digest() != PackedTokens(other, 0).digest()


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
        done = precompute(split, data, trainer, cache, recipe=RECIPE, title="test")
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
