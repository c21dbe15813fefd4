"""JSON files are validated on reading; every fault is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import Field

from lpt.errors import ConfigError
from lpt.files import JsonModel, JsonObject, read_json_model


class _Inner(JsonModel):
    steps: int


class _Record(JsonModel):
    score: float
    inner: _Inner
    settings: JsonObject = Field(default_factory=dict)


def _read(folder: Path, content: str | bytes, max_bytes: int = 1000) -> _Record:
    file = folder / "record.json"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_json_model(file, _Record, max_bytes)


def test_a_valid_file_is_read_and_integers_serve_as_floats(tmp_path: Path) -> None:
    record = _read(tmp_path, '{"score": 1, "inner": {"steps": 3}, "settings": {"a": [null, "é"]}}')
    assert record == _Record(score=1.0, inner=_Inner(steps=3), settings={"a": [None, "é"]})


def test_every_fault_is_named_by_its_key(tmp_path: Path) -> None:
    content = '{"score": true, "inner": {"steps": 2.5, "pace": 1}, "settings": {"a": [1e999]}}'
    with pytest.raises(ConfigError) as caught:
        _read(tmp_path, content)
    file = tmp_path / "record.json"
    assert {problem.where for problem in caught.value.problems} == {
        f"{file}: {key}" for key in ("score", "inner.steps", "inner.pace", "settings")
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "Invalid JSON"),
        ("[]", "an object"),
        (b'{"score": 1, "inner": {"steps": 1}, "settings": {"a": "\xff"}}', "Invalid JSON"),
        ('{"score": NaN, "inner": {"steps": 1}}', "finite"),
        ('{"score": 1, "inner": {"steps": 1}}' + " " * 1000, "at most 1,000"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _read(tmp_path, content)


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # reading it would block
    for name, message in (("pipe", "not a regular file"), ("missing", "No such file")):
        with pytest.raises(ConfigError, match=message):
            read_json_model(tmp_path / name, _Record)
