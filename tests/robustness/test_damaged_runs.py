"""Damaged files of an earlier start: named in one message, left as they are, not gone on with."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import toy_overrides
from tests.robustness.test_races import content
from tests.unit.config.test_config import ROOT

DEEP = 20_000
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "truncated": lambda whole: whole[: len(whole) // 2],
    "truncated late": lambda whole: whole[: len(whole) * 9 // 10],
    "not UTF-8": lambda whole: b"\xff\xfe" + whole,
    "NUL": lambda whole: b"\0" * len(whole),
    "a list": lambda _: b"[]",
    "a number": lambda _: b"7",
    "a text": lambda _: b'"text"',
    "hollow": lambda _: b"{}",
    "other keys": lambda _: b'{"test": 1, "sha256": 1}',
    "deep lists": lambda _: b"[" * DEEP,
    "deep maps": lambda _: b'{"a": ' * DEEP,
}


@pytest.fixture(scope="module")
def given(
    checkpoints: dict[str, Path], toy_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    """Arguments of a run that is over."""
    run_dir = f"run_dir={tmp_path_factory.mktemp('damaged') / 'run'}"
    given = [*toy_overrides(checkpoints, toy_data, "masked"), run_dir, "resume=auto"]
    with pytest.MonkeyPatch.context() as patch:
        assert train(given, patch) == 0
    return given


def train(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run train.py in this process; gives its exit status."""
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    try:
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


@pytest.fixture
def run_dir(given: list[str]) -> Iterator[Path]:
    """Its folder, which is mended after the test."""
    folder = Path(given[-2].partition("=")[2])
    whole = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    yield folder
    for path, was in whole.items():
        path.write_bytes(was)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["config.yaml", "split.json", "metrics.json"])
def test_a_damaged_file_is_named(
    given: list[str],
    run_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    damage: str,
) -> None:
    file = run_dir / name
    if name != "metrics.json":  # its end is missing: it is to be gone on with
        (run_dir / "metrics.json").unlink()
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    before = content(run_dir)
    assert train(given, monkeypatch) == 2
    said = capsys.readouterr().err
    assert said.startswith(("1 problem found", "2 problems found")), said[:300]
    assert str(file) in said
    assert "Traceback" not in said
    assert len(said) < 2000
    assert content(run_dir) == before
