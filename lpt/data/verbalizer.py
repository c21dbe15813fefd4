"""The verbalizer: label words, each a single token where it stands in the template."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Sequence
from itertools import takewhile

from transformers import PreTrainedTokenizerBase

from lpt.data.special_tokens import SpecialTokenEscaper
from lpt.data.templates import Template
from lpt.errors import ConfigError, Problems

# Behind another word, because some tokenizers treat the start of a text differently.
_SPACED = ("a ", "")
_Place = tuple[str, str]  # the text before and after a word


def label_word_ids(
    tokenizer: PreTrainedTokenizerBase, words: Sequence[str], template: Template | None = None
) -> list[int]:
    """Token id of each label word where the template has it; without one, behind a space.

    Words of a causal template are tokenized with the text around them. A masked one predicts them
    with a leading space, unless it has no space before the mask and they are no such tokens, or
    begin with letters of a script without capitals, such as Chinese.

    Raises:
        ConfigError: A word is not a single token (the message has its tokens and similar words that
            are), is unknown to the tokenizer or a special token, or two words share a token.
    """
    before, after = template.around_answer("a") if template is not None else _SPACED
    if template is not None and template.kind == "causal":
        return _ids_at(tokenizer, words, (before, after))
    if before[-1:].strip() == "":
        return _ids_at(tokenizer, words, _SPACED)
    places: list[_Place] = [_SPACED, (before, "")]
    if all(unicodedata.category(word[:1] or " ") == "Lo" for word in words):
        places.reverse()
    try:
        return _ids_at(tokenizer, words, places[0])
    except ConfigError as error:
        try:
            return _ids_at(tokenizer, words, places[1])
        except ConfigError:
            raise error from None


def _ids_at(tokenizer: PreTrainedTokenizerBase, words: Sequence[str], place: _Place) -> list[int]:
    problems = Problems()
    ids: list[int] = []
    special_ids = {*SpecialTokenEscaper(tokenizer).ids, tokenizer.unk_token_id}
    spaced = place[0].endswith(" ")
    expected = "words of one token with their leading space"
    if not spaced:
        expected = "words of one token, without a leading space as the template has none there"
    for word in words:
        word_ids = _encode_word(tokenizer, word, place)
        if word.strip() and len(word_ids) == 1 and word_ids[0] not in special_ids:
            ids.append(word_ids[0])
            continue
        tokens = " + ".join(map(repr, tokenizer.convert_ids_to_tokens(word_ids))) or "nothing"
        similar = ", ".join(similar_words(tokenizer, word, place=place)) or "none"
        hint = f"similar single-token words: {similar}"
        if not spaced:
            hint += "; or a space before the word in task.template"
        problems.add("task.label_words", f"{word!r} is {tokens} to this tokenizer", expected, hint)
    for token_id in {i for i in ids if ids.count(i) > 1}:
        token = tokenizer.convert_ids_to_tokens(token_id)
        given = f"two of {list(words)} are the token {token!r}"
        problems.add("task.label_words", given, "distinct words")
    problems.raise_if_any()
    return ids


def similar_words(
    tokenizer: PreTrainedTokenizerBase, word: str, count: int = 5, place: _Place = _SPACED
) -> list[str]:
    """Words spelled like `word` that are a single token there, by default behind a space."""
    letters = {w for token in tokenizer.get_vocab() if (w := token.lstrip("Ġ▁ ")).isalpha()}
    same_start = [w for w in letters if w[:1].lower() == word[:1].lower()]
    similar = difflib.get_close_matches(word, same_start, n=count * 4, cutoff=0.5)
    return [w for w in similar if len(_encode_word(tokenizer, w, place)) == 1][:count]


def _encode_word(tokenizer: PreTrainedTokenizerBase, word: str, place: _Place) -> list[int]:
    """The tokens of a word between two texts, and of what they merge with it."""

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return ids

    before, after = place
    context, ids = encode(before.rstrip()), encode(f"{before}{word}")
    whole = encode(f"{before}{word}{after}")
    if whole[: len(ids)] != ids:  # the text behind it merges with it
        ids = whole
    equal = takewhile(lambda pair: pair[0] == pair[1], zip(context, ids, strict=False))
    shared = sum(1 for _ in equal)
    if before[-1:].isspace():  # more than one space: tokens of the others
        while len(ids) > shared + 1 and not tokenizer.decode([ids[shared]]).strip():
            shared += 1
    return ids[shared:]
