"""The same few examples of each task as the hub, the papers' archives and `datasets` have them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from datasets import ClassLabel, Value

from tests.support.source_files import Row


class Same(NamedTuple):
    """One task's rows, as the official files have them and as the hub has them."""

    official: Mapping[str, str | list[Row]]  # by file; records for JSONL
    hub: Mapping[str, list[Row]]  # by split
    types: Mapping[str, Any]  # of the hub's columns, where that says more than their values
    labels: list[int] | list[float]  # of train, as indices or numbers
    extra: tuple[str, ...] = ()  # further sets that both have


def lines(header: list[str] | None, *rows: list[Any]) -> str:
    return "".join(
        "\t".join(map(str, row)) + "\n" for row in ([header] if header else []) + [*rows]
    )


def numbered(rows: list[Row]) -> list[Row]:
    return [row | {"idx": n} for n, row in enumerate(rows)]


def unlabelled(rows: list[Row]) -> list[Row]:
    return [{name: value for name, value in row.items() if name != "label"} for row in rows]


def secret(rows: list[Row], label: float = -1) -> list[Row]:
    return [row | {"label": label} for row in rows]


_NLI = ["entailment", "neutral", "contradiction"]
_PAIRS = [
    ('He said "so', "Who is   he ?", "neutral"),
    ("It rained .", 'A "dry" day', "contradiction"),
    ("Caf\u00e9s open .", "There are caf\u00e9s .", "entailment"),
]


def _mnli() -> Same:
    head = ["index", "genre", "sentence1", "sentence2", "label1", "gold_label"]
    full = lines(head, *([n, "x", *p[:2], "-", p[2]] for n, p in enumerate(_PAIRS)))
    short = lines(head[:4], *([n, "x", *p[:2]] for n, p in enumerate(_PAIRS)))
    diagnostic = lines(["index", "sentence1", "sentence2"], [0, "A", "B"], [1, "B", "A"])
    rows = numbered([{"premise": a, "hypothesis": b, "label": _NLI.index(c)} for a, b, c in _PAIRS])
    ax = [{"premise": "A", "hypothesis": "B"}, {"premise": "B", "hypothesis": "A"}]
    return Same(
        {
            "train.tsv": full,
            "dev_matched.tsv": full,
            "test_matched.tsv": short,
            "dev_mismatched.tsv": full,
            "test_mismatched.tsv": short,
            "../diagnostic/diagnostic.tsv": diagnostic,
        },
        {
            "train": rows,
            "validation_matched": rows,
            "test_matched": secret(rows),
            "validation_mismatched": rows,
            "test_mismatched": secret(rows),
            "ax/test": secret(numbered(ax)),
        },
        {"label": ClassLabel(names=_NLI)},
        [2, 0, 1],
        ("dev_mismatched", "test_mismatched", "ax"),
    )


def _stsb() -> Same:
    pairs = [("A man .", 'A "man"', "3.800"), ("B", "C", "5.000"), ("D", "E", "0.667")]
    head = ["index", "genre", "sentence1", "sentence2", "score"]
    full = lines(head, *([n, "x", *pair] for n, pair in enumerate(pairs)))
    short = lines(head[:4], *([n, "x", *pair[:2]] for n, pair in enumerate(pairs)))
    rows = numbered([{"sentence1": a, "sentence2": b, "label": float(c)} for a, b, c in pairs])
    return Same(
        {"train.tsv": full, "dev.tsv": full, "test.tsv": short},
        {"train": rows, "validation": rows, "test": secret(rows, -1.0)},
        {"label": Value("float32")},
        [3.8, 5.0, 0.667],
    )


def _cola() -> Same:
    full = lines(None, ["gj04", 1, "", 'He "left .'], ["gj04", 0, "*", "Left he ."])
    short = lines(["index", "sentence"], [0, "He left ."], [1, "Left, he ."])
    rows = numbered([{"sentence": 'He "left .', "label": 1}, {"sentence": "Left he .", "label": 0}])
    test = numbered([{"sentence": "He left ."}, {"sentence": "Left, he ."}])
    return Same(
        {"train.tsv": full, "dev.tsv": full, "test.tsv": short},
        {"train": rows, "validation": rows, "test": secret(test)},
        {"label": ClassLabel(names=["unacceptable", "acceptable"])},
        [1, 0],
    )


def superglue(
    official: list[Row], hub: list[Row], names: list[str], labels: list[int], **types: Any
) -> Same:
    """Files of SuperGLUE; those of the test set have no labels."""
    test = unlabelled(official)
    return Same(
        {"train.jsonl": official, "val.jsonl": official, "test.jsonl": test},
        {"train": hub, "validation": hub, "test": secret(hub)},
        {"label": ClassLabel(names=names)} | types,
        labels,
    )


def _copa() -> Same:
    rows: list[Row] = [
        {"premise": "It fell.", "choice1": "I ran.", "choice2": "It, too, broke."}
        | {"question": question, "label": label, "idx": n}
        for n, (question, label) in enumerate([("effect", 1), ("cause", 0)])
    ]
    return superglue(rows, rows, ["choice1", "choice2"], [0, 1, 1, 0])


def _multirc() -> Same:
    texts = ["<b>Sent 1: </b>Ann ran.<br>", "Bob, too, ran."]
    who = [{"idx": 0, "text": "Ann", "label": 1}, {"idx": 1, "text": "Bob, too", "label": 0}]
    when = [{"idx": 2, "text": "Now", "label": 1}]
    questions: list[Row] = [
        {"idx": 0, "question": "Who?", "answers": who},
        {"idx": 1, "question": "When?", "answers": when},
    ]
    official: list[Row] = [
        {"idx": number, "passage": {"text": text, "questions": questions}}
        for number, text in enumerate(texts)
    ]
    hub: list[Row] = [
        {"paragraph": text, "question": question["question"], "answer": answer["text"]}
        | {"idx": {"paragraph": number, "question": question["idx"], "answer": answer["idx"]}}
        | {"label": answer["label"]}
        for number, text in enumerate(texts)
        for question in questions
        for answer in question["answers"]
    ]
    same = superglue(official, hub, ["False", "True"], [1, 0, 1] * 2)
    test = json.loads(re.sub(r', "label": \d', "", json.dumps(official)))
    return same._replace(official={**same.official, "test.jsonl": test})


def _record() -> Same:
    text = "Oslo met Ann in Rome.\n@highlight\nAnn, too, won"
    spans = [(0, 3), (9, 11), (16, 19), (33, 35)]
    answers = [["Rome", "Rome"], ["Oslo", "Ann"]]
    queries = ["In @placeholder", "@placeholder won"]
    official: list[Row] = [
        {
            "idx": 3,
            "passage": {"text": text, "entities": [{"start": a, "end": b} for a, b in spans]},
            "qas": [
                {
                    "idx": 8 + n,
                    "query": query,
                    "answers": [{"start": 0, "end": 0, "text": a} for a in answers[n]],
                }
                for n, query in enumerate(queries)
            ],
        }
    ]
    hub: list[Row] = [
        {
            "passage": text,
            "query": query,
            "entities": [text[a : b + 1] for a, b in spans],
            "answers": answers[n],
            "idx": {"passage": 3, "query": 8 + n},
        }
        for n, query in enumerate(queries)
    ]
    secret_test = json.loads(json.dumps(official))
    for qa in secret_test[0]["qas"]:
        del qa["answers"]
    return Same(
        {"train.jsonl": official, "val.jsonl": official, "test.jsonl": secret_test},
        {"train": hub, "validation": hub, "test": [row | {"answers": []} for row in hub]},
        {"answers": [Value("string")]},
        [0, 0, 1, 1, 1, 0],
    )


def _wsc() -> Same:
    target = {"span1_index": 0, "span1_text": "Bob", "span2_index": 2, "span2_text": "he"}
    rows = [("Bob ran, he fell.", True), ("Bob saw: he, too, ran.", False)]
    official: list[Row] = [
        {"text": text, "target": target, "idx": n, "label": label}
        for n, (text, label) in enumerate(rows)
    ]
    hub: list[Row] = [
        {"text": text, **target, "idx": n, "label": int(label)}
        for n, (text, label) in enumerate(rows)
    ]
    return superglue(official, hub, ["False", "True"], [1, 0])


SAME: dict[str, Callable[[], Same]] = {
    "mnli": _mnli,
    "stsb": _stsb,
    "cola": _cola,
    "copa": _copa,
    "multirc": _multirc,
    "record": _record,
    "wsc": _wsc,
}
