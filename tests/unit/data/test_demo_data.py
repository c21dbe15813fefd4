"""The reviews that ship are balanced, and nothing of one split is in another."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from itertools import combinations

import pytest

from lpt.config.schema import PACKAGE_DIR
from lpt.data.sources import FolderSource

SPLITS = ("train", "dev", "test")
DEMO = PACKAGE_DIR / "data" / "demo"


@cache
def reviews() -> list[tuple[str, str, str]]:
    """(split, label, text) of every row."""
    folder = FolderSource(DEMO, {}, ["label", "text"])
    tables = {split: folder.read(split).columns for split in SPLITS}
    return [
        (split, str(label), str(text))
        for split, columns in tables.items()
        for label, text in zip(columns["label"], columns["text"], strict=True)
    ]


def words(text: str) -> list[str]:
    straight = text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    return re.findall(r"[a-z0-9']+", straight)


@pytest.mark.parametrize("split", SPLITS)
def test_classes_are_balanced(split: str) -> None:
    labels = Counter(label for name, label, _ in reviews() if name == split)
    assert labels["negative"] == labels["positive"] == labels.total() / 2


def test_no_sentence_in_two_splits() -> None:
    """Sentences of four words or more; shorter ones ("Never again.") are common."""
    splits_of: dict[str, set[str]] = {}
    for split, _, text in reviews():
        for sentence in re.split(r"(?<=[.!?;])\s+", text):
            if len(found := words(sentence)) >= 4:
                splits_of.setdefault(" ".join(found), set()).add(split)
    assert [sentence for sentence, splits in splits_of.items() if len(splits) > 1] == []


def test_no_copies() -> None:
    """No review twice, and none in two splits with half of its words in common."""
    seen = Counter(" ".join(words(text)) for _, _, text in reviews())
    assert [text for text, count in seen.items() if count > 1] == []
    bags = [(split, text, set(words(text))) for split, _, text in reviews()]
    near = [
        (a, b)
        for (split_a, a, x), (split_b, b, y) in combinations(bags, 2)
        if split_a != split_b and 2 * len(x & y) >= len(x | y)
    ]
    assert near == []
