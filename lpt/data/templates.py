"""From a row to token ids: templates, truncation of the text fields, label parts.

A masked template has one `<mask>`, a causal one has one `{word}`; `{name}` inserts a column.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from lpt.data.special_tokens import SpecialTokenEscaper
from lpt.errors import Problems, config_error

MASK = "<mask>"
WORD = "word"
_COLUMN = re.compile(r"\{([^{}]*)\}")
Kind = Literal["masked", "causal"]
TokenIds = list[int]


@dataclass(frozen=True)
class Template:
    """A checked template; make one with `parse`.

    Attributes:
        text: As written.
        kind: `masked` or `causal`.
    """

    text: str
    kind: Kind

    @classmethod
    def parse(cls, text: str, kind: Kind) -> Template:
        """Check a template.

        Raises:
            ConfigError: Not exactly one mask (masked) or {word} (causal), or no column.
        """
        template = cls(text, kind)
        slot, other = template._slot, f"{{{WORD}}}" if kind == "masked" else MASK
        count, only = text.count(slot), f"{slot} exactly once for a {kind} model"
        problems = Problems()
        if count != 1:
            problems.add("task.template", f"{text!r} has {slot} {count} times", only)
        if other in text:
            problems.add("task.template", f"{text!r} has {other}", only)
        if not template.columns:
            problems.add("task.template", f"{text!r} uses no column", "{name} for a column")
        problems.raise_if_any()
        return template

    @property
    def _slot(self) -> str:
        """What the answer replaces."""
        return MASK if self.kind == "masked" else f"{{{WORD}}}"

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns it inserts, in order of first appearance."""
        return tuple(dict.fromkeys(n for n in _COLUMN.findall(self.text) if n != WORD))

    def around_answer(self, value: str) -> tuple[str, str]:
        """The text before and after the mask or {word}, with `value` in place of every column."""
        before, after = (_COLUMN.sub(value, side) for side in self.text.split(self._slot))
        return before, after

    def render(
        self, values: Mapping[str, str], answer: str, clean: Callable[[str], str] = str
    ) -> str:
        """The text with columns filled in and `answer` in place of the mask or {word}.

        `clean` is applied to everything except the mask.
        """
        before, after = (
            _COLUMN.sub(lambda match: values.get(match[1], ""), side)
            for side in self.text.split(self._slot)
        )
        if self.kind == "causal":
            return clean(f"{before}{answer}{after}")
        return f"{clean(before)}{answer}{clean(after)}"


@dataclass
class Encoded:
    """Token ids of many examples.

    Attributes:
        context: Per example, the whole sequence (masked) or what all labels share (causal).
        mask_index: Per example, index of the mask (masked models only).
        label_parts: Per example and label, the rest of the sequence with the end token (causal
            models only).
        truncated: Number of examples that had to be truncated.
    """

    context: list[TokenIds]
    mask_index: list[int] = field(default_factory=list)
    label_parts: list[list[TokenIds]] = field(default_factory=list)
    truncated: int = 0

    def __len__(self) -> int:
        return len(self.context)


class Encoder:
    """Renders and tokenizes rows.

    Args:
        tokenizer: The backbone's.
        template: The template to render.
        label_words: Label words in label order.
        max_length: Maximum length of a sequence in tokens, special tokens included.

    Raises:
        ConfigError: The tokenizer has no mask (masked) or neither start nor end token (causal), or
            the template alone is longer than `max_length`.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: Template,
        label_words: Sequence[str],
        max_length: int,
    ) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.label_words = label_words
        self.max_length = max_length
        self._escaper = SpecialTokenEscaper(tokenizer)
        masked = template.kind == "masked"
        self._answers = [tokenizer.mask_token] if masked else label_words
        # Special tokens of a masked sequence: those around the text, and the mask.
        self._special_count = tokenizer.num_special_tokens_to_add() + 1 if masked else 0
        end, start = tokenizer.eos_token_id, tokenizer.bos_token_id
        # Models trained without a start token (Qwen) see their end token between documents.
        start = end if start is None else start
        self._start = [] if masked else [start]
        self._end = [] if masked or end is None else [end]
        self._check()

    def _check(self) -> None:
        masked, template = self.template.kind == "masked", self.template
        if masked and self.tokenizer.mask_token is None:
            raise config_error("model.path", "its tokenizer has no mask token", "one with a mask")
        if not masked and self._start == [None]:
            raise config_error(
                "model.path", "its tokenizer has no start or end token", "one of them"
            )
        if found := self._escaper.pattern.search(template.render({}, "")):
            raise config_error(
                "task.template",
                f"{template.text!r} contains the special token {found[0]!r}",
                "plain text: the tokenizer adds its special tokens itself",
            )
        [sequences] = self._tokenize([dict.fromkeys(template.columns, "")])
        length = max(map(len, sequences))
        if length >= self.max_length:
            given = f"{self.max_length}, but the template alone takes {length} tokens"
            raise config_error("data.max_length", given, f"at least {length + 1}")

    @property
    def pad_id(self) -> int:
        """Padding token; any token will do for a tokenizer without one, since it is masked."""
        pad = self.tokenizer.pad_token_id
        return int(pad) if pad is not None else 0

    def encode(self, columns: Mapping[str, Sequence[str]]) -> Encoded:
        """Token ids of every row; `columns` has the template's columns, equally long."""
        names = self.template.columns
        rows = [
            {n: self._escaper.escape(value.strip()) for n, value in zip(names, row, strict=True)}
            for row in zip(*(columns[name] for name in names), strict=True)
        ]
        sequences = self._tokenize(rows)
        truncated = self._truncate(rows, sequences)
        if self.template.kind == "masked":
            context = [row[0] for row in sequences]
            mask_index = [ids.index(self.tokenizer.mask_token_id) for ids in context]
            return Encoded(context, mask_index, truncated=truncated)
        starts = [_common_prefix(row) for row in sequences]
        return Encoded(
            [row[0][:start] for row, start in zip(sequences, starts, strict=True)],
            label_parts=[[s[n:] for s in row] for row, n in zip(sequences, starts, strict=True)],
            truncated=truncated,
        )

    def render(self, values: Mapping[str, str], label: int) -> str:
        """The text of a row with the word of a label, without special tokens; causal models."""
        escape = self._escaper.escape
        row = {name: escape(values[name].strip()) for name in self.template.columns}
        text = self.template.render(row, self.label_words[label], escape)
        if self._escaper.ids.isdisjoint(self.tokenizer.encode(text, add_special_tokens=False)):
            return text
        clean = self._escaper.normalize_and_escape
        return self.template.render(row, self.label_words[label], clean)

    def _tokenize(self, rows: Sequence[Mapping[str, str]]) -> list[list[TokenIds]]:
        """Per row, one sequence (masked) or one per label (causal), with special tokens."""
        # Escaped again after rendering: special tokens may form where two fields meet.
        sequences = self._token_ids(rows, self._escaper.escape)
        is_special = self._escaper.ids.__contains__
        unescaped = [
            i
            for i, row in enumerate(sequences)
            if any(sum(map(is_special, ids)) > self._special_count for ids in row)
        ]
        for i in unescaped:
            [sequences[i]] = self._token_ids([rows[i]], self._escaper.normalize_and_escape)
        return [[self._start + ids + self._end for ids in row] for row in sequences]

    def _token_ids(
        self, rows: Sequence[Mapping[str, str]], clean: Callable[[str], str]
    ) -> list[list[TokenIds]]:
        """Per row and answer, the tokenizer's output."""
        return self._text_ids(
            [[self.template.render(row, answer, clean) for answer in self._answers] for row in rows]
        )

    def _text_ids(self, texts: Sequence[Sequence[str]]) -> list[list[TokenIds]]:
        ids: list[TokenIds] = self.tokenizer(
            [text for row in texts for text in row],
            add_special_tokens=self.template.kind == "masked",
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,  # no warning about length: long texts are truncated below
        )["input_ids"]
        step = len(self._answers)
        return [ids[i : i + step] for i in range(0, len(ids), step)]

    def _truncate(self, rows: list[dict[str, str]], sequences: list[list[TokenIds]]) -> int:
        """Cut the longest column at its end, token by token, until each row fits.

        Returns:
            Number of truncated rows; their entries in `rows` and `sequences` are replaced.
        """
        columns = self.template.columns
        too_long = [i for i, row in enumerate(sequences) if max(map(len, row)) > self.max_length]
        count = len(too_long)
        while too_long:
            # Candidates share their passage: each text is tokenized once.
            texts = list(dict.fromkeys(rows[i][name] for i in too_long for name in columns))
            encoding: Any = self.tokenizer(
                texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False
            )
            offsets = dict(zip(texts, encoding["offset_mapping"], strict=True))
            for i in too_long:
                row_offsets = {name: offsets[rows[i][name]] for name in columns}
                _cut(rows[i], row_offsets, max(map(len, sequences[i])) - self.max_length)
            tokenized = self._tokenize([rows[i] for i in too_long])
            for i, row in zip(too_long, tokenized, strict=True):
                sequences[i] = row
            too_long = [i for i in too_long if max(map(len, sequences[i])) > self.max_length]
        return count


def _cut(row: dict[str, str], offsets: Mapping[str, list[tuple[int, int]]], excess: int) -> None:
    """Remove `excess` tokens from the ends of the longest columns of a row.

    `offsets` has the (start, end) characters of the tokens of each column.
    """
    keep = {name: len(spans) for name, spans in offsets.items()}
    while excess:
        longest = max(keep, key=lambda name: keep[name])
        others = max((count for name, count in keep.items() if name != longest), default=0)
        removed = min(excess, max(1, keep[longest] - others))
        keep[longest] -= removed
        excess -= removed
    for name, spans in offsets.items():
        count = max(keep[name], 0)
        if count < len(spans):  # at least one character is removed: tokens may have no width
            row[name] = row[name][: min(spans[count][0], len(row[name]) - 1)].rstrip()


def _common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """Number of leading tokens that all sequences share; at least one of each is left."""
    for position, tokens in enumerate(zip(*sequences, strict=False)):
        if len(set(tokens)) > 1:
            return position
    return min(map(len, sequences)) - 1
