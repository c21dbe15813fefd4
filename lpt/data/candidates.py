"""Rows that text alone cannot turn into examples: one row, several candidates, and WSC's marks.

Each function takes a table as the official files or the hub have it and gives one with plain text
columns. Where a row becomes several candidates, these columns come with them: `group` (the
candidates that compete or are judged together), `answer` (what a candidate stands for), `id`
(official numbers, joined by slashes), `label` ("1": right, "0": wrong), and for ReCoRD `gold`, the
right answers as JSON.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from lpt.data.tables import Table
from lpt.errors import Problems

ID, GROUP, ANSWER, GOLD = "id", "group", "answer", "gold"
_V = TypeVar("_V")
Row = dict[str, Any]


def expand(table: Table, how: str) -> Table:
    """The table with candidates for rows.

    Raises:
        ConfigError: A row lacks what it needs; each with file and line.
    """
    make = EXPANSIONS[how]
    problems = Problems()
    lines: list[int] = []
    made: list[Row] = []
    names = list(table.columns)
    with problems.rows(table.name) as bad:
        for n, cells in enumerate(zip(*table.columns.values(), strict=True)):
            try:
                rows = [*map(_text, make(dict(zip(names, cells, strict=True)), n))]
            except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
                given = f"no {error}" if isinstance(error, KeyError) else str(error)
                bad.add(table.place(n), given, f"a row of {how} as in the official files")
            else:
                made += rows
                lines += [table.lines[n]] * len(rows)
    problems.raise_if_any()
    columns = {name: [row[name] for row in made] for name in (made[0] if made else ())}
    return Table(table.name, columns, lines)


def _copa(row: Row, number: int) -> Iterable[Row]:
    """Two choices: `{premise} {link} {choice}`."""
    group = _or(row.get("idx"), number)
    right = _one_of(_known(row.get("label")), (None, "0", "1"), "label")
    premise, link = _value(row, "premise").strip().rstrip("."), _value(row, "question")
    for answer in ("0", "1"):
        choice = _value(row, f"choice{int(answer) + 1}").strip().rstrip(".")
        yield {
            "premise": premise,
            "link": _LINKS[_one_of(link, tuple(_LINKS), "question")],
            "choice": choice[:1].lower() + choice[1:],
            "label": None if right is None else str(int(answer == right)),
            ID: f"{group}/{answer}",
            GROUP: group,
            ANSWER: answer,
        }


def _multirc(row: Row, number: int) -> Iterable[Row]:
    """The answers to each question about a paragraph; nested in the files, flat on the hub."""
    if "paragraph" in row:
        idx = _nested(row, "idx")
        group = f"{idx['paragraph']}/{idx['question']}"
        question, text = _value(row, "question"), _value(row, "answer")
        numbered = [(question, group, idx["answer"], row, text)]
        paragraph = _value(row, "paragraph")
    else:
        passage = _nested(row, "passage")
        paragraph = passage["text"]
        numbered = [
            (q["question"], f"{_or(row.get('idx'), number)}/{q['idx']}", a["idx"], a, a["text"])
            for q in _some(passage["questions"], "questions", paragraph)
            for a in _some(q["answers"], "answers", q["question"])
        ]
    paragraph = _without_markup(paragraph)  # once: the candidates share it
    for question, group, at, answer, text in numbered:
        yield {
            "paragraph": paragraph,
            "question": question,
            "answer": text,
            "label": _known(answer.get("label")),
            ID: f"{group}/{at}",
            GROUP: group,
        }


def _record(row: Row, number: int) -> Iterable[Row]:
    """The entities of a passage as fillings of each query's placeholder."""
    if "query" in row:
        idx, answers = _nested(row, "idx"), _nested(row, "answers") if row.get("answers") else []
        passage, entities = _value(row, "passage"), _nested(row, "entities")
        queries = [(idx["query"], _value(row, "query"), answers)]
    else:
        content = _nested(row, "passage")
        passage = content["text"]
        entities = [passage[e["start"] : e["end"] + 1] for e in content["entities"]]
        queries = [
            (q["idx"], q["query"], [a["text"] for a in q.get("answers") or ()])
            for q in _some(_nested(row, "qas"), "questions", passage)
        ]
    entities = sorted(set(_some(entities, "entities", passage)))
    passage = _without_highlights(passage)  # once: the candidates share it
    for group, query, answers in queries:
        if _PLACEHOLDER not in query:
            raise ValueError(f"a query without {_PLACEHOLDER}: {query!r}")
        gold = sorted(set(answers))
        for at, entity in enumerate(entities):
            yield {
                "passage": passage,
                "statement": query.replace(_PLACEHOLDER, entity),
                "label": str(int(entity in gold)) if gold else None,
                ID: f"{group}/{at}",
                GROUP: str(group),
                ANSWER: entity,
                GOLD: json.dumps(gold),
            }


def _wsc(row: Row, number: int) -> Iterable[Row]:
    """A pronoun, marked by asterisks in `text`, and the `span` that it may refer to."""
    target = _nested(row, "target") if "target" in row else row
    span, pronoun = _value(target, "span1_text"), _value(target, "span2_text")
    words = _value(row, "text").split()
    at, first = int(target["span2_index"]), _bare(pronoun.split()[0]).lower()
    # A few official indices are off by a word, and one pronoun lacks the space after it.
    near = sorted(
        range(max(0, at - _NEAR), min(len(words), at + _NEAR + 1)), key=lambda i: abs(i - at)
    )
    exact = [i for i in near if _bare(words[i]).lower() == first]
    found = exact or [i for i in near if _bare(words[i]).lower().startswith(first)]
    if not found:
        raise ValueError(f"no pronoun {pronoun!r} at word {at} of the text")
    start = words[found[0]].lower().index(first)
    before, word, after = words[found[0]].partition(words[found[0]][start : start + len(first)])
    words[found[0]] = f"{before}*{word}*{after}"
    yield {
        "text": " ".join(words),
        "span": span,
        "pronoun": pronoun,
        "label": row.get("label"),
        ID: _or(row.get("idx"), number),
    }


EXPANSIONS: Mapping[str, Callable[[Row, int], Iterable[Row]]] = MappingProxyType(
    {"copa": _copa, "multirc": _multirc, "record": _record, "wsc": _wsc}
)
_LINKS = {"cause": "because", "effect": "so"}
_PLACEHOLDER = "@placeholder"
_NEAR = 3  # words


def _text(row: Row) -> Row:
    """A row whose values are text, or missing."""
    for name, value in row.items():
        if not isinstance(value, str | None):
            raise TypeError(f"{name} {value!r} is no text")
    return row


def _or(value: Any, default: Any) -> str:
    return str(default if value is None else value)


def _known(label: Any) -> str | None:
    """A label as text; None where it is missing or the hub's -1."""
    return None if label is None or str(label) in ("", "-1") else str(label).lower()


def _value(row: Row, name: str) -> str:
    """A text that must be there."""
    if row[name] is None or not row[name].strip():
        raise ValueError(f"no value for {name!r}")
    return str(row[name])


def _one_of(value: _V, expected: tuple[_V, ...], what: str) -> _V:
    if value not in expected:
        raise ValueError(f"{what} {value!r}, none of {', '.join(str(a) for a in expected if a)}")
    return value


def _nested(row: Row, name: str) -> Any:
    """A nested value: from its JSON text, or of numbers as a CSV writer shows it."""
    text = _value(row, name)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        found = ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        found = None
    if isinstance(found, dict) and all(isinstance(number, int) for number in found.values()):
        return found
    raise ValueError(f"{name!r} is not JSON: CSV has no nested values, take JSONL or parquet")


def _some(values: Any, what: str, of: str) -> Any:
    """The values, of which there must be some."""
    if not values:
        raise ValueError(f"no {what} in {of[:60]!r}")
    return values


def _bare(word: str) -> str:
    return word.strip(".,;:!?\"'()").removesuffix("'s")


def _without_markup(text: str) -> str:
    """MultiRC's paragraphs have sentences numbered in bold and line breaks as HTML."""
    text = re.sub(r"<b>Sent \d+: </b>", "", text)
    return re.sub(r"\s+", " ", re.sub(r"</?b>|<br\s*/?>", " ", text)).strip()


def _without_highlights(text: str) -> str:
    """ReCoRD's passages end in a summary whose points are marked by `@highlight`."""
    text = re.sub(r"([.?!\"'])\s*\n@highlight\s*\n", r"\1 ", text)
    return re.sub(r"\s+", " ", re.sub(r"\s*\n@highlight\s*\n", ". ", text)).strip()
