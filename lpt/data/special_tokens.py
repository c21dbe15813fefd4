"""Text is text: special tokens that stand in somebody's text are taken apart before tokenizing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from transformers import PreTrainedTokenizerBase


class PlainText:
    """Takes special tokens in text apart: a `</s>` in a review becomes `< /s>`.

    Attributes:
        ids: All special tokens but the unknown one, which stands for any text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        added = {i: t for i, t in tokenizer.added_tokens_decoder.items() if t.special}
        self.ids = {*tokenizer.all_special_ids, *added} - {tokenizer.unk_token_id}
        written = {*tokenizer.all_special_tokens, *(t.content for t in added.values())}
        self._special = _any_of(written)
        self._normalizer = tokenizer.backend_tokenizer.normalizer if tokenizer.is_fast else None
        # Some are looked for in normalized text, and then normalized themselves.
        self._normalized = _any_of({*written, *map(self._normalize, written)})

    def find(self, text: str) -> str | None:
        """The first special token in a text."""
        found = self._special.search(text)
        return found[0] if found else None

    def count(self, ids: Sequence[int]) -> int:
        """How many of these tokens are special."""
        return sum(map(self.ids.__contains__, ids))

    def apart(self, text: str) -> str:
        """The text without special tokens."""
        return self._special.sub(_spaced, text)

    def normalized(self, text: str) -> str:
        """The text without special tokens, even if the tokenizer's normalizer makes them.

        It makes narrow letters of wide ones, say, and so a `</s>` of a wide `</s>`.
        """
        return self._normalized.sub(_spaced, self._normalize(text))

    def _normalize(self, text: str) -> str:
        return text if self._normalizer is None else self._normalizer.normalize_str(text)


def is_text(text: str) -> bool:
    """Whether it can be written as UTF-8; half characters stand for other bytes."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted({*texts} - {""}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _spaced(match: re.Match[str]) -> str:
    return f"{match[0][0]} {match[0][1:]}"
