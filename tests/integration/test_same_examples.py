"""All sources of a task give the same examples."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, Features

from tests.support.configs import configured
from tests.support.same_examples import SAME, Same
from tests.support.source_files import Row, splits_of, stub_hub, write


def write_official(folder: Path, same: Same) -> None:
    folder.mkdir(parents=True)
    for name, content in same.official.items():
        if isinstance(content, list):
            content = "".join(json.dumps(row) + "\n" for row in content)
        write(folder / name, content)


def as_dataset(rows: list[Row], types: Mapping[str, Any]) -> Dataset:
    features = Features.from_arrow_schema(pa.Table.from_pylist(rows).schema)
    return Dataset.from_list(rows, features=Features({**features, **types}))


def write_hubs_rows(folder: Path, same: Same, form: str) -> None:
    """The hub's splits and columns as files of some form, or as `datasets` saves them."""
    sets = {name: as_dataset(rows, same.types) for name, rows in same.hub.items()}
    if form == "saved":
        own = {name: data for name, data in sets.items() if "/" not in name}
        DatasetDict(own).save_to_disk(folder)
        return
    folder.mkdir(parents=True)
    for name, rows in same.hub.items():
        where = folder.parent if "/" in name else folder
        path = where / f"{name}.{form.removeprefix('plain ')}"
        path.parent.mkdir(exist_ok=True)
        if form == "parquet":
            sets[name].to_parquet(path)
        elif form == "plain parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        elif form == "jsonl":
            write(path, "".join(json.dumps(row) + "\n" for row in rows))
        else:
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(
                    {k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in row.items()}
                    for row in rows
                )


def hub_of(same: Same, path: str, config: str) -> Callable[..., Dataset]:
    def load(asked: str, name: str, split: str) -> Dataset:
        address = split if name == config else f"{name}/{split}"
        if asked != path or address not in same.hub:
            raise OSError(f"no {asked} {name} {split}")
        return as_dataset(same.hub[address], same.types)

    return load


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet", "plain parquet", "saved", "hub"])
@pytest.mark.parametrize("task", SAME)
def test_the_same_examples_from_everywhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, task: str, form: str
) -> None:
    same = SAME[task]()
    official_folder, folder = tmp_path / "files" / "task", tmp_path / "hub" / task
    write_official(official_folder, same)
    here = splits_of(task, f"data.path={official_folder}").sets
    assert here["train"].labels == here["dev"].labels == same.labels
    assert not here["test"].labeled_positions()
    if form == "hub":
        known = configured(f"task={task}").task
        assert known.hub is not None
        assert known.hub_config is not None
        stub_hub(monkeypatch, hub_of(same, known.hub, known.hub_config))
        there = splits_of(task).sets
    else:
        write_hubs_rows(folder, same, form)
        there = splits_of(task, f"data.root={folder.parent}").sets

    assert set(here) == {"train", "dev", "test", *same.extra}
    assert set(here) - set(there) == ({"ax"} & set(here) if form == "saved" else set())
    for name, other in there.items():
        part = here[name]
        assert (part.columns, part.labels) == (other.columns, other.labels)
        assert part.row_ids == other.row_ids == list(range(len(part)))
        assert set(part.metadata) <= set(other.metadata)  # CoLA's train has no ids in its file
        assert part.metadata == {name: other.metadata[name] for name in part.metadata}
