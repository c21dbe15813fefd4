"""Row expansions, against expectations written by hand."""

from __future__ import annotations

from typing import Any

import pytest

from lpt.config.task_schema import ROW_EXPANSIONS as NAMES
from lpt.data.candidates import ROW_EXPANSIONS, expand_rows
from tests.support.problems import problems_of
from tests.support.task_tables import jsonl

Row = dict[str, Any]


def expanded(name: str, *rows: Row) -> list[dict[str, str | None]]:
    result = expand_rows(jsonl(*rows), name)
    cells = zip(*result.columns.values(), strict=True)
    return [dict(zip(result.columns, values, strict=True)) for values in cells]


def without(row: Row, *names: str) -> Row:
    return {key: value for key, value in row.items() if key not in names}


def test_the_schema_names_all_expansions() -> None:
    assert set(NAMES) == set(ROW_EXPANSIONS)


COPA = {
    "premise": "The cup fell. ",
    "choice1": "It broke.",
    "choice2": "The cat pushed it. ",
    "question": "effect",
    "label": 0,
    "idx": 7,
}


@pytest.mark.parametrize(
    ("change", "link", "labels"),
    [
        ({"question": "cause"}, "because", ["1", "0"]),
        ({"label": 1}, "so", ["0", "1"]),
        ({"label": -1}, "so", [None, None]),
    ],
)
def test_copa(change: Row, link: str, labels: list[str | None]) -> None:
    shared = {"premise": "The cup fell", "link": link, "group": "7"}
    assert expanded("copa", COPA | change) == [
        {**shared, "choice": "it broke", "label": labels[0], "id": "7/0", "answer": "0"},
        {**shared, "choice": "the cat pushed it", "label": labels[1], "id": "7/1", "answer": "1"},
    ]


def test_copa_without_label_or_number() -> None:
    rows = expanded("copa", *[without(COPA, "label", "idx")] * 2)
    assert [(row["label"], row["id"], row["group"]) for row in rows] == [
        (None, f"{row}/{choice}", f"{row}") for row in range(2) for choice in range(2)
    ]


def question(idx: int, text: str, *answers: tuple[int, Any, int | None]) -> Row:
    options = [
        {"idx": n, "text": a} | ({} if label is None else {"label": label})
        for n, a, label in answers
    ]
    return {"idx": idx, "question": text, "answers": options}


MULTIRC = {
    "idx": 4,
    "version": 1.1,
    "passage": {
        "text": "<b>Sent 1: </b>Ann ran.<br><b>Sent 2: </b>Bob  slept.<br/>",
        "questions": [
            question(8, "Who ran?", (20, "Ann", 1), (21, "Bob", 0)),
            question(9, "Who slept?", (22, "Bob", 1)),
            question(10, "Who?", (23, "Ann", None), (24, "Bob", -1)),
        ],
    },
}


def test_multirc() -> None:
    text = {"paragraph": "Ann ran. Bob slept."}
    ran, slept = text | {"question": "Who ran?"}, text | {"question": "Who slept?"}
    who = text | {"question": "Who?", "label": None, "group": "4/10"}
    assert expanded("multirc", MULTIRC) == [
        {**ran, "answer": "Ann", "label": "1", "id": "4/8/20", "group": "4/8"},
        {**ran, "answer": "Bob", "label": "0", "id": "4/8/21", "group": "4/8"},
        {**slept, "answer": "Bob", "label": "1", "id": "4/9/22", "group": "4/9"},
        {**who, "answer": "Ann", "id": "4/10/23"},
        {**who, "answer": "Bob", "id": "4/10/24"},
    ]


#       0123456789012345678901234567890123
TEXT = "Oslo met Ann in Rome. Ann left.\n@highlight\nRome is old\n@highlight\nAnn won"
SPANS = [(0, 3), (9, 11), (16, 19), (22, 24), (43, 46)]  # ends are inclusive


def record(*answers: str, text: str = TEXT, query: str = "So @placeholder it is") -> Row:
    qa: Row = {"idx": 5, "query": query}
    if answers:
        qa["answers"] = [{"start": 0, "end": 0, "text": answer} for answer in answers]
    entities = [{"start": start, "end": end} for start, end in SPANS]
    return {"idx": 2, "passage": {"text": text, "entities": entities}, "qas": [qa]}


def test_record() -> None:
    rows = expanded("record", record("Rome", "Ann", "Rome"))
    shared = {
        "passage": "Oslo met Ann in Rome. Ann left. Rome is old. Ann won",
        "gold": '["Ann", "Rome"]',
        "group": "5",
    }
    assert rows == [
        {**shared, "statement": f"So {name} it is", "label": label, "id": f"5/{at}", "answer": name}
        for at, (name, label) in enumerate([("Ann", "1"), ("Oslo", "0"), ("Rome", "1")])
    ]
    unlabelled = expanded("record", record())
    assert [(row["label"], row["gold"]) for row in unlabelled] == [(None, "[]")] * 3


def test_record_queries() -> None:
    row = record("Ann", query="@placeholder and @placeholder")
    row["qas"] += [{"idx": 6, "query": "@placeholder!", "answers": [{"text": "Paris"}]}]
    rows = expanded("record", row)
    assert [row["id"] for row in rows] == [f"{q}/{at}" for q in (5, 6) for at in range(3)]
    assert [row["label"] for row in rows] == ["1", "0", "0"] + ["0"] * 3  # Paris is no entity
    assert rows[0]["statement"] == "Ann and Ann"


def passage_of(name: str, text: str) -> Row:
    if name == "record":
        return record("x", text=text)
    return {"idx": 0, "passage": {"text": text, "questions": [question(0, "?", (0, "a", None))]}}


@pytest.mark.parametrize(
    ("name", "marked", "plain"),
    [
        ("multirc", "<b>Sent 12: </b>A b.<br><b>Sent 13: </b>C.", "A b. C."),
        ("multirc", "One.<br/>Two.<br />Three.", "One. Two. Three."),
        ("multirc", "  a\n b\t c ", "a b c"),
        ("multirc", "1 < 2 and Sent 3: stays", "1 < 2 and Sent 3: stays"),
        ("record", "End.\n@highlight\nA point\n@highlight\nAnother", "End. A point. Another"),
        ("record", 'It "was"\n@highlight\n\nA point?\n@highlight\nB', 'It "was" A point? B'),
        ("record", "No mark  at\nall", "No mark at all"),
    ],
)
def test_markup_is_removed(name: str, marked: str, plain: str) -> None:
    prefix = "x" * 50  # long enough for the spans
    rows = expanded(name, passage_of(name, f"{prefix} {marked}"))
    column = "passage" if name == "record" else "paragraph"
    assert {row[column] for row in rows} == {f"{prefix} {plain}"}


def wsc(text: str, at: int, pronoun: str = "he") -> Row:
    target = {"span1_index": 0, "span1_text": "Bob", "span2_index": at, "span2_text": pronoun}
    return {"text": text, "target": target, "idx": 3, "label": True}


@pytest.mark.parametrize(
    ("text", "at", "pronoun", "marked"),
    [
        ("Bob ran when he saw it.", 3, "he", "Bob ran when *he* saw it."),
        ("Bob ran when he saw it.", 2, "he", "Bob ran when *he* saw it."),
        ("Bob ran when he saw it.", 4, "he", "Bob ran when *he* saw it."),
        ("Bob ran, he fell, he rose.", 2, "he", "Bob ran, *he* fell, he rose."),
        ("Bob ran, he fell, he rose.", 4, "he", "Bob ran, he fell, *he* rose."),
        ('Bob said: "he, too."', 2, "he", 'Bob said: "*he*, too."'),
        ("Ann shot (him).", 2, "him", "Ann shot (*him*)."),
        ("Ann knew it's his.", 2, "it", "Ann knew *it*'s his."),
        ("The hen fed her", 3, "her", "The hen fed *her*"),
        ("Then he left  the\tshed", 1, "he", "Then *he* left the shed"),
    ],
)
def test_wsc(text: str, at: int, pronoun: str, marked: str) -> None:
    expected = {"text": marked, "span": "Bob", "pronoun": pronoun, "id": "3", "label": "true"}
    assert expanded("wsc", wsc(text, at, pronoun)) == [expected]


NUMBERS = {"text": "A", "questions": [question(0, "?", (3, 2, 1))]}
BAD: dict[str, tuple[str, Row, str]] = {
    "copa question": ("copa", COPA | {"question": "why"}, "'why', none of cause, effect"),
    "copa empty": ("copa", COPA | {"question": None}, "no value for 'question'"),
    "copa column": ("copa", without(COPA, "choice2"), "no 'choice2'"),
    "multirc empty": ("multirc", {"passage": {"text": "A.", "questions": []}}, "no questions"),
    "multirc number": ("multirc", {"passage": NUMBERS}, "answer 2 is no text"),
    "record placeholder": ("record", record("Ann", query="no place"), "without @placeholder"),
    "wsc pronoun": ("wsc", wsc("Bob ran.", 1), "no pronoun 'he' at word 1"),
    "wsc empty pronoun": ("wsc", wsc("Bob ran.", 1, " "), "no value for 'span2_text'"),
}


@pytest.mark.parametrize(("name", "row", "given"), BAD.values(), ids=BAD)
def test_bad_rows_are_named(name: str, row: Row, given: str) -> None:
    problems = problems_of(lambda: expand_rows(jsonl(row, row), name))
    assert [problem.where for problem in problems] == ["train.jsonl:1", "train.jsonl:2"]
    for problem in problems:
        assert given in problem.given
        assert problem.expected == f"a row of {name} as in official files"
