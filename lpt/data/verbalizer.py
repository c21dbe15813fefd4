"""The verbalizer: label words, each a single token of the tokenizer at hand."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from lpt.data.special_tokens import SpecialTokenEscaper
from lpt.errors import Problems

_CONTEXT = "a"


def label_word_ids(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> list[int]:
    """Token id of each label word, written with a leading space.

    Raises:
        ConfigError: A word is not a single token (the message has its tokens and similar words that
            are), is unknown to the tokenizer or a special token, or two words share a token.
    """
    problems = Problems()
    ids: list[int] = []
    special_ids = {*SpecialTokenEscaper(tokenizer).ids, tokenizer.unk_token_id}
    for word in words:
        word_ids = _encode_word(tokenizer, word)
        if word.strip() and len(word_ids) == 1 and word_ids[0] not in special_ids:
            ids.append(word_ids[0])
            continue
        tokens = " + ".join(map(repr, tokenizer.convert_ids_to_tokens(word_ids))) or "nothing"
        problems.add(
            "task.label_words",
            f"{word!r} is {tokens} to this tokenizer",
            "words of one token with their leading space",
            f"similar single-token words: {', '.join(similar_words(tokenizer, word)) or 'none'}",
        )
    for token_id in {i for i in ids if ids.count(i) > 1}:
        token = tokenizer.convert_ids_to_tokens(token_id)
        given = f"two of {list(words)} are the token {token!r}"
        problems.add("task.label_words", given, "distinct words")
    problems.raise_if_any()
    return ids


def similar_words(tokenizer: PreTrainedTokenizerBase, word: str, count: int = 5) -> list[str]:
    """Words spelled like `word` that are a single token with a leading space."""
    letters = {w for token in tokenizer.get_vocab() if (w := token.lstrip("Ġ▁ ")).isalpha()}
    same_start = [w for w in letters if w[:1].lower() == word[:1].lower()]
    similar = difflib.get_close_matches(word, same_start, n=count * 4, cutoff=0.5)
    return [w for w in similar if len(_encode_word(tokenizer, w)) == 1][:count]


def _encode_word(tokenizer: PreTrainedTokenizerBase, word: str) -> list[int]:
    # Behind another word, because some tokenizers treat the start of a text differently.
    context = tokenizer.encode(_CONTEXT, add_special_tokens=False)
    both = tokenizer.encode(f"{_CONTEXT} {word}", add_special_tokens=False)
    return both[len(context) :]
