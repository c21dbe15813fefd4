"""Reads back what wandb writes offline: its records lie in a file of the LevelDB log format."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import wandb
from wandb.proto import wandb_internal_pb2

_HEAD, _BLOCK, _PIECE = 7, 32 * 1024, 7  # bytes: of the file, of a block, in front of each piece
_WHOLE, _LAST = 1, 4


class OfflineRun:
    """The records of the single offline run in a folder `wandb`."""

    def __init__(self, wandb_dir: Path) -> None:
        wandb.teardown()  # the service may still be writing
        [file] = wandb_dir.glob("offline-run-*/*.wandb")
        self.folder = file.parent
        self.history: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.artifacts: dict[str, Any] = {}
        self.step_metrics: dict[str, str] = {}
        self.charts: set[str] = set()
        self.exit_code: int | None = None
        for record in _records(file.read_bytes()):
            self._take(record)

    def _take(self, record: Any) -> None:
        kind = record.WhichOneof("record_type")
        if kind == "run":
            self.run = record.run
            self.config = {u.key: json.loads(u.value_json) for u in record.run.config.update}
        elif kind == "config":
            self.charts |= {
                update.nested_key[2]
                for update in record.config.update
                if list(update.nested_key[:2]) == ["_wandb", "visualize"]
            }
        elif kind == "history":
            self.history.append(_values(record.history.item))
        elif kind == "summary":
            self.summary |= _values(record.summary.update)
        elif kind == "artifact":
            self.artifacts[record.artifact.type] = record.artifact
        elif kind == "metric":
            self.step_metrics[record.metric.glob_name] = record.metric.step_metric
        elif kind == "exit":
            self.exit_code = record.exit.exit_code

    def curve(self, name: str) -> list[tuple[int, float]]:
        """(optimizer step, value) of every point."""
        return [(row["trainer/global_step"], row[name]) for row in self.history if name in row]

    def table(self, name: str) -> tuple[list[str], list[list[Any]]]:
        """Columns and rows of a logged table."""
        written = json.loads((self.folder / "files" / self.summary[f"{name}.path"]).read_text())
        return written["columns"], written["data"]


def _values(items: Any) -> dict[str, Any]:
    return {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in items}


def _records(data: bytes) -> Iterator[Any]:
    """Records in pieces of (checksum 4, length 2, kind 1), none over a block's end."""
    assert data[:4] == b":W&B"
    at, gathered = _HEAD, b""
    while at + _PIECE <= len(data):
        if _BLOCK - at % _BLOCK < _PIECE:
            at += _BLOCK - at % _BLOCK
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        gathered += data[at + _PIECE : at + _PIECE + length]
        at += _PIECE + length
        if kind in (_WHOLE, _LAST):
            yield wandb_internal_pb2.Record.FromString(gathered)
            gathered = b""
