"""The verbalizer: label words, each a single token where it stands in the template."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerBase

from lpt.data.special_tokens import SpecialTokenEscaper
from lpt.data.templates import Template
from lpt.errors import ConfigError, Problems, config_error


class _Place(NamedTuple):
    """The text around a word.

    Attributes:
        before: Text before it.
        after: Text after it.
        spaces: Whether spaces before it may be tokens of their own, if they are so for all words.
    """

    before: str
    after: str = ""
    spaces: bool = False


Embeddings = Callable[[], Tensor | None]
_TRIED, _MOST = 50, 0.6  # tokens, and the share of a word, for words near in meaning
# After another word, because some tokenizers treat the start of a text differently.
_SPACED, _BARE = _Place("a "), _Place("a")


def label_word_ids(
    tokenizer: PreTrainedTokenizerBase,
    words: Sequence[str],
    template: Template | None = None,
    read_embeddings: Embeddings = lambda: None,
) -> list[int]:
    """Token id of each label word where the template has it; without one, after a space.

    Words of a causal template are tokenized with the text around them. A masked one predicts them
    with a leading space, unless it has no space before the mask and they are no such tokens, or
    begin with letters of a script without capitals, such as Chinese.

    Args:
        tokenizer: The backbone's.
        words: The label words.
        template: The template that they stand in.
        read_embeddings: Reads the embeddings of the vocabulary, for words near in meaning.

    Raises:
        ConfigError: A word is not a single token (the message has its tokens and near words that
            are), is unknown to the tokenizer or a special token, or two words share a token; or
            a causal template has a column right beside the word.
    """

    def ids_at(place: _Place) -> list[int]:
        return _ids_at(tokenizer, words, place, read_embeddings)

    if template is None:
        return ids_at(_SPACED)
    before, after = template.around_answer("a")
    if template.kind == "causal":
        if "}{word}" in template.text or "{word}{" in template.text:
            given = f"{template.text!r} has {{word}} right beside a column"
            expected = "a space or other text between them: a word may merge with the text of a row"
            raise config_error("task.template", given, expected)
        return ids_at(_Place(before, after, spaces=True))
    uncased = all(unicodedata.category(word[:1] or " ") == "Lo" for word in words)
    if before[-1:].isspace() or not (before or uncased):
        return ids_at(_SPACED)
    # A mask merges with nothing, so the text before it does not matter.
    places = [_BARE, _SPACED] if before and uncased else [_SPACED, _BARE]
    try:
        return ids_at(places[0])
    except ConfigError as error:
        try:
            return ids_at(places[1])
        except ConfigError:
            raise error from None


def _ids_at(
    tokenizer: PreTrainedTokenizerBase,
    words: Sequence[str],
    place: _Place,
    read_embeddings: Embeddings,
) -> list[int]:
    problems = Problems()
    ids: list[int] = []
    special_ids = {*SpecialTokenEscaper(tokenizer).ids, tokenizer.unk_token_id}
    spaced = place.before.endswith(" ")
    expected = "words of one token with their leading space"
    if not spaced:
        expected = "words of one token, without a leading space as the template has none there"
    for word, word_ids in zip(words, _encode_words(tokenizer, words, place), strict=True):
        if word.strip() and len(word_ids) == 1 and word_ids[0] not in special_ids:
            ids.append(word_ids[0])
            continue
        tokens = " + ".join(map(repr, tokenizer.convert_ids_to_tokens(word_ids))) or "nothing"
        similar, embeddings = [], read_embeddings()
        if embeddings is not None and tokenizer.unk_token_id not in word_ids:
            similar = nearest_words(tokenizer, word, word_ids, embeddings, place=place)
        near = "meaning" if similar else "spelling"
        similar = similar or similar_words(tokenizer, word, place=place)
        hint = f"single-token words near in {near}: {', '.join(similar) or 'none'}"
        if not spaced:
            hint += "; or a space before the word in task.template"
        problems.add("task.label_words", f"{word!r} is {tokens} to this tokenizer", expected, hint)
    for token_id in {i for i in ids if ids.count(i) > 1}:
        token = tokenizer.convert_ids_to_tokens(token_id)
        given = f"two of {list(words)} are the token {token!r}"
        problems.add("task.label_words", given, "distinct words")
    problems.raise_if_any()
    return ids


def nearest_words(
    tokenizer: PreTrainedTokenizerBase,
    word: str,
    token_ids: Sequence[int],
    embeddings: Tensor,
    count: int = 5,
    place: _Place = _SPACED,
) -> list[str]:
    """Words of a single token there that are near in meaning to a word of several tokens.

    They are nearest, by the cosine similarity of their embeddings (V, D) around the mean of all, to
    what most of the word consists of: the word of one token that begins alike, or else its own
    tokens. Empty if nothing of that kind makes up most of the word.
    """
    ids: dict[str, int] = {}
    for token, token_id in tokenizer.get_vocab().items():
        text = token.lstrip("Ġ▁ ")
        if len(text) > 2 and text.isalpha() and (text not in ids or text != token):
            ids[text] = token_id
    most = _MOST * len(word)
    shared = {other: _shared_letters(other, word) for other in ids}
    start = max(ids, key=lambda other: (shared[other], -len(other)), default="")
    parts = [part.strip("Ġ▁# ") for part in tokenizer.convert_ids_to_tokens(token_ids)]
    long = {part: token_id for part, token_id in zip(parts, token_ids, strict=True) if part[3:]}
    if shared.get(start, 0) >= most:
        long = {start: ids[start]}
    elif sum(map(len, long)) < most:
        return []
    names, rows = list(ids), torch.tensor(list(ids.values()))
    vectors = functional.normalize(embeddings - embeddings.mean(0), dim=1)
    similarity = vectors[rows] @ vectors[list(long.values())].mean(0)
    ranked = [names[i] for i in similarity.topk(min(_TRIED, len(names))).indices.tolist()]
    distinct = {name.casefold(): name for name in reversed(ranked)}
    return _single_tokens(tokenizer, [*reversed(distinct.values())], count, place)


def _shared_letters(one: str, other: str) -> int:
    """Length of the common start of two words."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _single_tokens(
    tokenizer: PreTrainedTokenizerBase, words: Sequence[str], count: int, place: _Place
) -> list[str]:
    encoded = zip(words, _encode_words(tokenizer, words, place), strict=True)
    return [word for word, ids in encoded if len(ids) == 1][:count]


def similar_words(
    tokenizer: PreTrainedTokenizerBase, word: str, count: int = 5, place: _Place = _SPACED
) -> list[str]:
    """Words spelled like `word` that are a single token there, by default after a space."""
    letters = {w for token in tokenizer.get_vocab() if (w := token.lstrip("Ġ▁ ")).isalpha()}
    same_start = [w for w in letters if w[:1].lower() == word[:1].lower()]
    similar = difflib.get_close_matches(word, same_start, n=count * 4, cutoff=0.5)
    return _single_tokens(tokenizer, similar, count, place)


def _encode_words(
    tokenizer: PreTrainedTokenizerBase, words: Sequence[str], place: _Place
) -> list[list[int]]:
    """The tokens of each word between two texts, from where they differ from those before it on.

    That is the first such token of any of the words: one may merge with the text before it.
    """

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return ids

    before, after, _ = place
    context, encoded, start = encode(before.rstrip()), [], len(encode(before))
    for word in words:
        ids = encode(f"{before}{word}")
        whole = encode(f"{before}{word}{after}")
        if whole[: len(ids)] != ids:  # the text after it merges with it
            ids = whole
        equal = takewhile(lambda pair: pair[0] == pair[1], zip(context, ids, strict=False))
        shared = sum(1 for _ in equal)
        while place.spaces and before[-1:].isspace() and len(ids) > shared + 1:
            if tokenizer.decode([ids[shared]]).strip():
                break
            shared += 1
        encoded.append(ids)
        start = min(start, shared)
    return [ids[start:] for ids in encoded]
