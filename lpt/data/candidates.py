"""Row expansions: tasks whose rows have to be turned into one or several examples by code.

An expansion takes a row of the official files or of the hub and yields rows of plain text columns.
COPA, MultiRC and ReCoRD become one row per candidate, with these columns besides the texts:

* `group`: id shared by the candidates of one question,
* `answer`: what the candidate stands for,
* `id`: official ids, joined by slashes,
* `label`: "1" for right, "0" for wrong,
* `gold`: the right answers as JSON (ReCoRD only).

WSC keeps its rows; the pronoun in its text is marked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lpt.data.tables import Table
from lpt.errors import Problems

ID, GROUP, ANSWER, GOLD = "id", "group", "answer", "gold"
Row = dict[str, Any]

_COPA_LINKS = {"cause": "because", "effect": "so"}
_PLACEHOLDER = "@placeholder"
_PRONOUN_WINDOW = 3  # words; a few official indices of WSC are off by one


def expand_rows(table: Table, name: str) -> Table:
    """The rows of a table, expanded by `ROW_EXPANSIONS[name]`, each with its original line.

    Raises:
        ConfigError: Rows lack something that the expansion needs; each with file and line.
    """
    expansion = ROW_EXPANSIONS[name]
    problems = Problems()
    lines: list[int] = []
    expanded: list[Row] = []
    with problems.rows(table.name) as bad_rows:
        for number, cells in enumerate(zip(*table.columns.values(), strict=True)):
            row = dict(zip(table.columns, cells, strict=True))
            try:
                rows = [_checked(candidate) for candidate in expansion(row, number)]
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                given = f"no {error}" if isinstance(error, KeyError) else str(error)
                bad_rows.add(table.location(number), given, f"a row of {name} as in official files")
            else:
                expanded += rows
                lines += [table.lines[number]] * len(rows)
    problems.raise_if_any()
    names = expanded[0] if expanded else ()
    return Table(table.name, {name: [row[name] for row in expanded] for name in names}, lines)


def _copa(row: Row, number: int) -> Iterable[Row]:
    """Two candidates, to be rendered as `{premise} {link} {choice}`."""
    group = _text_or(row.get("idx"), number)
    right = _label(row.get("label"))
    if right not in (None, "0", "1"):
        raise ValueError(f"label {right!r}, none of 0, 1")
    question = _text(row, "question")
    if question not in _COPA_LINKS:
        raise ValueError(f"question {question!r}, none of {', '.join(_COPA_LINKS)}")
    premise = _text(row, "premise").strip().rstrip(".")
    for answer in ("0", "1"):
        choice = _text(row, f"choice{int(answer) + 1}").strip().rstrip(".")
        yield {
            "premise": premise,
            "link": _COPA_LINKS[question],
            "choice": choice[:1].lower() + choice[1:],
            "label": None if right is None else str(int(answer == right)),
            ID: f"{group}/{answer}",
            GROUP: group,
            ANSWER: answer,
        }


def _multirc(row: Row, number: int) -> Iterable[Row]:
    """The answers to the questions about a paragraph: nested in the files, one a row on the hub."""
    if "paragraph" in row:
        idx = _nested(row, "idx")
        group = f"{idx['paragraph']}/{idx['question']}"
        paragraph, question = _text(row, "paragraph"), _text(row, "question")
        answers = [(question, group, {**row, "text": _text(row, "answer"), "idx": idx["answer"]})]
    else:
        passage = _nested(row, "passage")
        paragraph = passage["text"]
        answers = [
            (question["question"], f"{_text_or(row.get('idx'), number)}/{question['idx']}", answer)
            for question in _nonempty(passage["questions"], "questions", paragraph)
            for answer in _nonempty(question["answers"], "answers", question["question"])
        ]
    paragraph = _strip_markup(paragraph)
    for question, group, answer in answers:
        yield {
            "paragraph": paragraph,
            "question": question,
            "answer": answer["text"],
            "label": _label(answer.get("label")),
            ID: f"{group}/{answer['idx']}",
            GROUP: group,
        }


def _record(row: Row, number: int) -> Iterable[Row]:
    """The entities of a passage, each put in the place of the placeholder of each query."""
    if "query" in row:
        idx, answers = _nested(row, "idx"), _nested(row, "answers") if row.get("answers") else []
        passage, entities = _text(row, "passage"), _nested(row, "entities")
        queries = [(idx["query"], _text(row, "query"), answers)]
    else:
        content = _nested(row, "passage")
        passage = content["text"]
        entities = [passage[e["start"] : e["end"] + 1] for e in content["entities"]]
        queries = [
            (qa["idx"], qa["query"], [answer["text"] for answer in qa.get("answers") or ()])
            for qa in _nonempty(_nested(row, "qas"), "questions", passage)
        ]
    entities = sorted(set(_nonempty(entities, "entities", passage)))
    passage = _join_highlights(passage)
    for group, query, answers in queries:
        if _PLACEHOLDER not in query:
            raise ValueError(f"a query without {_PLACEHOLDER}: {query!r}")
        gold = sorted(set(answers))
        for position, entity in enumerate(entities):
            yield {
                "passage": passage,
                "statement": query.replace(_PLACEHOLDER, entity),
                "label": str(int(entity in gold)) if gold else None,
                ID: f"{group}/{position}",
                GROUP: str(group),
                ANSWER: entity,
                GOLD: json.dumps(gold),
            }


def _wsc(row: Row, number: int) -> Iterable[Row]:
    """The text with asterisks around the pronoun, and the `span` that it may refer to."""
    target = _nested(row, "target") if "target" in row else row
    pronoun, span = _text(target, "span2_text"), _text(target, "span1_text")
    words, index = _text(row, "text").split(), int(target["span2_index"])
    first = _bare(pronoun.split()[0]).lower()
    window = range(max(0, index - _PRONOUN_WINDOW), min(len(words), index + _PRONOUN_WINDOW + 1))
    nearest = sorted(window, key=lambda i: abs(i - index))
    found = [i for i in nearest if _bare(words[i]).lower() == first]
    # One official pronoun lacks the space after it.
    found = found or [i for i in nearest if _bare(words[i]).lower().startswith(first)]
    if not found:
        raise ValueError(f"no pronoun {pronoun!r} at word {index} of the text")
    word = words[found[0]]
    start = word.lower().index(first)
    before, marked, after = word.partition(word[start : start + len(first)])
    words[found[0]] = f"{before}*{marked}*{after}"
    yield {
        "text": " ".join(words),
        "span": span,
        "pronoun": pronoun,
        "label": row.get("label"),
        ID: _text_or(row.get("idx"), number),
    }


ROW_EXPANSIONS: Mapping[str, Callable[[Row, int], Iterable[Row]]] = {
    "copa": _copa,
    "multirc": _multirc,
    "record": _record,
    "wsc": _wsc,
}


def _checked(row: Row) -> Row:
    for name, value in row.items():
        if not isinstance(value, str | None):
            raise TypeError(f"{name} {value!r} is no text")
    return row


def _text_or(value: Any, default: Any) -> str:
    return str(default if value is None else value)


def _label(value: Any) -> str | None:
    """A label as text; None where it is missing or the hub's -1."""
    return None if value is None or str(value) in ("", "-1") else str(value).lower()


def _text(row: Row, name: str) -> str:
    """A text that must not be empty."""
    if row[name] is None or not row[name].strip():
        raise ValueError(f"no value for {name!r}")
    return str(row[name])


def _nonempty(values: Any, what: str, where: str) -> Any:
    if not values:
        raise ValueError(f"no {what} in {where[:60]!r}")
    return values


def _nested(row: Row, name: str) -> Any:
    """A nested value, from its JSON text."""
    try:
        return json.loads(_text(row, name))
    except json.JSONDecodeError as error:
        expected = "CSV cannot hold nested values, use JSONL or parquet"
        raise ValueError(f"{name!r} is not JSON: {expected}") from error


def _bare(word: str) -> str:
    return word.strip(".,;:!?\"'()").removesuffix("'s")


def _strip_markup(paragraph: str) -> str:
    """MultiRC's paragraphs number their sentences in bold and break lines with HTML."""
    text = re.sub(r"<b>Sent \d+: </b>", "", paragraph)
    return re.sub(r"\s+", " ", re.sub(r"</?b>|<br\s*/?>", " ", text)).strip()


def _join_highlights(passage: str) -> str:
    """ReCoRD's passages end in a summary with `@highlight` before each of its points."""
    text = re.sub(r"([.?!\"'])\s*\n@highlight\s*\n", r"\1 ", passage)
    return re.sub(r"\s+", " ", re.sub(r"\s*\n@highlight\s*\n", ". ", text)).strip()
