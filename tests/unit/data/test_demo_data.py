"""The reviews that ship: enough of them, balanced, and nothing of one split in another."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from itertools import combinations

import pytest

from lpt.config.schema import PACKAGE_DIR
from lpt.data.sources import Folder

SPLITS = ("train", "dev", "test")
DEMO = PACKAGE_DIR / "data" / "demo"


@cache
def reviews() -> list[tuple[str, str, str]]:
    """(split, label, text) of every row."""
    folder = Folder(DEMO, {}, ["label", "text"])
    tables = {split: folder.read(split).columns for split in SPLITS}
    return [
        (split, str(label), str(text))
        for split, columns in tables.items()
        for label, text in zip(columns["label"], columns["text"], strict=True)
    ]


def normalised(text: str) -> str:
    straight = text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    return " ".join(re.findall(r"[a-z0-9']+", straight))


def test_enough_reviews() -> None:
    sizes = Counter(split for split, _, _ in reviews())
    assert sum(sizes.values()) >= 600
    assert set(sizes) == set(SPLITS)


@pytest.mark.parametrize("split", SPLITS)
def test_classes_are_balanced(split: str) -> None:
    labels = Counter(label for name, label, _ in reviews() if name == split)
    assert labels["negative"] == labels["positive"] == labels.total() / 2


def test_reviews_have_5_to_30_words() -> None:
    odd = [text for _, _, text in reviews() if not 5 <= len(text.split()) <= 30]
    assert odd == []
    assert [text for _, _, text in reviews() if text != text.strip()] == []


def test_no_review_twice() -> None:
    seen = Counter(normalised(text) for _, _, text in reviews())
    assert [text for text, count in seen.items() if count > 1] == []


def sentences(text: str) -> list[str]:
    return [s for part in re.split(r"(?<=[.!?;])\s+", text) if (s := normalised(part))]


def test_no_sentence_in_two_splits() -> None:
    """Whole sentences of four words or more; shorter ones ("Never again.") are anyone's."""
    where: dict[str, set[str]] = {}
    for split, _, text in reviews():
        for sentence in sentences(text):
            if len(sentence.split()) >= 4:
                where.setdefault(sentence, set()).add(split)
    assert [sentence for sentence, splits in where.items() if len(splits) > 1] == []


def test_no_near_copy_in_two_splits() -> None:
    words = [(split, text, set(normalised(text).split())) for split, _, text in reviews()]
    near = [
        (a, b)
        for (split_a, a, x), (split_b, b, y) in combinations(words, 2)
        if split_a != split_b and 2 * len(x & y) >= len(x | y)
    ]
    assert near == []


def test_licence_and_sizes_are_stated() -> None:
    readme = (DEMO / "README.md").read_text(encoding="utf-8")
    sizes = Counter(split for split, _, _ in reviews())
    stated = f"{len(reviews())} short reviews ({', '.join(f'{sizes[s]} {s}' for s in SPLITS)}"
    assert stated in readme
    assert "CC0" in readme
