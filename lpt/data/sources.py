"""Sources of rows: files, a data set saved by `datasets`, the Hugging Face Hub, rows at hand.

All of them give the same rows in the same order, as a `Table` per split.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lpt.config.schema import Config
from lpt.config.task_schema import TaskConfig
from lpt.data.tables import (
    SUFFIXES,
    Table,
    read_shards,
    read_table,
    table_from_dataset,
)
from lpt.data.tasks import extra_eval_sets
from lpt.errors import ConfigError, Problem, config_error, first_line
from lpt.models.hub_access import how_to_get_access, load_from_hub

logger = logging.getLogger(__name__)
_NAMES = {
    "train": ["train", "training"],
    "dev": ["dev", "validation", "valid", "val"],
    "test": ["test", "testing"],
}
_WITHOUT_HUB = (
    "set data.path=FOLDER or data.root=FOLDER, or try the data that ships with lpt: experiment=demo"
)
_SAVED = "dataset_dict.json"  # written by `DatasetDict.save_to_disk`


@dataclass(frozen=True)
class FolderSource:
    """A folder with a file for each split, or one written by `DatasetDict.save_to_disk`.

    Attributes:
        path: The folder.
        files: File of each split, relative to the folder; without a suffix, of any supported type.
        header: Column names of files without a header line; None: the first line names them.
        hub_splits: The hub's name of each split, which its file may have as well.
        skip_short_rows: Skip rows with too few columns instead of refusing them.
    """

    path: Path
    files: Mapping[str, str | None]
    header: Sequence[str] | None = None
    hub_splits: Mapping[str, str] = field(default_factory=dict)
    skip_short_rows: bool = False

    def has(self, split: str) -> bool:
        """Whether the split exists."""
        return bool(self._find(split))

    def read(self, split: str) -> Table:
        """The rows of a split, in order.

        Raises:
            ConfigError: The split is missing or malformed; every bad row is named.
        """
        found = self._find(split)
        if not found:
            present = sorted(p.name for p in self.path.iterdir()) if self.path.is_dir() else []
            raise config_error(
                "data.path",
                f"{self.path} has no {split} split (it has: {', '.join(present) or 'nothing'})",
                f"{' or '.join(self._stems(split))}, a file of type {', '.join(SUFFIXES)}",
                f"put the file there, or name it: task.files.{split}=FILE",
            )
        if found[0].is_dir():
            from datasets import load_from_disk

            return table_from_dataset(load_from_disk(str(found[0])), str(found[0]))
        if len(found) > 1:
            return read_shards(found)
        return read_table(found[0], self.header, skip_short_rows=self.skip_short_rows)

    def _find(self, split: str) -> list[Path]:
        """The file, shards or saved data set of a split; empty if there is none.

        Raises:
            ConfigError: There are several, and none of them is named in the task.
        """
        found = self._saved(split)
        for stem in self._stems(split) if not found else ():
            found += self._files(stem)
            if found and stem == self.files.get(split):
                break
        if len(found) > 1:
            names = [paths[0].relative_to(self.path).as_posix() for paths in found]
            given = f"{self.path} has {len(found)} files of {split}: {', '.join(names)}"
            hint = f"remove the others, or name a file: task.files.{split}={names[0]}"
            raise config_error("data.path", given, "one of them", hint)
        return found[0] if found else []

    def _saved(self, split: str) -> list[list[Path]]:
        """The folders of a split that `datasets` saved; the hub's name has priority."""
        if not (self.path / _SAVED).is_file():
            return []
        hub_name = _relative_to_task(self.hub_splits.get(split, split))
        names = dict.fromkeys((hub_name, *_NAMES.get(split, [])))
        found = [[self.path / n] for n in names if (self.path / n / "state.json").is_file()]
        return found[:1] if split in self.hub_splits else found

    def _files(self, stem: str) -> list[list[Path]]:
        """The files of that name, each alone, and shards together."""
        file = self.path / stem
        if stem.endswith(SUFFIXES):
            return [[file]] if file.is_file() else []
        found = [[path] for suffix in SUFFIXES if (path := self.path / f"{stem}{suffix}").is_file()]
        # shards, named as on the hub
        shards = sorted(file.parent.glob(f"{file.name}-[0-9]*-of-[0-9]*.parquet"))
        if shards and {int(path.stem.rpartition("-")[2]) for path in shards} != {len(shards)}:
            given = f"{len(shards)} shards: {', '.join(path.name for path in shards)}"
            expected = "all shards of one split, and no others"
            raise config_error(str(file.parent), given, expected)
        return [*found, shards] if shards else found

    def _stems(self, split: str) -> list[str]:
        """Possible names of a split's file; one with a suffix, or an absolute path, is exact."""
        name = self.files.get(split)
        if name is not None and (name.endswith(SUFFIXES) or Path(name).is_absolute()):
            return [name]
        stems = [name] if name is not None else []
        if name is None or "/" not in name:  # in another folder, these names are another task's
            stems += _NAMES.get(split, [])
        if split in self.hub_splits:
            stems.append(_relative_to_task(self.hub_splits[split]))
        return list(dict.fromkeys(stems))


@dataclass(frozen=True)
class HubSource:
    """A data set on the Hugging Face Hub, or in its local cache.

    Attributes:
        path: Hub id.
        config: Configuration name, or None.
        hub_splits: The hub's name of each split: `split`; `config/split` for another configuration;
            `owner/name/config/split` for another data set.
    """

    path: str
    config: str | None
    hub_splits: Mapping[str, str]

    def has(self, split: str) -> bool:
        """Whether the split exists."""
        return split in self.hub_splits

    def read(self, split: str) -> Table:
        """The rows of a split, in order.

        Raises:
            ConfigError: There is no such split, or it could not be loaded.
        """
        if not self.has(split):
            given = f"no {split} split of {self.path}"
            raise config_error("task.hub_splits", given, str(dict(self.hub_splits)))
        *parts, split_name = self.hub_splits[split].split("/")
        path = "/".join(parts[:2]) if len(parts) == 3 else self.path
        config = parts[-1] if parts else self.config
        name = f"{path}{f' ({config})' if config else ''} on the hub"
        repo, expected = f"datasets/{path}", "a folder with the task's official files, or the hub"

        def load() -> Table:
            from datasets import load_dataset  # takes a second
            from datasets.exceptions import DatasetNotFoundError

            try:
                return table_from_dataset(load_dataset(path, config, split=split_name), name)
            except DatasetNotFoundError as error:
                given = f"null, and {name} is gated, private or absent: {first_line(error)}"
                raise config_error("data.path", given, expected, how_to_get_access(repo)) from error

        asked = Problem("data.path", f"null, and {name}", expected, _WITHOUT_HUB)
        return load_from_hub(load, repo, asked)


@dataclass(frozen=True)
class TableSource:
    """Tables at hand: rows from Python, or those of a single file.

    Attributes:
        tables: The rows of each split; with train alone, a part of it is held out as test.
    """

    tables: Mapping[str, Table]

    def has(self, split: str) -> bool:
        """Whether the split exists."""
        return split in self.tables

    def read(self, split: str) -> Table:
        """The rows of a split, in order.

        Raises:
            ConfigError: The split is missing.
        """
        if not self.has(split):
            given = f"none, beside {' and '.join(self.tables)}"
            raise config_error(split, given, f"rows for {split}", "or train alone")
        return self.tables[split]


Source = FolderSource | HubSource | TableSource


def _relative_to_task(hub_split: str) -> str:
    """Path of a hub split relative to the task's folder, in a copy of the hub's files."""
    *parts, split = hub_split.split("/")
    return f"../{parts[-1]}/{split}" if parts else split


def build_source(config: Config) -> Source:
    """The source of the task's rows.

    Raises:
        ConfigError: data.root has no folder of the task, or several.
    """
    source = find_source(config)
    if source is None:
        root = Path(str(config.data.root))
        present = ", ".join(sorted(path.name for path in root.iterdir() if path.is_dir()))
        test = config.task.files.get("test") if config.task.fixed_test else None
        raise config_error(
            "data.root",
            f"{root} has no folder {' or '.join(_folder_names(config.task))}"
            f"{f' with {test}' if test else ''} (it has: {present or 'none'})",
            "a folder that holds the tasks under their official names",
            "data.path=FOLDER",
        )
    return source


def find_source(config: Config) -> Source | None:
    """As `build_source`, but None if data.root has no folder of the task.

    Of several such folders, the one with the most of the task's sets is used.

    Raises:
        ConfigError: Several folders have equally many.
    """
    task, data, extra = config.task, config.data, extra_eval_sets(config)
    hub_splits = task.hub_splits | {n: e.hub for n, e in extra.items() if e.hub is not None}
    if data.path is None and data.root is None and task.hub is not None:
        return HubSource(task.hub, task.hub_config, hub_splits)
    files = task.files | {name: extra_set.file for name, extra_set in extra.items()}

    def open_folder(path: str | Path) -> FolderSource:
        return FolderSource(Path(path), files, task.header, hub_splits, task.skip_short_rows)

    if data.path is not None and Path(data.path).is_file():
        file = Path(data.path)
        try:
            table = read_table(file, task.header, skip_short_rows=task.skip_short_rows)
        except ConfigError as error:  # of the file as a whole: the key; of a row: its line
            raise ConfigError(
                replace(problem, where="data.path", given=f"{file}: {problem.given}")
                if problem.where == str(file)
                else problem
                for problem in error.problems
            ) from error
        return TableSource({"train": table})
    if data.root is None or data.path is not None:
        return open_folder(data.path or str(task.default_path))
    sources = [open_folder(path) for path in find_folders(Path(data.root), _folder_names(task))]
    if task.fixed_test:
        sources = [source for source in sources if source.has("test")]
    counts = [sum(map(source.has, files)) for source in sources]
    best = [s.path for s, count in zip(sources, counts, strict=True) if count == max(counts)]
    if len(best) > 1:
        given = f"{data.root} has {', '.join(map(str, best))} for {task.name}"
        raise config_error("data.root", given, "one of them", f"data.path={best[0]}")
    if len(sources) > 1:
        logger.info("%s has %d folders of %s; using %s.", data.root, len(sources), task.name, *best)
    return open_folder(best[0]) if best else None


def find_folders(root: Path, names: Sequence[str]) -> list[Path]:
    """The folders of a task in `data.root`, or else in its subfolders (GLUE, SuperGLUE)."""
    for pattern in ("{}", "*/{}"):
        paths = [path for name in names for path in root.glob(pattern.format(name))]
        found = {path.resolve(): path for path in paths if path.is_dir()}
        if found:
            return sorted(found.values())
    return []


def _folder_names(task: TaskConfig) -> list[str]:
    return list(dict.fromkeys(n for n in (task.folder or task.name, task.hub_config) if n))
