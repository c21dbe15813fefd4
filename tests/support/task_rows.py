"""Rows of tasks that are more than labels: numbers, choices, groups."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.tokenizers import WORDS


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def number_rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {"text": f"the film was {'good ' * (1 + i % 3)}", "label": i % 6, "idx": i}
        for i in range(start, start + count)
    ]


def copa_rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "premise": f"The food was {WORDS[i % len(WORDS)]}.",
            "choice1": "They are good.",
            "choice2": "It was a bad day.",
            "question": ("cause", "effect")[i % 2],
            "label": i // 2 % 2,
            "idx": i,
        }
        for i in range(start, start + count)
    ]


def multirc_rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    def question(number: int, answers: int) -> dict[str, Any]:
        made = [{"text": WORDS[j], "idx": 9 * number + j, "label": j % 2} for j in range(answers)]
        return {"question": "which day", "idx": number, "answers": made}

    return [
        {
            "idx": i,
            "passage": {
                "text": f"<b>Sent 1: </b>no one asked {i}<br>",
                "questions": [question(2 * i, 2), question(2 * i + 1, 3)],
            },
        }
        for i in range(start, start + count)
    ]


def record_rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    text = "The people asked the cast. No one was great."
    entities = [{"start": 4, "end": 9}, {"start": 21, "end": 24}, {"start": 27, "end": 32}]
    names = [text[e["start"] : e["end"] + 1] for e in entities]
    return [
        {
            "idx": i,
            "passage": {"text": text, "entities": entities},
            "qas": [
                {
                    "idx": i,
                    "query": "@placeholder are good",
                    "answers": [{"text": names[i % 3]}, {"text": names[(i + 1) % 3]}],
                }
            ],
        }
        for i in range(start, start + count)
    ]


ROWS = {"stsb": number_rows, "copa": copa_rows, "multirc": multirc_rows, "record": record_rows}
NAMES = {
    "stsb": ("pearson", "spearman"),
    "copa": ("accuracy",),
    "multirc": ("f1a", "exact_match"),
    "record": ("record_f1", "record_em"),
}
EXAMPLES = {"stsb": 1, "copa": 2, "multirc": 5, "record": 3}  # that a row of `ROWS` becomes
COLUMNS = {  # of predictions.tsv
    name: ["index", "id", *(["group", "answer"] if count > 1 else []), "prediction", "label"]
    for name, count in EXAMPLES.items()
}
