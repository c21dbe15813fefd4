"""What is cached, what is not and why, and what is held in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lpt.caching.fill import load_into_memory
from lpt.caching.policy import check_cache, reason_not_to_cache, sets_to_skip
from lpt.caching.store import HiddenCache
from lpt.errors import ConfigError, Problems
from lpt.training.plan import prepare
from tests.conftest import MakeConfig
from tests.support.caching import Filling, fill_as_run, folders, stored
from tests.support.configs import configured
from tests.support.processes import no_room
from tests.support.trained import build_data

ALL_SETS = ["dev", "test", "train"]


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ([], None),
        (["model.dropout=all"], "model.dropout=all"),
        (["strategy=fsdp", "strategy.accelerator=gpu"], "strategy=fsdp"),
        (["prompt=static", "prompt.layer=1"], "at layer 1"),
        (["prompt=idpg", "prompt.layer=1"], None),
    ],
)
def test_configurations_that_cannot_be_cached(overrides: list[str], reason: str | None) -> None:
    config, problems = configured("cache=on", "prompt.layer=3", *overrides), Problems()
    found = reason_not_to_cache(config, config.prompt.layer)
    assert reason is None if found is None else (reason or "-") in found
    check_cache(config, None, problems)
    assert [problem.where for problem in problems.found] == (["cache.mode"] if reason else [])


@pytest.mark.parametrize("layer", [1, 5, -1])
def test_layers_to_cache_exist_and_are_above_the_first(layer: int) -> None:
    problems = Problems()
    check_cache(configured(f"cache.layers=[3,{layer}]"), 4, problems)
    [problem] = problems.found
    assert (problem.where, problem.given) == ("cache.layers", str(layer))
    assert "2 to 4" in problem.expected


@pytest.mark.parametrize(
    ("overrides", "skipped"),
    [
        ([], True),  # 4 steps of 16, of 257 examples
        (["trainer.accumulate_grad_batches=2"], False),
        (["strategy=ddp", "strategy.devices=2"], False),
        (["trainer.max_steps=null", "trainer.max_epochs=1"], False),
        (["cache=on"], False),
        (["cache.layers=[2]"], False),
    ],
)
def test_a_training_set_of_which_little_is_seen_is_skipped(
    toy: MakeConfig, overrides: list[str], skipped: bool
) -> None:
    config = toy("masked", *overrides)
    assert ("train" in sets_to_skip(config, 257)) == skipped
    assert not sets_to_skip(config, 256)


def test_skipped_sets_are_used_where_they_are_cached(
    toy: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    little = ("data.batch_size=4", f"cache.dir={tmp_path / 'cache'}")  # 16 of 80 examples
    usage, filled = fill_as_run(toy("masked", *little))
    assert usage.sets == ["dev", "test"]
    assert usage.reason is not None
    assert "train: training sees 16 of 80 examples (cache.mode=on caches them all)" in usage.reason
    assert usage.reason in caplog.text
    assert filled.split.lower is not None
    for mode in ("on", "auto"):
        usage, filled = fill_as_run(toy("masked", *little, f"cache={mode}"))
        assert (usage.sets, usage.reason) == (ALL_SETS, None)
        assert filled.split.lower is None


def test_nothing_is_cached_in_mode_off(toy: MakeConfig, tmp_path: Path) -> None:
    usage, filled = fill_as_run(toy("masked", "cache=off", f"cache.dir={tmp_path / 'cache'}"))
    assert (usage.sets, usage.reason) == ([], "cache.mode=off")
    assert filled.split.lower is not None
    assert all(batch.hidden is None for batch in filled.data.train_dataloader())
    assert not (tmp_path / "cache").exists()


@pytest.fixture
def one_layer(toy: MakeConfig) -> int:
    """Size of the hidden states in front of one layer, in bytes."""
    config = toy()
    packed = build_data(config, prepare(config)).packed.values()
    return sum(tokens.num_tokens for tokens in packed) * 32 * 4


def test_runs_at_several_layers_stay_within_the_budget(
    toy: MakeConfig, tmp_path: Path, one_layer: int
) -> None:
    """It suffices for one layer, whose sets are computed at the same time."""
    cache = HiddenCache(tmp_path / "cache", one_layer + 100)
    budget = (f"cache.dir={cache.folder}", f"cache.max_gb={cache.max_bytes / 1e9}")
    for layer in (2, 3, 4):
        fill_as_run(toy("masked", "cache=on", f"prompt.layer={layer}", *budget))
        assert [found for found, _ in stored(cache.folder)] == [layer] * 3


def test_other_layers_are_left_out_first(
    toy: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture, one_layer: int
) -> None:
    folder, budget = tmp_path / "cache", f"cache.max_gb={(one_layer + 100) / 1e9}"
    config = toy("masked", "cache=on", f"cache.dir={folder}", "cache.layers=[2,4]", budget)
    usage, _ = fill_as_run(config)
    assert (usage.sets, usage.reason) == (ALL_SETS, None)
    assert [layer for layer, _ in stored(folder)] == [3, 3, 3]
    for layer in (2, 4):
        for name in ALL_SETS:
            assert f"Layer {layer} of {name} is not cached: " in caplog.text


def test_what_cannot_be_stored_is_not_cached(toy: MakeConfig, tmp_path: Path) -> None:
    folder = f"cache.dir={tmp_path / 'cache'}"
    usage, _ = fill_as_run(toy("masked", folder, "cache.max_gb=1e-6"))
    assert usage.sets == []
    assert "cache.max_gb" in (usage.reason or "")
    with pytest.raises(ConfigError, match=r"cache\.max_gb"):
        fill_as_run(toy("masked", folder, "cache.max_gb=1e-6", "cache=on"))
    file = tmp_path / "file"
    file.write_text("")
    usage, filled = fill_as_run(toy("masked", f"cache.dir={file / 'cache'}"))
    assert (usage.sets, filled.split.lower is None) == ([], False)


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_a_full_disk_leaves_nothing(toy: MakeConfig, tmp_path: Path, mode: str) -> None:
    """Only the largest of the sets finds no room."""
    filling = Filling(toy("masked", f"cache={mode}", f"cache.dir={tmp_path / 'cache'}"))
    sizes = {name: tokens.num_tokens * 32 * 4 for name, tokens in filling.data.packed.items()}
    with no_room() as limit:
        limit(sizes["train"] - 1)
        if mode == "on":
            with pytest.raises(ConfigError, match="File too large"):
                filling.fill()
        else:
            usage = filling.fill()
            assert usage.sets == []
            assert "File too large" in (usage.reason or "")
    assert not folders(HiddenCache(tmp_path / "cache", 1))


@pytest.mark.parametrize(
    ("max_bytes", "expected"),
    [(31, ""), (32, "dev"), (47, "dev"), (48, "train"), (80, "dev train"), (400, "dev train")],
)
def test_sets_that_fit_are_held_in_memory_train_first(max_bytes: int, expected: str) -> None:
    hidden = {"dev": torch.ones(2, 4), "test": torch.ones(200, 4), "train": torch.ones(3, 4)}
    loaded = load_into_memory(hidden, max_bytes, torch.device("cpu"))
    copied = [name for name in hidden if loaded[name].data_ptr() != hidden[name].data_ptr()]
    assert copied == expected.split()
    assert all(torch.equal(loaded[name], hidden[name]) for name in hidden)
