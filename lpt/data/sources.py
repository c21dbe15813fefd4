"""Where rows come from: a folder of files, a data set that was saved to disk, or the hub.

All give the same rows in the same order, as a `Table` for each split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lpt.data.tables import SUFFIXES, Table, read_shards, read_table, table_of
from lpt.errors import ConfigError, HubError, Problem, config_error
from lpt.models.hub_access import hub_reachable, hub_state

_SPLIT_NAMES = {
    "train": ("train",),
    "dev": ("dev", "validation", "valid", "val"),
    "test": ("test",),
}
_SAVED = "dataset_dict.json"  # what `DatasetDict.save_to_disk` leaves


class Source(Protocol):
    """Something that has splits: train, dev, test and the further sets of a task."""

    def has(self, split: str) -> bool:
        """Whether it has that split."""

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
        files: File of each split, relative to the folder; without a suffix, of any kind.
        header: Column names of files without a header line; None: the first line names them.
        splits: The hub's name of each split, under which a file may lie as well.
        skip_short_rows: Leave out rows with too few columns instead of refusing them.
    """

    path: Path
    files: Mapping[str, str | None]
    header: Sequence[str] | None = None
    splits: Mapping[str, str] = field(default_factory=dict)
    skip_short_rows: bool = False

    def has(self, split: str) -> bool:  # noqa: D102
        return bool(self._find(split))

    def read(self, split: str) -> Table:  # noqa: D102
        found = self._find(split)
        if not found:
            present = sorted(p.name for p in self.path.iterdir()) if self.path.is_dir() else []
            raise config_error(
                "data.path",
                f"{self.path} has no {split} split",
                f"{' or '.join(self._stems(split))}, a file of kind {', '.join(SUFFIXES)} "
                f"(present: {', '.join(present) or 'nothing'})",
                f"put the file there, or name it: task.files.{split}=FILE",
            )
        if len(found) > 1:
            return read_shards(found)
        return read_table(found[0], self.header, skip_short_rows=self.skip_short_rows)

    def _find(self, split: str) -> list[Path]:
        """The file of a split, or its shards."""
        names = self._names(split)
        for name in names:
            if (self.path / name).is_file():
                return [self.path / name]
        for stem in self._stems(split):  # as the hub names them
            folder, name = (self.path / stem).parent, Path(stem).name
            shards = sorted(folder.glob(f"{name}-[0-9]*-of-[0-9]*.parquet"))
            if shards:
                _check_shards(shards)
                return shards
        return []

    def _names(self, split: str) -> list[str]:
        stems = self._stems(split)
        given = [stem for stem in stems if stem.endswith(SUFFIXES)]
        return given or [f"{stem}{suffix}" for stem in stems for suffix in SUFFIXES]

    def _stems(self, split: str) -> list[str]:
        """What the file may be called; if it is given with a suffix or a whole path, that alone."""
        named = self.files.get(split)
        if named is not None and (named.endswith(SUFFIXES) or Path(named).is_absolute()):
            return [named]
        stems = [named] if named is not None else []
        if named is None or "/" not in named:  # elsewhere, a file of these names is another task's
            stems += _SPLIT_NAMES.get(split, ())
        if split in self.splits:
            stems.append(_beside(self.splits[split]))
        return list(dict.fromkeys(stems))


@dataclass(frozen=True)
class Saved:
    """A folder that `datasets` wrote: `DatasetDict.save_to_disk`.

    Attributes:
        path: The folder.
        splits: The hub's name of each split.
    """

    path: Path
    splits: Mapping[str, str]

    def has(self, split: str) -> bool:  # noqa: D102
        return self._find(split) is not None

    def read(self, split: str) -> Table:  # noqa: D102
        from datasets import load_from_disk

        name = self._find(split)
        if name is None:
            present = sorted(p.name for p in self.path.iterdir() if p.is_dir())
            raise config_error(
                "data.path",
                f"{self.path} has no {split} split (it has: {', '.join(present)})",
                self.splits.get(split, split),
            )
        try:
            data = load_from_disk(str(self.path / name))
        except (OSError, ValueError, KeyError) as error:
            raise config_error(
                str(self.path / name), _first_line(error), "a saved data set"
            ) from error
        return table_of(data, str(self.path / name))

    def _find(self, split: str) -> str | None:
        names = [_beside(self.splits.get(split, split)), *_SPLIT_NAMES.get(split, ())]
        return next((n for n in names if (self.path / n / "state.json").is_file()), None)


@dataclass(frozen=True)
class Hub:
    """A data set on the Hugging Face hub, or in its local cache.

    Attributes:
        path: Hub id.
        config: Configuration name, or None.
        splits: The hub's name of each split: `split`; `config/split` for another configuration;
            `owner/name/config/split` for another data set.
    """

    path: str
    config: str | None
    splits: Mapping[str, str]

    def has(self, split: str) -> bool:  # noqa: D102
        return split in self.splits

    def read(self, split: str) -> Table:  # noqa: D102
        hub_reachable()
        from datasets import load_dataset  # reads the hub's state when imported
        from datasets.exceptions import DatasetsError

        if not self.has(split):
            raise config_error(
                "task.hub_splits", f"no {split} split of {self.path}", str(dict(self.splits))
            )
        *where, split_name = self.splits[split].split("/")
        path = "/".join(where[:2]) if len(where) == 3 else self.path
        config = where[-1] if where else self.config
        name = f"{path}{f' ({config})' if config else ''} on the hub"
        try:
            data = load_dataset(path, config, split=split_name)
        except (OSError, ValueError, RuntimeError, DatasetsError) as error:
            problem = Problem(
                "data.path",
                f"null, and {name} could not be had; {hub_state()} ({_first_line(error)})",
                "a folder with the task's official files, or a reachable hub",
                "give data.path=FOLDER or data.root=FOLDER, or try the data that ships with lpt: "
                "experiment=demo",
            )
            reached = hub_reachable() and not isinstance(error, ConnectionError)
            raise (ConfigError if reached else HubError)([problem]) from error
        return table_of(data, name)


def _check_shards(shards: Sequence[Path]) -> None:
    totals = {int(path.stem.rpartition("-")[2]) for path in shards}
    if totals != {len(shards)}:
        raise config_error(
            str(shards[0].parent),
            f"{len(shards)} shards: {', '.join(path.name for path in shards)}",
            f"all {max(totals)} of one split",
            "put the missing files there, or remove those of another version",
        )


def _beside(address: str) -> str:
    """Where a split on the hub lies relative to the task's folder, in a copy of the hub's files."""
    *where, split = address.split("/")
    return f"../{where[-1]}/{split}" if where else split


def open_folder(
    path: Path,
    files: Mapping[str, str | None],
    splits: Mapping[str, str],
    header: Sequence[str] | None,
    skip_short_rows: bool,
) -> Source:
    """A folder as a source: files of any kind, or what `datasets` saved."""
    if (path / _SAVED).is_file():
        return Saved(path, splits)
    return Folder(path, files, header, splits, skip_short_rows)


def find_folders(root: Path, names: Sequence[str]) -> list[Path]:
    """The folders of a task in `data.root`, or else in its folders (GLUE, SuperGLUE)."""
    for place in (root.glob, lambda name: root.glob(f"*/{name}")):
        found = {path.resolve(): path for name in names for path in place(name) if path.is_dir()}
        if found:
            return sorted(found.values())
    return []


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
