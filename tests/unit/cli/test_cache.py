"""lpt-cache list | verify | clear."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from lpt.caching.store import HiddenCache
from lpt.cli.cache import main
from tests.support.caching import KEY, edit_description, fill, folders


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HiddenCache:
    monkeypatch.setenv("COLUMNS", "4000")
    return HiddenCache(tmp_path / "[bold]a :100: [/b]", max_bytes=10**9)


def test_commands(cache: HiddenCache, capsys: pytest.CaptureFixture[str]) -> None:
    fill(cache)
    folder = cache.folder / KEY.name
    edit_description(folder, title="[/bold] [red]x :100: \x1b[31m")
    options = ["--dir", str(cache.folder)]
    assert main(["list", *options]) == 0
    output = capsys.readouterr().out
    assert str(cache.folder) in output
    assert KEY.name[:12] in output
    assert "[/bold] [red]x :100: \\x1b[31m, 4 tokens" in output
    assert "\x1b" not in output
    assert main(["verify", *options]) == 0
    assert "sound" in capsys.readouterr().out
    (folder / "hidden.bin").write_bytes(b"torn")
    assert main(["verify", *options]) == 1
    assert "size is wrong" in capsys.readouterr().out
    edit_description(folder, format=0)
    assert main(["verify", *options]) == 1
    assert "older format" in capsys.readouterr().out
    assert main(["clear", *options]) == 0
    assert "1 entries removed" in capsys.readouterr().out
    assert not folders(cache)
    assert main(["verify", *options]) == 0


def test_what_cannot_be_read_is_not_called_damaged(
    cache: HiddenCache, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    fill(cache)
    monkeypatch.setattr(Path, "open", refuse)
    assert main(["verify", "--dir", str(cache.folder)]) == 1
    output = capsys.readouterr().out
    assert "cannot be read: Permission denied" in output
    assert "damaged" not in output
