"""Escaping of special tokens that occur in texts, so that a text stays text."""

from __future__ import annotations

import re
from collections.abc import Iterable

from transformers import PreTrainedTokenizerBase


class SpecialTokenEscaper:
    """Breaks up special tokens in texts: `</s>` in a review becomes `< /s>`.

    Attributes:
        ids: Ids of all special tokens except the unknown token, which stands for any text.
        pattern: Matches any special token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        added = {i: t for i, t in tokenizer.added_tokens_decoder.items() if t.special}
        self.ids = {*tokenizer.all_special_ids, *added} - {tokenizer.unk_token_id}
        tokens = {*tokenizer.all_special_tokens, *(token.content for token in added.values())}
        self.pattern = _any_of(tokens)
        self._normalizer = tokenizer.backend_tokenizer.normalizer if tokenizer.is_fast else None
        # The tokenizer searches normalized text for some of them, after normalizing the token.
        self._normalized_pattern = _any_of({*tokens, *map(self._normalize, tokens)})

    def escape(self, text: str) -> str:
        """The text without special tokens."""
        return self.pattern.sub(_insert_space, text)

    def normalize_and_escape(self, text: str) -> str:
        """The normalized text without special tokens.

        For texts in which the tokenizer's normalizer itself forms special tokens, e.g. by turning
        full-width letters into ASCII.
        """
        return self._normalized_pattern.sub(_insert_space, self._normalize(text))

    def _normalize(self, text: str) -> str:
        return text if self._normalizer is None else self._normalizer.normalize_str(text)


def _any_of(tokens: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted({*tokens} - {""}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _insert_space(match: re.Match[str]) -> str:
    return f"{match[0][0]} {match[0][1:]}"
