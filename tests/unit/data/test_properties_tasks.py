"""Whatever a table or a split file holds: examples, or a message that names the place."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lpt.data.candidates import EXPANSIONS, GROUP
from lpt.data.split_file import describe, read_description, verify
from lpt.data.splits import Splits
from lpt.data.tables import Table
from lpt.data.tasks import UNKNOWN, Examples, Task
from lpt.errors import ConfigError
from tests.support.hostile import texts
from tests.support.task_tables import task

DIGITS = "9" * 5000
DEEP = "[" * 3000 + "]" * 3000
Columns = dict[str, list[str | None]]


def places_are_told(error: ConfigError, name: str, rows: int) -> None:
    for problem in error.problems:
        found = re.fullmatch(rf"{re.escape(name)}(?::(\d+))?", problem.where)
        assert found
        assert problem.given
        if found[1]:
            assert int(found[1]) in range(2, 2 * rows + 2, 2)
        str(problem).encode()


def table_of(columns: Columns, **more: Any) -> Table:
    rows = max(map(len, columns.values()))
    return Table("train.tsv", columns, range(2, 2 * rows + 2, 2), **more)


def columns_of(
    cells: dict[str, st.SearchStrategy[str | None]], least: int = 1
) -> st.SearchStrategy[Columns]:
    """Some of the columns, equally long."""

    def of_length(length: int) -> st.SearchStrategy[Columns]:
        each = {n: st.lists(c, min_size=length, max_size=length) for n, c in cells.items()}
        return st.fixed_dictionaries({"text": each.pop("text")}, optional=each)

    return st.integers(least, 5).flatmap(of_length)


good_labels = st.sampled_from(["pos", "neg"])
labels = good_labels | st.sampled_from(
    ["", "-1", None, "-", "0", "1", "2", " pos\n", "\u0663", "p"]
)
numbers = st.sampled_from(["0.5", "5", "-1", "nan", "inf", "1e400", "1_0", "\u0663", "x", None])
CELLS: dict[str, st.SearchStrategy[str | None]] = {
    "text": texts(3) | st.none(),
    "label": labels | texts(1) | st.just(DIGITS),
    "id": st.sampled_from(["", "1", "2", None]) | texts(1),
}
TASKS: dict[str, Task] = {
    "labels": task(skip_labels=("-",), id_columns=("id",), label_aliases={"p": "pos"}),
    "number": task(task_type="regression", labels=("0", "5")),
}


@example({"text": ["a"], "label": [DIGITS]}, "labels", True, True)
@example({"text": ["a"], "label": ["-"]}, "labels", False, True)
@given(
    columns_of({**CELLS, "label": CELLS["label"] | numbers}),
    st.sampled_from([*TASKS]),
    st.booleans(),
    st.booleans(),
)
def test_any_table_is_examples_or_refused(
    columns: Columns, name: str, named: bool, need: bool
) -> None:
    table = table_of(columns, class_names={"label": ["neg", "pos"]} if named else {})
    try:
        examples = TASKS[name].examples(table, need_labels=need)
    except ConfigError as error:
        places_are_told(error, "train.tsv", len(table))
        return
    check(examples, TASKS[name], table, need)


def check(examples: Examples, used: Task, table: Table, need: bool) -> None:
    assert 0 < len(examples) == len(examples.row_ids)
    assert examples.columns["text"] == [table.columns["text"][row] for row in examples.row_ids]
    assert examples.labelled or not need
    for row, label in zip(examples.row_ids, examples.labels, strict=True):
        written = (table.columns.get("label") or [None] * len(table))[row]
        assert written not in used.skip_labels
        if label == UNKNOWN:
            assert written is None or written.strip() in ("", "-1")
        elif used.value_range is None:
            assert label in range(2)
            assert written is not None
            names = [*used.labels, "p", *(table.class_names and "01\u0661")]
            assert written.strip() in names
        else:
            assert 0 <= label <= 5
            assert written is not None
            assert label == pytest.approx(float(written), abs=1e-4)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | texts(1),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=6,
)
words = st.sampled_from(["a b @placeholder c", "he *her* it", "cause", "effect", "x"]) | texts(2)
answer = st.fixed_dictionaries({"text": words | json_values, "idx": st.integers() | json_values})
entity = st.fixed_dictionaries({"start": st.integers(0, 9), "end": st.integers(0, 9)})
question = st.fixed_dictionaries(
    {"question": words | json_values, "idx": st.integers() | json_values},
    optional={"answers": st.lists(answer) | json_values, "query": words | json_values},
)
NESTED: dict[str, st.SearchStrategy[Any]] = {
    "passage": st.fixed_dictionaries(
        {"text": words | json_values},
        optional={"questions": st.lists(question), "entities": st.lists(entity)},
    ),
    "qas": st.lists(question),
    "idx": st.dictionaries(
        st.sampled_from(["paragraph", "question", "answer", "query"]), json_values
    ),
    "answers": st.lists(words | json_values),
    "entities": st.lists(words | json_values),
    "target": st.fixed_dictionaries(
        {"span1_text": words, "span2_text": words, "span2_index": st.integers(-5, 5) | json_values}
    ),
}
PLAIN = ["paragraph", "question", "answer", "query", "premise", "choice1", "choice2", "label"]
PLAIN += ["span1_text", "span2_text", "span2_index"]
hostile_cells = st.none() | st.sampled_from([DEEP, "{'a': 1}", "1e999", "0", "1"]) | words
NO_TEXT = {
    "text": "p",
    "questions": [{"question": 1, "idx": 0, "answers": [{"text": 2, "idx": 3}]}],
}
RAW: dict[str, st.SearchStrategy[str | None]] = dict.fromkeys(PLAIN, hostile_cells) | {
    name: hostile_cells | (values | json_values).map(json.dumps) for name, values in NESTED.items()
}


@example(
    "wsc", {"text": ["a b"], "span1_text": ["a"], "span2_text": ["b"], "span2_index": ["1e999"]}
)
@example(
    "wsc",
    {"text": ["a b"], "target": ['{"span1_text": "a", "span2_text": "b", "span2_index": 1e999}']},
)
@example("multirc", {"text": ["a"], "passage": [DEEP]})
@example("multirc", {"text": ["a"], "passage": [json.dumps(NO_TEXT)]})
@given(st.sampled_from([*EXPANSIONS]), columns_of({"text": words | st.none(), **RAW}))
def test_any_row_is_candidates_or_refused(how: str, columns: Columns) -> None:
    used = {
        "copa": task("{premise} {link} {choice} <mask>", labels=("0", "1"), row_expansion=how),
        "multirc": task(
            "{paragraph} {question} {answer} <mask>", labels=("0", "1"), row_expansion=how
        ),
        "record": task("{passage} {statement} <mask>", labels=("0", "1"), row_expansion=how),
        "wsc": task("{text} {span} {pronoun} <mask>", labels=("0", "1"), row_expansion=how),
    }[how]
    table = table_of(columns)
    try:
        examples = used.examples(table, need_labels=False)
    except ConfigError as error:
        places_are_told(error, "train.tsv", len(table))
        return
    assert all(isinstance(text, str) for values in examples.columns.values() for text in values)
    assert len(examples) >= len(table)
    assert sum(map(len, examples.units())) == len(examples)
    assert (GROUP in examples.notes) == (how != "wsc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("splits")


TOY = task()
PART = Examples({"text": ["a", "b"]}, [0, 1], [0, 1])
SPLITS = Splits(PART, PART, PART, dict.fromkeys(("train", "dev", "test"), "here"))
GOOD = describe(SPLITS, TOY)


def told(error: ConfigError, file: Path) -> None:
    assert {problem.where for problem in error.problems} == {"data.verify"}
    assert str(file) in str(error)
    str(error).encode()


def verified(folder: Path, content: bytes) -> bool:
    """Whether the split file is that of `SPLITS`; it may be no split file at all."""
    file = folder / "split.json"
    file.write_bytes(content)
    try:
        assert isinstance(read_description(file), dict)
        verify(SPLITS, TOY, file)
    except ConfigError as error:
        told(error, file)
        return False
    return True


@example(b"[" * 5000)
@example(DIGITS.encode())
@given(st.binary() | json_values.map(json.dumps).map(str.encode))
def test_any_file_is_a_split_file_or_refused(folder: Path, content: bytes) -> None:
    assert not verified(folder, content)


def test_a_split_file_is_not_refused(folder: Path) -> None:
    assert verified(folder, json.dumps(GOOD).encode())


def changed(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(json.dumps(GOOD))
    part = content
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return content


PATHS = [(key,) for key in ("format", "kind", "template", "task", "sets")]
PATHS += [("sets", "train"), *(("sets", "dev", key) for key in ("rows", "sha256", "origin"))]


@example(("sets", "dev", "rows"), [0, [1]])
@example(("sets", "dev", "rows"), [2, "a", None])
@example(("template",), "{text} <mask> \ud800")
@example(("sets", "dev", "origin"), "\ud800")
@given(st.sampled_from(PATHS), json_values | st.lists(st.integers(0, 2) | st.text(max_size=1)))
def test_a_changed_split_file_is_told(folder: Path, path: tuple[str, ...], value: Any) -> None:
    content = changed(path, value)
    passes = verified(folder, json.dumps(content).encode())
    harmless = path[-1] in ("origin", "task")  # what a file says of itself
    same = value in (1, [0, 1]) and path[-1] in ("format", "rows")
    assert passes <= (harmless or same)
