"""The cache's entries: what is stored, what is rebuilt, what is evicted."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lpt.caching.store import HiddenCache
from lpt.files import GB
from tests.support.caching import KEY, edit_description, fill, folders, other_key

Damage = Callable[[Path], object]
CHANGES: dict[str, Any] = {
    "fingerprint": "other", "layer": 4, "tokens": "other", "shape": (6, 4), "dtype": "bfloat16",
    "precision": "bf16-mixed", "attention": "eager", "device": "cuda", "versions": "torch 2",
}  # fmt: skip


@pytest.fixture
def cache(tmp_path: Path) -> HiddenCache:
    return HiddenCache(tmp_path / "cache", max_bytes=GB)


def is_cached(cache: HiddenCache, **changes: Any) -> bool:
    return cache.get(other_key(**changes)) is not None


def test_every_field_of_a_key_changes_the_name() -> None:
    assert set(CHANGES) == set(type(KEY).model_fields)
    names = {other_key(**{field: value}).name for field, value in CHANGES.items()}
    assert len(names | {KEY.name}) == 1 + len(CHANGES)
    assert other_key().name == KEY.name


def test_round_trip(cache: HiddenCache) -> None:
    assert cache.get(KEY) is None
    expected = fill(cache)
    hidden = cache.get(KEY)
    assert hidden is not None
    assert torch.equal(hidden, expected)
    assert not is_cached(cache, layer=4)
    hidden.fill_(7.0)  # private to the process
    assert cache.get(KEY).eq(expected).all()  # type: ignore[union-attr]


def describe(**changes: Any) -> Damage:
    return lambda entry: edit_description(entry, **changes)


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda entry: (entry / "hidden.bin").write_bytes(bytes(96)), "its checksum is wrong"),
        (lambda entry: (entry / "hidden.bin").write_bytes(bytes(95)), "its size is wrong"),
        (lambda entry: (entry / "hidden.bin").unlink(), "its size is wrong"),
        (lambda entry: (entry / "entry.json").unlink(), "No such file"),
        (describe(key=other_key(shape=(6, 4)).model_dump()), "different cache key"),
        (describe(key=KEY.model_dump() | {"dtype": "load"}), "key.dtype"),
        (describe(format=2), "format"),
    ],
)
def test_damaged_entries_are_rebuilt(
    cache: HiddenCache, caplog: pytest.LogCaptureFixture, damage: Damage, fault: str
) -> None:
    fill(cache)
    entry = cache.folder / KEY.name
    damage(entry)
    assert cache.get(KEY) is None
    assert f"Rebuilding cached hidden states in {entry}: " in caplog.text
    assert fault in caplog.text
    fill(cache, value=2.0)
    assert cache.get(KEY).eq(2.0).all()  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["entry.json", "hidden.bin"])
@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.EIO, errno.ESTALE])
def test_an_entry_that_cannot_be_read_is_not_damaged(
    cache: HiddenCache, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    fill(cache)
    open_file = Path.open

    def fail(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == name:
            raise OSError(number, os.strerror(number), str(path))
        return open_file(path, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", fail)
        with pytest.raises(OSError, match=name) as raised:
            cache.get(KEY)
    assert raised.value.errno == number
    assert is_cached(cache)


def test_entries_of_other_users_are_used(
    cache: HiddenCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their times cannot be set."""

    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    fill(cache)
    monkeypatch.setattr(os, "utime", refuse)
    assert is_cached(cache)


@pytest.mark.parametrize("limit", [resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE])
def test_what_cannot_be_stored_evicts_at_most_what_it_needs(cache: HiddenCache, limit: int) -> None:
    """No open file, or no room in one."""
    cache.max_bytes = 2 * KEY.nbytes
    for layer in (1, 2):
        fill(cache, other_key(layer=layer))
    soft, hard = resource.getrlimit(limit)
    resource.setrlimit(limit, (0, hard))
    try:
        with pytest.raises(OSError, match=r"Too many open files|File too large"):
            cache.allocate(other_key(layer=3))
    finally:
        resource.setrlimit(limit, (soft, hard))
    lost = [layer for layer in (1, 2) if not is_cached(cache, layer=layer)]
    assert len(lost) == (1 if limit == resource.RLIMIT_FSIZE else 0)


def test_the_least_recently_used_entry_is_evicted_first(cache: HiddenCache) -> None:
    cache.max_bytes = 3 * KEY.nbytes
    for layer in (1, 2, 3):
        fill(cache, other_key(layer=layer))
        description = cache.folder / other_key(layer=layer).name / "entry.json"
        os.utime(description, (layer, layer))
    assert is_cached(cache, layer=1)  # used just now
    fill(cache, other_key(layer=4))
    assert [is_cached(cache, layer=layer) for layer in (1, 2, 3, 4)] == [True, False, True, True]


def test_a_shortage_of_room_is_explained(
    cache: HiddenCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "cache.max_gb) is 1.0 GB" in (cache.describe_shortage(2 * GB) or "")
    fill(cache)
    cache.max_bytes = 1000 * GB
    usage = shutil.disk_usage(cache.folder)._replace(free=2 * GB)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert cache.describe_shortage(GB) is None
    assert cache.describe_shortage(GB + KEY.nbytes) is None  # by evicting the entry
    assert "too full" in (cache.describe_shortage(GB + KEY.nbytes + 1) or "")


def test_entries_are_filled_where_blocks_cannot_be_reserved(
    cache: HiddenCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On macOS and Windows."""
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    fill(cache)
    assert is_cached(cache)


def test_unfinished_entries_of_killed_processes_are_removed(cache: HiddenCache) -> None:
    """Those of running processes, which hold a lock, are not."""
    abandoned, running = other_key(layer=7), other_key(layer=8)
    cache.allocate(abandoned)
    with cache.lock(running):
        cache.allocate(running)
        fill(cache)
        assert not cache.unfinished(abandoned).exists()
        assert cache.unfinished(running).exists()
    fill(cache)
    assert not cache.unfinished(running).exists()


def test_clear_removes_everything(cache: HiddenCache) -> None:
    assert cache.clear() == 0
    fill(cache)
    cache.allocate(other_key(layer=7))
    assert cache.clear() == 2
    assert not folders(cache)
