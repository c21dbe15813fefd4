"""Rows become labeled examples, or are refused with file and line."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence

import pytest

from lpt.data.examples import UNKNOWN, Examples
from lpt.data.tables import Table
from lpt.data.tasks import Task, format_label
from tests.support.task_tables import examples_of, official, refused, table, task


def test_rows_become_examples() -> None:
    rows = table(["pos", "neg", " pos "], text=["a", "", "c"], unused=["1", "2", "3"])
    assert examples_of(rows) == Examples({"text": ["a", "", "c"]}, [1, 0, 1], [0, 1, 2])


def test_missing_columns_are_reported_together_with_near_names() -> None:
    pair = task("{premise} <mask> {hypothesis}", label_column="gold")
    premise, hypothesis, gold = refused(table(["pos"], premisse=["a"], other=["b"]), pair)
    assert {p.where for p in (premise, hypothesis, gold)} == {"train.tsv"}
    assert "no column premise (it has: premisse, other, label)" in premise.given
    assert "did you mean premisse?" in premise.hint
    assert "task.template" in premise.expected
    assert "did you mean" not in hypothesis.hint
    assert "task.label_column" in gold.expected


def test_aliases() -> None:
    used = task(aliases={"text": ["#1 String", "sentence"], "label": ["Quality"]})
    columns = {"Quality": ["pos"], "sentence": ["a"]}
    assert examples_of(Table("t", columns, [2]), used) == Examples({"text": ["a"]}, [1], [0])
    both = Table("t", columns | {"text": ["own name first"]}, [2])
    assert examples_of(both, used).columns["text"] == ["own name first"]
    problem, _ = refused(Table("t", {"other": ["a"]}, [2]), used)
    assert "text or #1 String or sentence" in problem.given


def test_missing_values() -> None:
    rows = table(["pos", "wrong", "neg"], text=["a", None, None])
    assert {(p.where, p.given) for p in refused(rows, task())} == {
        ("train.tsv:4", "no value for 'text'"),
        ("train.tsv:6", "no value for 'text'"),
        ("train.tsv:4", "label 'wrong'"),
    }


NUMBER = task(labels=["0", "5"], task_type="regression")
INVALID = [
    (task(), "Pos", "neg, pos"),
    *(
        (NUMBER, x, "a number from 0 to 5")
        for x in ("5.01", "-0.5", "five", "nan", "1e400", "1,5", "0_1")
    ),
]


@pytest.mark.parametrize("need", [True, False])
@pytest.mark.parametrize(("used", "value", "expected"), INVALID)
def test_invalid_labels(used: Task, value: str, expected: str, need: bool) -> None:
    *shown, rest = refused(table([value] * 7), used, need_labels=need)
    assert [p.where for p in shown] == [f"train.tsv:{2 + 2 * i}" for i in range(5)]
    assert {(p.given, p.expected) for p in shown} == {(f"label {value!r}", expected)}
    assert ("task.labels" in shown[0].hint) == (used is not NUMBER)
    assert rest.given == "2 more rows with such labels"


@pytest.mark.parametrize(
    ("used", "value"),
    [*((task(), x) for x in ("", " ", "-1", None)), *((NUMBER, x) for x in ("", "-1.0", None))],
)
def test_missing_labels_are_for_test_sets(used: Task, value: str | None) -> None:
    rows = table(["pos" if used is not NUMBER else "1.0", value])
    found = examples_of(rows, used, need_labels=False)
    unknown = math.nan if used is NUMBER else UNKNOWN
    assert (found.labels, found.labeled_positions()) == ([1, unknown], [0])
    [problem] = refused(rows, used)
    assert problem.where == "train.tsv:4"
    assert problem.given == ("label '-1.0'" if value == "-1.0" else "no label")


def test_numbers() -> None:
    labels = ["0", "5.000", "3.800", "3.799999952316284", "2", "1e-1", " 4.5 "]
    assert examples_of(table(labels), NUMBER).labels == [0.0, 5.0, 3.8, 3.8, 2.0, 0.1, 4.5]
    assert [format_label(label, NUMBER.config.labels) for label in (3.8, 5.0)] == ["3.8", "5.0"]


@pytest.mark.parametrize(
    ("ends", "labels"),
    [
        (("0", "0.001"), ["0.000110", "0.000121", "0.000989", "1e-7"]),
        (("0", "1"), ["0.12341", "0.12344", "0.1234123412341", "0.1234123412342"]),
        (("0", "1e9"), ["123456791", "123456792", "123456793.5", "999999999.875"]),
        (("-1e3", "-1"), ["-1.00001", "-1.00002", "-1", "-999.99999"]),
    ],
)
def test_numbers_are_not_rounded(ends: tuple[str, str], labels: list[str]) -> None:
    used = task(labels=list(ends), task_type="regression")
    found = examples_of(table(labels), used).labels
    assert found == [float(label) for label in labels]
    assert [float(format_label(label, ends)) for label in found] == found


@pytest.mark.parametrize("ends", [("-1", "1"), ("-3", "3"), ("-1.5", "-0.5")])
def test_minus_one_is_a_number_of_a_range_that_holds_it(ends: tuple[str, str]) -> None:
    used = task(labels=list(ends), task_type="regression")
    rows = table(["-1", "-1.0", "-0.75", ""])
    found = examples_of(rows, used, need_labels=False)
    assert found.labels == [-1.0, -1.0, -0.75, math.nan]
    assert found.labeled_positions() == [0, 1, 2]
    [problem] = refused(rows, used)
    assert (problem.where, problem.given) == ("train.tsv:8", "no label")


@pytest.mark.parametrize(
    "used",
    [
        task(labels=["-1", "1"]),
        task(label_aliases={"-1": "neg", "1": "pos"}),
    ],
)
def test_minus_one_is_a_label_where_the_task_says_so(used: Task) -> None:
    found = examples_of(table(["-1", "1", ""]), used, need_labels=False)
    assert found.labels == [0, 1, UNKNOWN]


def test_a_set_that_is_labeled_in_part_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        examples_of(table(["pos", "", "neg", "-1", "pos"]), need_labels=False)
    assert "train.tsv: 2 of 5 examples have no label: the scores are those of the other 3" in (
        caplog.text
    )
    caplog.clear()
    examples_of(table(["", ""]), need_labels=False)
    examples_of(table(["pos", "neg"]), need_labels=False)
    assert not caplog.text


def test_set_without_labels() -> None:
    rows = Table("test.tsv", {"text": ["a", "b"]}, [2, 3])
    found = examples_of(rows, need_labels=False)
    assert found == Examples({"text": ["a", "b"]}, [UNKNOWN] * 2, [0, 1])
    [problem] = refused(rows, task())
    assert (problem.where, problem.given) == ("test.tsv", "no column label (it has: text)")


@pytest.mark.parametrize(
    ("names", "aliases", "expected"),
    [
        (None, {"0": "pos", "1": "neg"}, [1, 0]),
        (["pos", "neg"], {}, [1, 0]),
        (["pos", "neg"], {"0": "neg", "1": "pos"}, [1, 0]),  # names have priority over numbers
        (["good", "bad"], {"good": "pos", "bad": "neg"}, [1, 0]),
        (["x", "y"], {"0": "neg", "1": "pos"}, [0, 1]),
        (["x", "y"], {}, None),
        (["x"], {"0": "neg"}, None),  # fewer names than numbers
    ],
)
def test_class_names_and_aliases(
    names: list[str] | None, aliases: dict[str, str], expected: list[int] | None
) -> None:
    rows = dataclasses.replace(
        table(["0", "1"]), class_names={"label": names, "other": ["x"]} if names else {}
    )
    used = task(label_aliases=aliases)
    if expected is None:
        assert refused(rows, used)[-1].given == "label '1'"
    else:
        assert examples_of(rows, used).labels == expected


HUB_NAMES: dict[str, Sequence[str]] = {  # the task's labels; elsewhere, those are the numbers
    "sst2": ["negative", "positive"],
    "cola": ["unacceptable", "acceptable"],
    "mrpc": ["not_equivalent", "equivalent"],
    "qqp": ["not_duplicate", "duplicate"],
    "mr": ["neg", "pos"],
    "wnli": ["not_entailment", "entailment"],
    "cb": ["entailment", "contradiction", "neutral"],
    **dict.fromkeys(("boolq", "wic"), ("False", "True")),
    **dict.fromkeys(("rte", "qnli", "ax-b", "ax-g"), ("entailment", "not_entailment")),
    **dict.fromkeys(("mnli", "snli", "ax"), ("entailment", "neutral", "contradiction")),
}


@pytest.mark.parametrize("named", [True, False], ids=["named", "numbers alone"])
@pytest.mark.parametrize("name", HUB_NAMES)
def test_labels_of_the_hub(name: str, named: bool) -> None:
    """With the classes' names, as in its parquet, and without, as in CSV."""
    used, names = official(name), HUB_NAMES[name]
    numbers = [str(n) for n in range(len(names))]
    columns = dict.fromkeys(used.template.columns, numbers) | {"label": numbers}
    rows = Table("hub", columns, range(3), {"label": names} if named else {})
    labels = [format_label(label, used.config.labels) for label in examples_of(rows, used).labels]
    translated = [{"False": "false", "True": "true"}.get(name, name) for name in names]
    assert labels == (translated if used.config.labels[0] in translated else numbers)
    assert set(labels) == set(used.config.labels)


@pytest.mark.parametrize(
    ("name", "row", "label"),
    [
        ("trec", {"text": "x", "label_coarse_original": "HUM", "label": "1"}, "3"),
        ("trec", {"text": "x", "label": "3"}, "3"),
        ("subj", {"text": "x", "label_text": "objective", "label": "0"}, "1"),
        ("subj", {"text": "x", "label": "0"}, "0"),
    ],
)
def test_hub_numbers_that_are_not_the_papers(name: str, row: dict[str, str], label: str) -> None:
    used = official(name)
    rows = Table("hub", {column: [value] for column, value in row.items()}, [1])
    [found] = examples_of(rows, used).labels
    assert format_label(found, used.config.labels) == label


def test_skipped_labels() -> None:
    rows = table(["-", "pos", "-1", "neg", "-"], text=list("abcde"), id=list("vwxyz"))
    used = task(skip_labels=["-", "-1"], id_columns=["id"])
    expected = Examples({"text": ["b", "d"]}, [1, 0], [1, 3], {"id": ["w", "y"]})
    assert examples_of(rows, used) == expected
    [problem] = refused(rows, task(skip_labels=["-"]))
    assert (problem.where, problem.given) == ("train.tsv:6", "no label")
    [problem] = refused(table(["-", "-"]), used)
    assert problem.given == "only rows with skipped labels ('-', '-1')"


def test_official_ids() -> None:
    used = official("sst2")
    for name in ("idx", "index", "id"):
        rows = table(["0", "1"], text=["a", "b"], **{name: ["7", "9"]})
        assert examples_of(rows, used).metadata == {"id": ["7", "9"]}
    rows = table(["0", "1"], text=["a", "b"], id=["1", "1"], idx=["7", "9"])
    assert examples_of(rows, used).metadata == {"id": ["7", "9"]}  # idx comes first


def test_duplicate_ids() -> None:
    rows = table(["0", "1", "0", "1"], text=list("abcd"), index=["7", "8", "9", "8"])
    [problem] = refused(rows, official("sst2"))
    assert (problem.where, problem.given) == ("train.tsv:8", "id '8', as in train.tsv:4")
    assert "'index'" in problem.expected
    assert "task.id_columns=[]" in problem.hint
    without = official("sst2", "task.id_columns=[]")
    assert examples_of(rows, without).metadata == {}
