"""Difficult text, as people, scrapers and other programs leave it in data files."""

from __future__ import annotations

from hypothesis import strategies as st

SPECIAL = (
    "<mask>",
    "[MASK]",
    "<s>",
    "</s>",
    "<pad>",
    "<unk>",
    "[CLS]",
    "[SEP]",
    "[PAD]",
    "<|endoftext|>",
    "\uff1cmask\uff1e",  # wide letters, which some tokenizers make narrow
    "\uff1c/s\uff1e",
    "{word}",
    "{text}",
)
HOSTILE = {
    "empty": "",
    "spaces": "   ",
    "right to left": "\u05d4\u05d9\u05d4 \u0637\u064a\u0628 \u202egood\u202c",
    "combining": "Z\u0351\u036b\u0343 e\u0301 \u0301alone",
    "emoji": "\U0001f600 \u2764\ufe0f \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "control": "\x01\x07\x08\x1b[31m\x7f\x85\x1c",
    "nul": "a\0b",
    "separators": "a\u2028b\u2029c\x0bd\x0ce",
    "byte-order mark": "\ufefftext\ufeff",
    "no characters": "\ufffe\uffff\ufdd0\U0010ffff",
    "quotes": '"a" \'b\' "" " \\ \\" ``',
    "commas and braces": 'a,b;c|d {"e": [1]} {} {{x}}',
    "widths": "\u200b\u00ad\u2060\u3000\uff21",
    "special": " ".join(SPECIAL),
    "special, tight": "".join(SPECIAL),
    "special, nested": "<<mask>mask> [[MASK]MASK] </<s>s> <\0mask>",
}
BREAKS = {"tab": "a\tb", "crlf": "a\r\nb", "lone cr": "a\rb\r", "lf": "\na\n\nb\n"}
LONG = 100_000
LONGEST = {
    "words": "a good film " * (LONG // 12) + "good",
    "one word": "x" * LONG,
    "families": "\U0001f468\u200d\U0001f469\u200d\U0001f467" * (LONG // 5),
    "masks": "<mask>" * (LONG // 6),
    "spaces": f"a{' ' * LONG}b",
    "accents": "e" + "\u0301" * LONG,
    "nothing": "\0" * LONG,
}

pieces = st.sampled_from(
    [*HOSTILE.values(), *BREAKS.values(), *SPECIAL, "<", "mask>", "/s>", "good"]
)


def texts(max_pieces: int = 8) -> st.SearchStrategy[str]:
    """Arbitrary characters and hostile pieces, with and without spaces between them."""
    parts = st.lists(pieces | st.text(max_size=12), max_size=max_pieces)
    return st.tuples(st.sampled_from(["", " "]), parts).map(lambda drawn: drawn[0].join(drawn[1]))
