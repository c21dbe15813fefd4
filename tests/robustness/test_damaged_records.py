"""A damaged record is refused by name: one contract for every kind of JSON file that lpt reads."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lpt.caching.entry import CacheDescription
from lpt.data.split_file import read_split_file
from lpt.errors import ConfigError
from lpt.report import write_report
from lpt.runs.adapter import (
    AdapterDescription,
    BackboneIdentity,
    PromptDescription,
    TaskDescription,
    read_description,
)
from lpt.runs.job_record import JobRecord, SweepRecord
from lpt.runs.record import RunProgress, RunRecord
from tests.support import runs
from tests.support.caching import KEY


class Kind(NamedTuple):
    """A kind of record: its file, valid content, and its reader, which takes the folder."""

    name: str
    content: dict[str, Any]
    read: Callable[[Path], object]


ADAPTER = AdapterDescription(
    sha256="0" * 64,
    backbone=BackboneIdentity(
        name="tiny",
        path="models/tiny",
        revision=None,
        package=None,
        gguf_file=None,
        model_type="bert",
        dtype="float32",
        attention="sdpa",
        fingerprint="0" * 16,
    ),
    prompt=PromptDescription(kind="npg", layer=3, length=5, bottleneck=8),
    task=TaskDescription(
        name="toy",
        kind="masked",
        template="{text} <mask>",
        labels=["0", "1"],
        label_words=["bad", "good"],
        max_length=64,
        value_range=None,
    ),
)
SPLIT: dict[str, Any] = {
    "format": 1,
    "task": "toy",
    "kind": "masked",
    "template": "{text} <mask>",
    "sha256": "0" * 64,
    "sets": {"train": {"origin": "official train set", "sha256": "0" * 64, "rows": [0, 2]}},
}
ENTRY = CacheDescription(format=3, title="toy", checksum="0" * 16, key=KEY)
JOB = JobRecord(name="a", settings={"seed": "1"}, overrides=["seed=1"])
SWEEP = SweepRecord(name="s", command="c", fixed=[], space={"seed": ["1"]}, search=False)
PROGRESS = RunProgress(metric="accuracy", steps=10, dev_history=[{"step": 5, "accuracy": 0.5}])
KINDS = (
    Kind("metrics.json", runs.metrics(), RunRecord.read),
    Kind("job.json", json.loads(JOB.model_dump_json()), JobRecord.read),
    Kind("sweep.json", json.loads(SWEEP.model_dump_json()), SweepRecord.read),
    Kind("progress.json", json.loads(PROGRESS.model_dump_json()), RunProgress.read),
    Kind("adapter.json", json.loads(ADAPTER.model_dump_json()), read_description),
    Kind("entry.json", json.loads(ENTRY.model_dump_json()), CacheDescription.read),
    Kind("split.json", SPLIT, read_split_file),
)
every_kind = pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])


def each_value(value: Any) -> Callable[[dict[str, Any]], bytes]:
    """Damage that replaces every value of the object."""
    return lambda content: json.dumps(dict.fromkeys(content, value)).encode()


DAMAGES: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "empty": lambda _: b"",
    "object": lambda _: b"{}",
    "null": lambda _: b"null",
    "truncated": lambda content: json.dumps(content).encode()[:-20],
    "not UTF-8": lambda content: json.dumps(content).encode().replace(b'"', b'"\xff', 1),
    "nested": lambda _: b"[" * 100_000,
    "unknown key": lambda content: json.dumps(content | {"more": 1}).encode(),
    "not a number": each_value(float("nan")),
    "half a character": each_value("\ud800"),
    "nulls": each_value(None),
    "objects": each_value({"a": [{}]}),
}


def refused(kind: Kind, folder: Path) -> ConfigError:
    """The error of the reader, which names the file in each of its problems."""
    with pytest.raises(ConfigError) as caught:
        kind.read(folder)
    message = str(caught.value)
    assert all(str(folder / kind.name) in problem.where for problem in caught.value.problems)
    assert len(message) < 4000
    return caught.value


@every_kind
def test_a_sound_record_is_read(kind: Kind, tmp_path: Path) -> None:
    (tmp_path / kind.name).write_text(json.dumps(kind.content))
    kind.read(tmp_path)


@every_kind
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_refused_by_name(kind: Kind, damage: str, tmp_path: Path) -> None:
    (tmp_path / kind.name).write_bytes(DAMAGES[damage](kind.content))
    refused(kind, tmp_path)


@every_kind
def test_what_is_no_regular_file_is_not_read(kind: Kind, tmp_path: Path) -> None:
    file = tmp_path / kind.name
    os.mkfifo(file)  # whoever opens it would wait for a writer
    refused(kind, tmp_path)
    file.unlink()
    with file.open("wb") as sparse:
        sparse.truncate(2 << 30)
    refused(kind, tmp_path)
    file.unlink()
    file.mkdir()
    refused(kind, tmp_path)


@pytest.mark.parametrize("name", ["metrics.json", "job.json", "sweep.json"])
def test_no_report_is_made_of_a_damaged_record(name: str, tmp_path: Path) -> None:
    sweep = runs.write_sweep(tmp_path / "sweep", seed=["13"])
    run_dir = runs.write_run(sweep / "jobs" / "a", runs.metrics(), job={"settings": {"seed": "13"}})
    ((sweep if name == "sweep.json" else run_dir) / name).write_text("{")
    with pytest.raises(ConfigError, match=name):
        write_report([sweep], sweep / "report")
    assert not (sweep / "report").exists()
