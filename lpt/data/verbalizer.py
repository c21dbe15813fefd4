"""Label words as single tokens, checked for the tokenizer at hand before anything is trained."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from lpt.data.special_tokens import PlainText, is_text
from lpt.errors import Problems

_ANCHOR = "a"


def word_ids(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> list[int]:
    """Token of each label word, written with a leading space.

    Raises:
        ConfigError: A word is not one token (the message has its pieces and near words that are),
            is unknown to the tokenizer or special, or two words share a token.
    """
    problems = Problems()
    ids: list[int] = []
    special = {*PlainText(tokenizer).ids, tokenizer.unk_token_id}
    for word in words:
        if not is_text(word):
            problems.add("task.label_words", f"{word!r} has bytes that are not UTF-8", "UTF-8")
            continue
        pieces = _pieces(tokenizer, word)
        if word.strip() and len(pieces) == 1 and pieces[0] not in special:
            ids.append(pieces[0])
            continue
        shown = " + ".join(repr(t) for t in tokenizer.convert_ids_to_tokens(pieces)) or "nothing"
        near = ", ".join(near_words(tokenizer, word)) or "none found"
        problems.add(
            "task.label_words",
            f"{word!r} is {shown} to this tokenizer",
            "words of one token with their leading space",
            f"take another word; near single-token words: {near}",
        )
    for i in {i for i in ids if ids.count(i) > 1}:
        shared = tokenizer.convert_ids_to_tokens(i)
        problems.add(
            "task.label_words", f"two of {list(words)} are the token {shared!r}", "distinct words"
        )
    problems.raise_if_any()
    return ids


def near_words(tokenizer: PreTrainedTokenizerBase, word: str, count: int = 5) -> list[str]:
    """Words spelled like `word` that are one token with a leading space."""
    letters = {w for token in tokenizer.get_vocab() if (w := token.lstrip("Ġ▁ ")).isalpha()}
    start = [w for w in letters if w[:1].lower() == word[:1].lower()]
    near = difflib.get_close_matches(word, start, n=count * 4, cutoff=0.5)
    return [w for w in near if len(_pieces(tokenizer, w)) == 1][:count]


def _pieces(tokenizer: PreTrainedTokenizerBase, word: str) -> list[int]:
    # After another word, because some tokenizers treat the start of a text differently.
    alone = tokenizer.encode(_ANCHOR, add_special_tokens=False)
    both = tokenizer.encode(f"{_ANCHOR} {word}", add_special_tokens=False)
    return both[len(alone) :]
