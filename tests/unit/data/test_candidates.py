"""Rows that become candidates, and WSC's marks, against expectations written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from lpt.data.candidates import EXPANSIONS, expand
from lpt.data.tables import Table
from lpt.errors import ConfigError

Row = dict[str, Any]


def cell(value: Any) -> str | None:
    """A value as the readers of files give it."""
    return value if value is None or isinstance(value, str) else json.dumps(value)


def table(*rows: Row) -> Table:
    """Rows on lines 3, 6, 9, ... of val.jsonl."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [cell(row.get(name)) for row in rows] for name in names}
    return Table("val.jsonl", columns, [3 * n for n in range(1, len(rows) + 1)])


def expanded(how: str, *rows: Row) -> list[dict[str, str | None]]:
    made = expand(table(*rows), how)
    cells = zip(*made.columns.values(), strict=True)
    return [dict(zip(made.columns, values, strict=True)) for values in cells]


COPA = {
    "premise": "The cup fell. ",
    "choice1": "It broke.",
    "choice2": "The cat pushed it. ",
    "question": "effect",
    "label": 0,
    "idx": 7,
}


def test_copa() -> None:
    shared = {"premise": "The cup fell", "link": "so", "group": "7"}
    assert expanded("copa", COPA) == [
        {**shared, "choice": "it broke", "label": "1", "id": "7/0", "answer": "0"},
        {**shared, "choice": "the cat pushed it", "label": "0", "id": "7/1", "answer": "1"},
    ]


@pytest.mark.parametrize(("question", "link"), [("cause", "because"), ("effect", "so")])
def test_copa_links(question: str, link: str) -> None:
    assert {row["link"] for row in expanded("copa", COPA | {"question": question})} == {link}


@pytest.mark.parametrize(
    ("label", "labels"),
    [(0, ["1", "0"]), (1, ["0", "1"]), ("1", ["0", "1"]), (-1, [None] * 2), (None, [None] * 2)],
)
def test_copa_labels(label: Any, labels: list[str | None]) -> None:
    assert [row["label"] for row in expanded("copa", COPA | {"label": label})] == labels


def test_copa_without_label_or_number() -> None:
    bare = {name: value for name, value in COPA.items() if name not in ("label", "idx")}
    rows = expanded("copa", bare, bare)
    assert [row["label"] for row in rows] == [None] * 4
    assert [row["id"] for row in rows] == ["0/0", "0/1", "1/0", "1/1"]
    assert [row["group"] for row in rows] == ["0", "0", "1", "1"]


def test_lines_are_those_of_the_row() -> None:
    made = expand(table(COPA, COPA | {"idx": 8}), "copa")
    assert [made.place(row) for row in range(4)] == ["val.jsonl:3"] * 2 + ["val.jsonl:6"] * 2


def question(idx: int, text: str, *answers: tuple[int, str, int | None]) -> dict[str, Any]:
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
        ],
    },
}


def test_multirc() -> None:
    rows = expanded("multirc", MULTIRC)
    assert {row.pop("paragraph") for row in rows} == {"Ann ran. Bob slept."}
    assert rows == [
        {"question": "Who ran?", "answer": "Ann", "label": "1", "id": "4/8/20", "group": "4/8"},
        {"question": "Who ran?", "answer": "Bob", "label": "0", "id": "4/8/21", "group": "4/8"},
        {"question": "Who slept?", "answer": "Bob", "label": "1", "id": "4/9/22", "group": "4/9"},
    ]


@pytest.mark.parametrize(
    ("marked", "plain"),
    [
        ("<b>Sent 12: </b>A b.<br><b>Sent 13: </b>C.", "A b. C."),
        ("A <b>big</b> day", "A big day"),
        ("One.<br/>Two.<br />Three.", "One. Two. Three."),
        ("  a\n b\t c ", "a b c"),
        ("1 < 2 and Sent 3: stays", "1 < 2 and Sent 3: stays"),
    ],
)
def test_multirc_markup(marked: str, plain: str) -> None:
    passage = {"text": marked, "questions": [question(0, "?", (0, "a", 1))]}
    [row] = expanded("multirc", {"idx": 0, "passage": passage})
    assert row["paragraph"] == plain


def test_multirc_without_labels() -> None:
    passage = {"text": "A.", "questions": [question(0, "?", (0, "a", None), (1, "b", -1))]}
    assert [r["label"] for r in expanded("multirc", {"idx": 0, "passage": passage})] == [None] * 2


def test_multirc_as_the_hub_has_it() -> None:
    row = {"paragraph": "<b>Sent 1: </b>Ann ran.", "question": "Who?", "answer": "Ann"}
    idx = {"paragraph": 4, "question": 8, "answer": 20}
    wrong = {"answer": "Bob", "label": 0, "idx": idx | {"answer": 21}}
    rows = expanded("multirc", row | {"label": 1, "idx": idx}, row | wrong)
    shared = {"paragraph": "Ann ran.", "question": "Who?", "group": "4/8"}
    assert rows == [
        shared | {"answer": "Ann", "label": "1", "id": "4/8/20"},
        shared | {"answer": "Bob", "label": "0", "id": "4/8/21"},
    ]


def entity(text: str, start: int, end: int) -> tuple[dict[str, int], str]:
    return {"start": start, "end": end}, text


#       0123456789012345678901234567890123
TEXT = "Oslo met Ann in Rome. Ann left.\n@highlight\nRome is old\n@highlight\nAnn won"
SPANS = [(0, 3), (9, 11), (16, 19), (22, 24), (43, 46)]  # ends are inclusive


def record(*answers: str, text: str = TEXT, query: str = "So @placeholder it is") -> Row:
    qa: dict[str, Any] = {"idx": 5, "query": query}
    if answers:
        qa["answers"] = [{"start": 0, "end": 0, "text": answer} for answer in answers]
    entities = [{"start": start, "end": end} for start, end in SPANS]
    return {"idx": 2, "passage": {"text": text, "entities": entities}, "qas": [qa]}


def test_record() -> None:
    rows = expanded("record", record("Rome", "Ann", "Rome"))
    passage = "Oslo met Ann in Rome. Ann left. Rome is old. Ann won"
    assert {row.pop("passage") for row in rows} == {passage}
    assert {row.pop("gold") for row in rows} == {'["Ann", "Rome"]'}
    assert rows == [
        {
            "statement": f"So {name} it is",
            "label": label,
            "id": f"5/{at}",
            "group": "5",
            "answer": name,
        }
        for at, (name, label) in enumerate([("Ann", "1"), ("Oslo", "0"), ("Rome", "1")])
    ]


def test_record_without_answers() -> None:
    rows = expanded("record", record())
    assert [(row["label"], row["gold"]) for row in rows] == [(None, "[]")] * 3


def test_record_answers_that_are_no_entities_make_none_right() -> None:
    assert [row["label"] for row in expanded("record", record("Paris"))] == ["0"] * 3


def test_record_fills_every_placeholder() -> None:
    rows = expanded("record", record("Ann", query="@placeholder and @placeholder"))
    assert rows[0]["statement"] == "Ann and Ann"


def test_record_has_candidates_for_each_query() -> None:
    row = record("Ann")
    row["qas"] = [*row["qas"], {"idx": 6, "query": "@placeholder!", "answers": [{"text": "Oslo"}]}]
    rows = expanded("record", row)
    assert [row["group"] for row in rows] == ["5"] * 3 + ["6"] * 3
    assert [row["label"] for row in rows] == ["1", "0", "0", "0", "1", "0"]
    assert [row["id"] for row in rows] == [f"{q}/{at}" for q in (5, 6) for at in range(3)]


HIGHLIGHTS = "x" * 50  # long enough for the spans


@pytest.mark.parametrize(
    ("marked", "plain"),
    [
        ("End.\n@highlight\nA point\n@highlight\nAnother", "End. A point. Another"),
        ('He said "no"\n@highlight\n\nA point?\n@highlight\nB', 'He said "no" A point? B'),
        ("No mark  at\nall", "No mark at all"),
    ],
)
def test_record_highlights(marked: str, plain: str) -> None:
    text = f"{HIGHLIGHTS} {marked}"
    assert {row["passage"] for row in expanded("record", record("x", text=text))} == {
        f"{HIGHLIGHTS} {plain}"
    }


def test_record_as_the_hub_has_it() -> None:
    row = {
        "passage": TEXT,
        "query": "So @placeholder it is",
        "entities": ["Rome", "Oslo", "Ann", "Rome"],
        "answers": ["Rome", "Ann"],
        "idx": {"passage": 2, "query": 5},
    }
    assert expanded("record", row) == expanded("record", record("Rome", "Ann"))
    unknown = expanded("record", row | {"answers": []})
    assert unknown == expanded("record", record())


def wsc(text: str, at: int, pronoun: str = "he", **more: Any) -> Row:
    target = {"span1_index": 0, "span1_text": "Bob", "span2_index": at, "span2_text": pronoun}
    return {"text": text, "target": target, "idx": 3, "label": True} | more


def test_wsc() -> None:
    assert expanded("wsc", wsc("Bob ran when he saw it.", 3)) == [
        {
            "text": "Bob ran when *he* saw it.",
            "span": "Bob",
            "pronoun": "he",
            "label": "true",
            "id": "3",
        }
    ]


@pytest.mark.parametrize(
    ("text", "at", "pronoun", "marked"),
    [
        ("Bob ran when he saw it.", 2, "he", "Bob ran when *he* saw it."),
        ("Bob ran when he saw it.", 4, "he", "Bob ran when *he* saw it."),
        ("Bob ran, he fell, he rose.", 2, "he", "Bob ran, *he* fell, he rose."),
        ("Bob ran, he fell, he rose.", 4, "he", "Bob ran, he fell, *he* rose."),
        ("Bob ran, he fell, he rose.", 5, "he", "Bob ran, he fell, *he* rose."),
        ('Bob said: "he, too."', 2, "he", 'Bob said: "*he*, too."'),
        ("Ann shot (him).", 2, "him", "Ann shot (*him*)."),
        ("Ann knew it's his.", 2, "it", "Ann knew *it*'s his."),
        ("The hen fed her", 3, "her", "The hen fed *her*"),
        ("Then he left  the\tshed", 1, "he", "Then *he* left the shed"),
    ],
)
def test_wsc_marks_the_right_word(text: str, at: int, pronoun: str, marked: str) -> None:
    [row] = expanded("wsc", wsc(text, at, pronoun))
    assert (row["text"], row["pronoun"]) == (marked, pronoun)


def test_wsc_as_the_hub_has_it() -> None:
    nested = wsc("Bob ran when he saw it.", 3)
    flat = {"text": nested["text"], "idx": 3, "label": 1, **nested["target"]}
    [row], [of_file] = expanded("wsc", flat), expanded("wsc", nested)
    assert row.pop("label") == "1"
    assert of_file.pop("label") == "true"
    assert row == of_file


def without(row: Row, name: str) -> Row:
    return {key: value for key, value in row.items() if key != name}


BAD: dict[str, tuple[str, Row, str]] = {
    "copa question": ("copa", COPA | {"question": "why"}, "'why', none of cause, effect"),
    "copa label": ("copa", COPA | {"label": 2}, "label '2', none of 0, 1"),
    "copa column": ("copa", without(COPA, "choice2"), "no 'choice2'"),
    "copa choice": ("copa", COPA | {"choice1": None}, ""),
    "multirc passage": ("multirc", {"idx": 0, "passage": "a text"}, ""),
    "multirc text": ("multirc", {"idx": 0, "passage": {"questions": []}}, "no 'text'"),
    "multirc no passage": ("multirc", {"idx": 0}, "no 'passage'"),
    "multirc idx": (
        "multirc",
        {"paragraph": "a", "question": "b", "answer": "c", "idx": "4/8"},
        "",
    ),
    "record placeholder": ("record", record("Ann", query="no place"), "without @placeholder"),
    "record queries": ("record", without(record(), "qas"), "no 'qas'"),
    "record span": (
        "record",
        record() | {"passage": {"text": "x", "entities": [{"start": 0}]}},
        "no 'end'",
    ),
    "wsc pronoun": ("wsc", wsc("Bob ran.", 1), "no pronoun 'he' at word 1"),
    "wsc index": ("wsc", wsc("he", 0) | {"target": {"span1_text": "a", "span2_text": "he"}}, "no"),
    "wsc target": ("wsc", {"text": "Bob ran.", "idx": 1}, "no 'span1_text'"),
    "wsc empty pronoun": ("wsc", wsc("Bob ran.", 1, " "), ""),
    "wsc text": ("wsc", wsc("", 0) | {"text": None}, ""),
}


@pytest.mark.parametrize(("how", "row", "given"), BAD.values(), ids=BAD)
def test_bad_rows_are_named(how: str, row: Row, given: str) -> None:
    with pytest.raises(ConfigError) as caught:
        expand(table(row), how)
    [problem] = caught.value.problems
    assert problem.where == "val.jsonl:3"
    assert problem.given
    assert given in problem.given
    assert problem.expected == f"a row of {how} as in the official files"


GOOD: dict[str, Callable[[], Row]] = {
    "copa": lambda: COPA,
    "multirc": lambda: MULTIRC,
    "record": lambda: record("Ann"),
    "wsc": lambda: wsc("he ran", 0),
}


def test_every_expansion_is_tried() -> None:
    assert set(GOOD) == set(EXPANSIONS)


@pytest.mark.parametrize("bad_rows", [2, 5, 6, 9])
@pytest.mark.parametrize("how", GOOD)
def test_all_bad_rows_are_counted(how: str, bad_rows: int) -> None:
    good = GOOD[how]()
    bad = good | {next(name for name in ("question", "passage", "target") if name in good): "zzz"}
    with pytest.raises(ConfigError) as caught:
        expand(table(*[good, bad] * bad_rows), how)
    problems = caught.value.problems
    shown = min(bad_rows, 5)
    places = [f"val.jsonl:{6 * n}" for n in range(1, shown + 1)]
    assert [p.where for p in problems[:shown]] == places
    rest = [(p.where, p.given) for p in problems[shown:]]
    assert rest == ([("val.jsonl", f"{bad_rows - 5} more bad rows")] if bad_rows > 5 else [])
