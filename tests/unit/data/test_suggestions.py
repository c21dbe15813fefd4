"""What a file of the user's own suggests where settings are missing, and a single file as data."""

from __future__ import annotations

from pathlib import Path

import pytest

from lpt.data.splits import read_splits
from lpt.data.tasks import build_task
from lpt.errors import Problem
from lpt.training.plan import prepare
from tests.support.configs import configured
from tests.support.problems import problems_of

ROWS = [
    (f"{number}", f"the {noun} was {label} to number {number}", label)
    for number in range(10)
    for noun in ("film", "food")
    for label in ("bad", "good", "very good")
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    lines = ["number,review,stars", *(",".join(row) for row in ROWS)]
    (tmp_path / "mine.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path / "mine.csv"


@pytest.mark.parametrize(("model", "slot"), [("masked", "<mask>"), ("causal", "{word}")])
def test_missing_settings_are_suggested_from_the_file(
    checkpoints: dict[str, Path], file: Path, model: str, slot: str
) -> None:
    given = (f"model.path={checkpoints[model]}", "task=custom", f"data.path={file}")

    def problems(*more: str) -> dict[str, Problem]:
        config = configured("model=local", *given, "data.max_length=64", *more)
        return {problem.where: problem for problem in problems_of(lambda: prepare(config))}

    found = problems()
    assert set(found) == {"task.labels", "task.label_words", "task.template", "task.label_column"}
    assert found["task.label_column"].hint == "task.label_column=stars"
    assert "bad (20), good (20), very good (20)" in found["task.labels"].expected
    assert found["task.labels"].hint == "\"task.labels=[bad,good,'very good']\""
    assert found["task.template"].hint == f"""'task.template="{{review}} It was {slot} ."'"""
    assert "review, number" in found["task.template"].expected
    # Each alone, as the hints say.
    column, labels = "task.label_column=stars", "task.labels=[bad,good,'very good']"
    assert set(problems(column, labels)) == {"task.label_words", "task.template"}
    words = "task.label_words=[bad,good,film]"
    template = f"task.template='{{review}} It was {slot} .'"
    assert set(problems(labels, words, template)) == {f"{file}"}  # names the columns
    config = configured(
        *("model=local", *given, "data.max_length=64", column, labels, words, template)
    )
    assert prepare(config).word_ids


def test_of_a_published_data_set_nothing_is_read(checkpoints: dict[str, Path], file: Path) -> None:
    model = ("model=local", f"model.path={checkpoints['causal']}", "data.max_length=64")
    config = configured(*model, "task=sst2", f"data.path={file}")
    del config.task.templates["causal"]
    found = {problem.where: problem.expected for problem in problems_of(lambda: prepare(config))}
    assert found["task.template"] == "templates for: masked"


@pytest.mark.parametrize(
    ("name", "content", "where", "given"),
    [
        ("mine.csv", "", "data.path", "no rows"),
        ("mine.xlsx", "PK", "data.path", "a .xlsx file"),
        ("mine.csv", "a,b\n1\n", "mine.csv:2", ""),
    ],
)
def test_a_file_that_is_wrong_itself_comes_before_what_is_missing(
    checkpoints: dict[str, Path], tmp_path: Path, name: str, content: str, where: str, given: str
) -> None:
    (tmp_path / name).write_text(content)
    model = ("model=local", f"model.path={checkpoints['masked']}", "data.max_length=64")
    config = configured(*model, "task=custom", f"data.path={tmp_path / name}")
    first, *found = problems_of(lambda: prepare(config))
    assert first.where.endswith(where)
    assert first.given.endswith(given)
    assert [problem.where for problem in found] == [
        "task.labels",
        "task.label_words",
        "task.template",
    ]


@pytest.mark.parametrize("protocol", [(), ("data=kshot", "data.k=12", "data.dev_k=9")])
def test_a_single_file_is_divided_into_all_sets(file: Path, protocol: tuple[str, ...]) -> None:
    def sets(seed: int) -> dict[str, list[int]]:
        config = configured(
            *("task=custom", f"data.path={file}", "task.label_column=stars", f"data.seed={seed}"),
            *("task.labels=[bad,good,'very good']", "task.label_words=[bad,good,great]"),
            *("task.template='{review} <mask>'", *protocol),
        )
        splits = read_splits(config, build_task(config, "masked"))
        assert splits.sets["test"].labels.count(0) == 4
        assert "held out of train (12 of 60" in splits.origin["test"]
        return {name: examples.row_ids for name, examples in splits.sets.items()}

    one, other = sets(1), sets(2)
    assert [len(rows) for rows in one.values()] == ([12, 9, 12] if protocol else [39, 9, 12])
    assert one["test"] == other["test"] == sorted(one["test"])
    assert one["dev"] != other["dev"]
    assert len({row for rows in one.values() for row in rows}) == sum(map(len, one.values()))


def test_too_few_rows_of_a_single_file(file: Path) -> None:
    file.write_text("review,stars\ngood,good\nbad,bad\n")
    config = configured(
        *("task=custom", f"data.path={file}", "task.label_column=stars"),
        *("task.labels=[bad,good]", "task.label_words=[bad,good]"),
        "task.template='{review} <mask>'",
    )
    [problem] = problems_of(lambda: read_splits(config, build_task(config, "masked")))
    assert problem.where == "data.path"
    assert "too few rows" in problem.given
