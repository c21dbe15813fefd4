"""From a row to token ids: cloze templates, truncation of the text fields, label parts.

A masked template holds one `<mask>`, a causal one holds one `{word}`; `{name}` inserts a column.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from lpt.data.special_tokens import PlainText, is_text
from lpt.errors import Problems, config_error

MASK = "<mask>"
WORD = "word"
_VERSION = 2  # of what is made of a row; it goes up when tokens change
_HOLE = re.compile(r"\{([^{}]*)\}|(<mask>)")


@dataclass(frozen=True)
class Template:
    """A parsed template.

    Attributes:
        text: As written.
        kind: `masked` or `causal`.
        pieces: Literal text and holes in order; holes are (name,), the mask is (MASK,).
    """

    text: str
    kind: Literal["masked", "causal"]
    pieces: tuple[str | tuple[str], ...]

    @classmethod
    def parse(cls, text: str, kind: Literal["masked", "causal"]) -> Template:
        """Read a template.

        Raises:
            ConfigError: Not exactly one mask (masked) or {word} (causal), or no column.
        """
        pieces: list[str | tuple[str]] = []
        at = 0
        for match in _HOLE.finditer(text):
            pieces += [text[at : match.start()], (match[1] if match[1] is not None else MASK,)]
            at = match.end()
        template = cls(text, kind, (*pieces, text[at:]))
        template._check()
        return template

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns it inserts, in order of first appearance."""
        names = (p[0] for p in self.pieces if isinstance(p, tuple))
        return tuple(dict.fromkeys(n for n in names if n not in (MASK, WORD)))

    def render(
        self, values: Mapping[str, str], answer: str, clean: Callable[[str], str] = str
    ) -> str:
        """The text with columns filled in and `answer` where the mask or {word} stands.

        `clean` is applied to all of it but a mask.
        """
        at = next(i for i, p in enumerate(self.pieces) if p in ((MASK,), (WORD,)))
        parts = [p if isinstance(p, str) else values.get(p[0], "") for p in self.pieces]
        before, after = "".join(parts[:at]), "".join(parts[at + 1 :])
        if self.kind == "causal":
            return clean(f"{before}{answer}{after}")
        return f"{clean(before)}{answer}{clean(after)}"

    def _check(self) -> None:
        holes = [p[0] for p in self.pieces if isinstance(p, tuple)]
        wanted, other = (MASK, WORD) if self.kind == "masked" else (WORD, MASK)
        shown = {MASK: MASK, WORD: "{word}"}
        problems = Problems()
        if holes.count(wanted) != 1:
            problems.add(
                "task.template",
                f"{self.text!r} has {shown[wanted]} {holes.count(wanted)} times",
                f"{shown[wanted]} exactly once for a {self.kind} model",
            )
        if other in holes:
            problems.add(
                "task.template",
                f"{self.text!r} has {shown[other]}",
                f"only {shown[wanted]} for a {self.kind} model",
            )
        if not self.columns:
            problems.add("task.template", f"{self.text!r} uses no column", "{name} for a column")
        if not is_text(self.text):
            problems.add("task.template", f"{self.text!r} has bytes that are not UTF-8", "UTF-8")
        problems.raise_if_any()


@dataclass
class Encoded:
    """Token ids of many examples.

    Attributes:
        context: Per example, the whole sequence (masked) or all before the label part (causal).
        mask_at: Per example, index of the mask (masked models only).
        endings: Per example and label, the label part with the end token (causal models only).
        truncated: Examples that had to be shortened.
    """

    context: list[list[int]]
    mask_at: list[int] = field(default_factory=list)
    endings: list[list[list[int]]] = field(default_factory=list)
    truncated: int = 0

    def __len__(self) -> int:
        return len(self.context)


class Encoder:
    """Renders and tokenizes rows.

    Args:
        tokenizer: The backbone's.
        template: What to render.
        words: Label words in label order.
        max_length: Tokens of a sequence at most, special tokens included.

    Raises:
        ConfigError: The tokenizer has no mask (masked) or neither start nor end token (causal), or
            the template alone is longer than `max_length`.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: Template,
        words: Sequence[str],
        max_length: int,
    ) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.label_words = list(words)
        self.max_length = max_length
        masked = template.kind == "masked"
        if masked and tokenizer.mask_token is None:
            raise config_error(
                "model.path", "its tokenizer has no mask token", "the tokenizer of a masked model"
            )
        end, start = tokenizer.eos_token_id, tokenizer.bos_token_id
        # Models trained without a start token (Qwen) see their end token between documents.
        start = end if start is None else start
        if not masked and start is None:
            raise config_error(
                "model.path", "its tokenizer has no start or end token", "one of them"
            )
        self._start = [] if masked else [start]
        self._end = [] if masked or end is None else [end]
        self._answers = [tokenizer.mask_token] if masked else self.label_words
        self._plain = PlainText(tokenizer)
        # In what is rendered: those around the text, and the mask.
        self._wanted = tokenizer.num_special_tokens_to_add() + 1 if masked else 0
        literal = "".join(piece for piece in template.pieces if isinstance(piece, str))
        if found := self._plain.find(literal):
            raise config_error(
                "task.template",
                f"{template.text!r} holds the special token {found!r}",
                "plain text: special tokens are the tokenizer's business",
            )
        empty = max(len(s) for s in self._tokenize([dict.fromkeys(template.columns, "")])[0])
        if empty >= max_length:
            raise config_error(
                "data.max_length",
                f"{max_length}, but the template alone takes {empty} tokens",
                f"at least {empty + 1}",
            )

    @property
    def pad_id(self) -> int:
        """Token that fills up short rows; any will do for a tokenizer without one: it is masked."""
        pad = self.tokenizer.pad_token_id
        return int(pad) if pad is not None else 0

    def encode(self, columns: Mapping[str, Sequence[str]]) -> Encoded:
        """Token ids of every row; `columns` holds the template's columns, equally long."""
        names = self.template.columns
        rows = [
            {
                name: self._plain.apart(value.strip())
                for name, value in zip(names, values, strict=True)
            }
            for values in zip(*(columns[name] for name in names), strict=True)
        ]
        sequences = self._tokenize(rows)
        long = [i for i, of in enumerate(sequences) if max(map(len, of)) > self.max_length]
        self._shorten(rows, sequences, long)
        return self._assemble(sequences, len(long))

    def fingerprint(self) -> str:
        """SHA-256 of all that token ids depend on besides the texts."""
        tokenizer = self.tokenizer
        rules = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else tokenizer.get_vocab()
        template, limit = (self.template.kind, self.template.text), self.max_length
        parts = [_VERSION, rules, tokenizer.special_tokens_map, template, self.label_words, limit]
        return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()

    def _tokenize(self, rows: Sequence[Mapping[str, str]]) -> list[list[list[int]]]:
        """One sequence a row (masked) or one a row and label (causal), as (row, answer) lists."""
        # Made plain again, because special tokens may form where two fields meet.
        sequences = self._ids(rows, self._plain.apart)
        odd = [
            i
            for i, of in enumerate(sequences)
            if any(self._plain.count(ids) > self._wanted for ids in of)
        ]
        again = self._ids([rows[i] for i in odd], self._plain.normalized)
        for i, of in zip(odd, again, strict=True):
            sequences[i] = of
        return [[self._start + ids + self._end for ids in of] for of in sequences]

    def _ids(
        self, rows: Sequence[Mapping[str, str]], clean: Callable[[str], str]
    ) -> list[list[list[int]]]:
        """What the tokenizer makes of rows."""
        texts = [
            self.template.render(row, answer, clean) for row in rows for answer in self._answers
        ]
        if not texts:
            return []
        ids: list[list[int]] = self.tokenizer(
            texts,
            add_special_tokens=self.template.kind == "masked",
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,  # its own warning about length: we shorten
        )["input_ids"]
        step = len(self._answers)
        return [ids[i : i + step] for i in range(0, len(ids), step)]

    def _shorten(
        self, rows: list[dict[str, str]], sequences: list[list[list[int]]], long: list[int]
    ) -> None:
        """Cut the longest text column from its end, token by token, until each row fits.

        Args:
            rows: All rows; the cut ones are changed.
            sequences: Tokens of all rows; those of the cut ones are replaced.
            long: Which rows do not fit.
        """
        columns = self.template.columns
        while long:
            # Candidates share their passage: each text is looked at once.
            texts = list(dict.fromkeys(rows[i][name] for i in long for name in columns))
            spans = dict(zip(texts, self._offsets(texts), strict=True))
            for i in long:
                of_row = {name: spans[rows[i][name]] for name in columns}
                _cut(rows[i], of_row, max(map(len, sequences[i])) - self.max_length)
            for i, tokens in zip(long, self._tokenize([rows[i] for i in long]), strict=True):
                sequences[i] = tokens
            long = [i for i in long if max(map(len, sequences[i])) > self.max_length]

    def _offsets(self, texts: list[str]) -> list[list[tuple[int, int]]]:
        out: Any = self.tokenizer(
            texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        spans: list[list[tuple[int, int]]] = out["offset_mapping"]
        return spans

    def _assemble(self, sequences: list[list[list[int]]], truncated: int) -> Encoded:
        if self.template.kind == "masked":
            mask = self.tokenizer.mask_token_id
            context = [row[0] for row in sequences]
            return Encoded(context, [ids.index(mask) for ids in context], truncated=truncated)
        starts = [_common_prefix(row) for row in sequences]
        return Encoded(
            [row[0][:at] for row, at in zip(sequences, starts, strict=True)],
            endings=[[s[at:] for s in row] for row, at in zip(sequences, starts, strict=True)],
            truncated=truncated,
        )


def _cut(row: dict[str, str], spans: Mapping[str, list[tuple[int, int]]], excess: int) -> None:
    """Take `excess` tokens from the ends of the longest texts; `spans` of their tokens."""
    keep = {name: len(of) for name, of in spans.items()}
    while excess:
        longest = max(keep, key=lambda name: keep[name])
        others = max((count for name, count in keep.items() if name != longest), default=0)
        taken = min(excess, max(1, keep[longest] - others))
        keep[longest] -= taken
        excess -= taken
    for name, of in spans.items():
        count = max(keep[name], 0)
        if count < len(of):  # at least a character goes: tokens may have no width
            row[name] = row[name][: min(of[count][0], len(row[name]) - 1)].rstrip()


def _common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """How many leading tokens all sequences share, but for the last of the shortest."""
    for at, tokens in enumerate(zip(*sequences, strict=False)):
        if len(set(tokens)) > 1:
            return at
    return min(map(len, sequences)) - 1
