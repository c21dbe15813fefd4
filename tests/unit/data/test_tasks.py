"""Tasks: rows become labelled examples, or are refused with file and line."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from lpt.data.build import build_task
from lpt.data.tables import Table
from lpt.data.tasks import Examples, Task, choose_template
from lpt.errors import ConfigError
from tests.support.task_tables import refused, table, task
from tests.unit.config.test_config import configured


def test_rows_become_examples() -> None:
    rows = table(["pos", "neg", " pos "], text=["a", "", "c"], unused=["1", "2", "3"])
    examples = task().examples(rows, need_labels=True)
    assert examples == Examples({"text": ["a", "", "c"]}, [1, 0, 1], [0, 1, 2])
    assert examples.labelled


def test_take_and_limited() -> None:
    examples = task().examples(table(["pos", "neg", "pos", "neg"]), need_labels=True)
    assert examples.take([3, 0]) == Examples({"text": ["text 3", "text 0"]}, [0, 1], [3, 0])
    assert examples.take([3, 0]).take([1]).row_ids == [0]
    assert [len(examples.limited(n, 13)) for n in (None, 0, 2, 9)] == [4, 0, 2, 4]
    assert {tuple(examples.limited(2, seed).row_ids) for seed in range(30)} > {(0, 1), (2, 3)}


@pytest.mark.parametrize(("bad", "more"), [(1, None), (5, None), (7, 2)])
def test_unknown_labels(bad: int, more: int | None) -> None:
    problems = refused(table(["pos", *["Pos"] * bad, "neg"]), task()).problems
    shown = problems[:5] if more else problems
    assert [p.where for p in shown] == [f"train.tsv:{4 + 2 * i}" for i in range(min(bad, 5))]
    assert {p.given for p in shown} == {"label 'Pos'"}
    assert {p.allowed for p in shown} == {"neg, pos"}
    assert all("task.labels" in p.hint for p in shown)
    if more:
        assert [p.where for p in problems[5:]] == ["train.tsv"]
        assert f"{more} more" in problems[5].given


def test_unlabelled_test_set() -> None:
    rows = Table("test.tsv", {"index": ["0", "1"], "text": ["a", "b"]}, [2, 3])
    examples = task().examples(rows, need_labels=False)
    assert examples == Examples({"text": ["a", "b"]}, [-1, -1], [0, 1])
    [problem] = refused(rows, task()).problems
    assert problem.where == "test.tsv"
    assert "no column label" in problem.given
    assert "index, text" in problem.given
    assert "task.label_column" in problem.hint


def test_wrong_label_is_refused_where_labels_are_optional() -> None:
    [problem] = refused(table(["pos", "maybe"]), task(), need_labels=False).problems
    assert (problem.where, problem.given) == ("train.tsv:4", "label 'maybe'")


def test_missing_columns_come_together_with_near_names() -> None:
    pair = task("{premise} <mask> {hypothesis}", label_column="gold")
    rows = table(["pos"], premisse=["a"], other=["b"])
    problems = refused(rows, pair).problems
    assert {p.where for p in problems} == {"train.tsv"}
    premise, hypothesis, gold = problems
    assert "no column premise (it has: premisse, other, label)" in premise.given
    assert "did you mean premisse?" in premise.hint
    assert "task.template" in premise.allowed
    assert "hypothesis" in hypothesis.given
    assert "did you mean" not in hypothesis.hint
    assert "gold" in gold.given
    assert "task.label_column" in gold.allowed


def test_aliases() -> None:
    aliases = {"text": ["#1 String", "sentence"], "label": ["Quality"]}
    rows = Table("t", {"Quality": ["pos"], "sentence": ["a"]}, [2])
    examples = task(aliases=aliases).examples(rows, need_labels=True)
    assert examples == Examples({"text": ["a"]}, [1], [0])
    both = Table("t", {"Quality": ["pos"], "sentence": ["a"], "text": ["own name first"]}, [2])
    assert task(aliases=aliases).examples(both, need_labels=True).columns["text"] == [
        "own name first"
    ]
    [problem, _] = refused(Table("t", {"other": ["a"]}, [2]), task(aliases=aliases)).problems
    assert "text or #1 String or sentence" in problem.given


def test_missing_values() -> None:
    rows = table(["pos", "wrong", "neg"], text=["a", None, None])
    found = {(p.where, p.given) for p in refused(rows, task()).problems}
    assert found == {
        ("train.tsv:4", "no value for 'text'"),
        ("train.tsv:6", "no value for 'text'"),
        ("train.tsv:4", "label 'wrong'"),
    }


def test_template_is_chosen_by_the_kind_of_model() -> None:
    templates = {"masked": "{text} <mask> .", "causal": "{text} {word} ."}
    assert choose_template("toy", "masked", templates, None).kind == "masked"
    assert choose_template("toy", "causal", templates, None).text == "{text} {word} ."
    assert choose_template("toy", "masked", {}, "<mask> : {text}").text == "<mask> : {text}"
    with pytest.raises(ConfigError) as caught:
        choose_template("toy", "causal", {"masked": "{text} <mask>"}, None)
    [problem] = caught.value.problems
    assert problem.where == "task.template"
    assert "toy has no template for a causal model" in problem.given
    assert "masked" in problem.allowed


# Labels


@pytest.mark.parametrize("value", ["", " ", "-1", None])
def test_unknown_label(value: str | None) -> None:
    """Good for a test set, not for one to learn from."""
    rows = table(["pos", value])
    examples = task().examples(rows, need_labels=False)
    assert examples.labels == [1, -1]
    assert not examples.labelled
    [problem] = refused(rows, task()).problems
    assert problem.where == "train.tsv:4"


def test_labels_in_other_words() -> None:
    aliases = {"0": "pos", "1": "neg", "good": "pos"}
    rows = table(["0", "1", "good", "neg", "pos"])
    examples = task(label_aliases=aliases).examples(rows, need_labels=True)
    assert examples.labels == [1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("names", "aliases", "expected"),
    [
        (["pos", "neg"], {}, [1, 0]),
        (["pos", "neg"], {"0": "neg", "1": "pos"}, [1, 0]),  # names say more than numbers
        (["good", "bad"], {"good": "pos", "bad": "neg"}, [1, 0]),
        (["x", "y"], {"0": "neg", "1": "pos"}, [0, 1]),
        (["x", "y"], {}, None),
    ],
)
def test_names_of_classes(
    names: list[str], aliases: dict[str, str], expected: list[int] | None
) -> None:
    rows = dataclasses.replace(table(["0", "1"]), class_names={"label": names})
    used = task(label_aliases=aliases)
    if expected is None:
        assert [p.given for p in refused(rows, used).problems] == ["label '0'", "label '1'"]
    else:
        assert used.examples(rows, need_labels=True).labels == expected


def test_number_beyond_the_names_of_classes() -> None:
    rows = dataclasses.replace(table(["1", "2"]), class_names={"label": ["neg", "pos"]})
    [problem] = refused(rows, task()).problems
    assert (problem.where, problem.given) == ("train.tsv:4", "label '2'")


def test_names_of_classes_belong_to_their_column() -> None:
    rows = dataclasses.replace(table(["0", "1"]), class_names={"other": ["pos", "neg"]})
    used = task(label_aliases={"0": "neg", "1": "pos"})
    assert used.examples(rows, need_labels=True).labels == [0, 1]


HUB_NAMES: dict[str, list[str]] = {  # the hub's classes; the same as the task's labels or numbers
    "sst2": ["negative", "positive"],
    "cola": ["unacceptable", "acceptable"],
    "mrpc": ["not_equivalent", "equivalent"],
    "qqp": ["not_duplicate", "duplicate"],
    "mr": ["neg", "pos"],
    "rte": ["entailment", "not_entailment"],
    "qnli": ["entailment", "not_entailment"],
    "wnli": ["not_entailment", "entailment"],
    "mnli": ["entailment", "neutral", "contradiction"],
    "snli": ["entailment", "neutral", "contradiction"],
    "ax": ["entailment", "neutral", "contradiction"],
    "ax-b": ["entailment", "not_entailment"],
    "ax-g": ["entailment", "not_entailment"],
    "cb": ["entailment", "contradiction", "neutral"],
    "boolq": ["False", "True"],
    "wic": ["False", "True"],
}
BOOLEANS = {"False": "false", "True": "true"}


@pytest.mark.parametrize("named", [True, False], ids=["named", "numbers alone"])
@pytest.mark.parametrize("name", HUB_NAMES)
def test_labels_of_the_hub(name: str, named: bool) -> None:
    """With the classes' names, as in its parquet, and without, as in CSV."""
    used, names = build_task(configured(f"task={name}"), "masked"), HUB_NAMES[name]
    numbers = [str(n) for n in range(len(names))]
    texts = dict.fromkeys(used.template.columns, numbers)
    table = Table("hub", texts | {"label": numbers}, range(3), {"label": names} if named else {})
    own = [used.shown(label) for label in used.examples(table, need_labels=True).labels]
    translated = [BOOLEANS.get(name, name) for name in names]
    assert own == (translated if used.labels[0] in translated else numbers)
    assert set(own) == set(used.labels)


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
    used = build_task(configured(f"task={name}"), "masked")
    rows = Table("hub", {column: [value] for column, value in row.items()}, [1])
    [found] = used.examples(rows, need_labels=True).labels
    assert used.shown(found) == label


@pytest.mark.parametrize("need", [True, False])
def test_rows_that_are_left_out_for_their_label(need: bool) -> None:
    rows = table(["-", "pos", "-1", "neg", "-"], text=list("abcde"), id=list("vwxyz"))
    used = task(skip_labels=("-", "-1"), id_columns=("id",))
    assert used.examples(rows, need_labels=need) == Examples(
        {"text": ["b", "d"]}, [1, 0], [1, 3], {"id": ["w", "y"]}
    )
    assert task(skip_labels=("-",)).examples(rows, need_labels=False).row_ids == [1, 2, 3]
    [problem] = refused(rows, task(skip_labels=("-",))).problems
    assert (problem.where, problem.given) == ("train.tsv:6", "no label")


# Numbers


def number(**changes: Any) -> Task:
    return task(labels=("0", "5"), task_type="regression", metrics=("pearson",), **changes)


def test_labels_that_are_numbers() -> None:
    texts = ["0", "5.000", "3.800", "3.799999952316284", "2", "1e-1", " 4.5 "]
    examples = number().examples(table(texts), need_labels=True)
    assert examples.labels == [0.0, 5.0, 3.8, 3.8, 2.0, 0.1, 4.5]
    assert examples.labelled
    assert [number().shown(label) for label in (3.8, 5.0)] == ["3.800", "5.000"]


@pytest.mark.parametrize("text", ["5.01", "-0.5", "five", "nan", "inf", "-inf", "1,5", "0x1"])
def test_labels_that_are_no_number_of_the_range(text: str) -> None:
    for need in (True, False):
        [problem] = refused(table(["1.0", text]), number(), need_labels=need).problems
        assert (problem.where, problem.given) == ("train.tsv:4", f"label {text!r}")
        assert problem.expected == "a number from 0 to 5"


@pytest.mark.parametrize("text", ["", "-1", "-1.0", None])
def test_number_that_is_unknown(text: str | None) -> None:
    rows = table(["1.0", text])
    assert number().examples(rows, need_labels=False).labels == [1.0, -1]
    [problem] = refused(rows, number()).problems
    assert problem.where == "train.tsv:4"
