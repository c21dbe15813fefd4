"""Where rows come from: a folder of official files, your own CSV, TSV or JSONL, or the hub.

A source gives each split as a `Table` of named text columns. GLUE's TSV has its quirks: no quoting
(a lone double quote is text), sometimes a byte-order mark, sometimes no header.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lpt.errors import ConfigError, HubError, Problem, Problems, fail
from lpt.hub import hub_reachable, hub_state

SUFFIXES = (".tsv", ".csv", ".jsonl")
_SPLIT_NAMES = {
    "train": ("train",),
    "dev": ("dev", "validation", "valid", "val"),
    "test": ("test",),
}
_SHOWN_ROWS = 5


@dataclass(frozen=True)
class Table:
    """One split as it stands in its source.

    Attributes:
        name: File or data set, for messages.
        columns: Text of each column, row by row; None where a row has no value.
        lines: Line of each row in the file, 1-based; row numbers where there are no lines.
    """

    name: str
    columns: Mapping[str, Sequence[str | None]]
    lines: Sequence[int]

    def place(self, row: int) -> str:
        """`file:line` of a row, for messages."""
        return f"{self.name}:{self.lines[row]}"


class Source(Protocol):
    """Something that has splits."""

    def has(self, split: str) -> bool:
        """Whether it has that split (train, dev, test)."""

    def read(self, split: str) -> Table:
        """Its rows in order.

        Raises:
            ConfigError: The split is missing or malformed; every bad row is named.
        """


@dataclass(frozen=True)
class Folder:
    """A folder with a file for each split.

    Attributes:
        path: The folder.
        files: File name of each split; splits not named are looked for as train.*, dev.*, test.*.
        header: Column names of files without a header line; None: the first line names them.
    """

    path: Path
    files: Mapping[str, str | None]
    header: Sequence[str] | None = None

    def has(self, split: str) -> bool:  # noqa: D102
        return bool(self.files.get(split)) or self._find(split) is not None

    def read(self, split: str) -> Table:  # noqa: D102
        file = self._find(split)
        if file is None:
            present = sorted(p.name for p in self.path.iterdir()) if self.path.is_dir() else []
            raise fail(
                "data.path",
                f"{self.path} has no {split} split",
                f"the file {self.files.get(split) or f'{split}.tsv, .csv or .jsonl'} "
                f"(present: {', '.join(present) or 'nothing'})",
                f"put the file there, or name it: task.files.{split}=FILE",
            )
        return read_table(file, self.header)

    def _find(self, split: str) -> Path | None:
        named = self.files.get(split)
        found = [f"{stem}{suffix}" for stem in _SPLIT_NAMES[split] for suffix in SUFFIXES]
        names = [named] if named else found
        return next((self.path / n for n in names if (self.path / n).is_file()), None)


@dataclass(frozen=True)
class Hub:
    """A data set on the Hugging Face hub, or in its local cache.

    Attributes:
        path: Hub id.
        config: Configuration name, or None.
        splits: The hub's name of each split.
        label_column: The task's label column.
        labels: The task's labels; numbered labels that the hub calls otherwise keep their number.
        hub_label_column: The hub's label column, where it is not the task's.
        hub_labels: The task's label for the hub's name of it, where neither is a number.
    """

    path: str
    config: str | None
    splits: Mapping[str, str]
    label_column: str
    labels: Sequence[str]
    hub_label_column: str | None = None
    hub_labels: Mapping[str, str] = field(default_factory=dict)

    def has(self, split: str) -> bool:  # noqa: D102
        return split in self.splits

    def read(self, split: str) -> Table:  # noqa: D102
        hub_reachable()
        from datasets import ClassLabel, load_dataset  # reads the hub's state when imported

        if not self.has(split):
            raise fail(
                "task.hub_splits", f"no {split} split of {self.path}", str(dict(self.splits))
            )
        name = f"{self.path}{f' ({self.config})' if self.config else ''} on the hub"
        try:
            data = load_dataset(self.path, self.config, split=self.splits[split])
        except (OSError, ValueError, RuntimeError) as error:
            problem = Problem(
                "data.path",
                f"null, and {name} could not be had; {hub_state()} ({_first_line(error)})",
                "a folder with the task's official files, or a reachable hub",
                "give data.path=FOLDER, or try the data that ships with lpt: experiment=demo",
            )
            raise HubError([problem]) from error
        columns: dict[str, list[str | None]] = {}
        for column, feature in data.features.items():
            names = feature.names if isinstance(feature, ClassLabel) else None
            columns[column] = [self._text(value, names) for value in data[column]]
        if self.hub_label_column is not None and self.hub_label_column in columns:
            columns[self.label_column] = columns[self.hub_label_column]
        return Table(name, columns, range(len(data)))

    def _text(self, value: Any, names: Sequence[str] | None) -> str | None:
        if value is None or (names is not None and value == -1):
            return None
        name = str(value) if names is None else names[value]
        if names is not None and name not in (*self.labels, *self.hub_labels):
            name = str(value)
        return self.hub_labels.get(name, name)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def read_table(path: Path, header: Sequence[str] | None = None) -> Table:
    """Read a TSV (no quoting), CSV (quoted as usual) or JSONL file.

    Raises:
        ConfigError: Empty or non-UTF-8 file, unknown suffix, or rows of the wrong width, each with
            its line.
    """
    readers = {".tsv": _read_tsv, ".csv": _read_csv, ".jsonl": _read_jsonl}
    if path.suffix not in readers:
        raise fail(str(path), f"a {path.suffix or 'suffixless'} file", ", ".join(SUFFIXES))
    table = readers[path.suffix](path, header)
    if not table.lines:
        raise fail(str(path), "no rows", "at least one row", "give a file with rows in it")
    return table


def _read_tsv(path: Path, header: Sequence[str] | None) -> Table:
    return _rectangle(path, header, ((n, line.split("\t")) for n, line in _lines(path) if line))


def _read_csv(path: Path, header: Sequence[str] | None) -> Table:
    reader = csv.reader((line + "\n" for _, line in _lines(path)), strict=True)
    rows = ((reader.line_num, row) for row in reader if row)
    try:
        return _rectangle(path, header, rows)
    except csv.Error as error:
        raise fail(f"{path}:{reader.line_num}", str(error), "quoted CSV") from error


def _rectangle(
    path: Path, header: Sequence[str] | None, rows: Iterator[tuple[int, list[str]]]
) -> Table:
    if header is None:
        header = next((row for _, row in rows), [])
        if len(set(header)) != len(header):
            raise fail(f"{path}:1", f"columns {header}", "a header with distinct names")
    cells: list[list[str]] = []
    lines: list[int] = []
    bad = _BadRows(path)
    for n, row in rows:
        if len(row) == len(header):
            cells.append(row)
            lines.append(n)
        else:
            bad.add(n, f"{len(row)} columns", f"{len(header)} columns: {', '.join(header)}")
    bad.raise_if_any()
    columns = {name: [row[i] for row in cells] for i, name in enumerate(header)}
    return Table(str(path), columns, lines)


def _read_jsonl(path: Path, header: Sequence[str] | None) -> Table:
    records: list[dict[str, Any]] = []
    lines: list[int] = []
    bad = _BadRows(path)
    for n, line in _lines(path):
        if not line:
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            bad.add(n, f"not JSON ({error.msg} at column {error.colno})", "one JSON object a line")
            continue
        if isinstance(record, dict):
            records.append(record)
            lines.append(n)
        else:
            bad.add(n, f"a JSON {type(record).__name__}", "one JSON object a line")
    bad.raise_if_any()
    names = dict.fromkeys(name for record in records for name in record)
    return Table(str(path), {k: [_json_text(r.get(k)) for r in records] for k in names}, lines)


def _json_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines without their end."""
    with path.open("rb") as file:
        for n, raw in enumerate(file, 1):
            try:
                line = raw.decode("utf-8-sig" if n == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise fail(
                    f"{path}:{n}",
                    f"byte 0x{raw[error.start]:02x} at {error.start} is not UTF-8",
                    "UTF-8 text",
                    f"convert the file: iconv -f latin1 -t utf-8 {path.name}",
                ) from error
            yield n, line.rstrip("\r\n")


class _BadRows:
    """The first few bad rows of a file as problems, and how many more there are."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems = Problems()
        self.count = 0

    def add(self, line: int, given: str, allowed: str) -> None:
        self.count += 1
        if self.count <= _SHOWN_ROWS:
            self.problems.add(f"{self.path}:{line}", given, allowed)

    def raise_if_any(self) -> None:
        if self.count > _SHOWN_ROWS:
            more = Problem(str(self.path), f"{self.count - _SHOWN_ROWS} more bad rows")
            raise ConfigError([*self.problems.found, more])
        self.problems.raise_if_any()
