"""Cells that are not what a task expects: no text, or another spelling of a label."""

from __future__ import annotations

import pytest

from lpt.data.cells import NoText
from lpt.data.examples import build_examples
from tests.support.task_tables import refused, table, task


def test_values_that_are_no_text() -> None:
    cells = ["a", NoText(["b"]), NoText(float("nan")), "it\x92s"]
    problems = refused(table(["pos"] * 4, text=cells), task())
    assert [(p.where, p.given) for p in problems] == [
        ("train.tsv:4", "'text' is a list: [\"b\"]"),
        ("train.tsv:6", "'text' is NaN: NaN"),
        ("train.tsv:8", "the control character '\\x92' in 'text'"),
    ]
    assert "cp1252" in problems[-1].hint
    published = task(folder="MR")  # whose texts stay as they are
    assert build_examples(published, table(["pos"], text=["it\x92s"]), need_labels=True).columns[
        "text"
    ] == ["it\x92s"]


@pytest.mark.parametrize(
    ("labels", "value", "setting"),
    [
        (["neg", "pos"], "POS", "{POS:pos}"),
        (["0", "1"], "1.0", "{1.0:'1'}"),
        (["0.5", "1"], "1.00", "{'1.00': '1'}"),
        (["false", "true"], "True", "{True:'true'}"),
        (["no", "yes"], "False", "{False:no}"),
        (["n\u00e9gatif", "positif"], "ne\u0301gatif", "{'ne\u0301gatif': 'n\u00e9gatif'}"),
        (["a", "A"], "\uff41", None),  # which of the two?
        (["neg", "pos"], "positive", None),
    ],
)
def test_aliases_are_suggested_for_other_spellings(
    labels: list[str], value: str, setting: str | None
) -> None:
    [problem] = refused(table([value, labels[0]]), task(labels=labels))
    assert ("task.label_words" in problem.hint) == (setting is None)
    assert setting is None or setting in problem.hint
    assert "\u0301" not in problem.given  # looks like a label of the task: shown as an escape
