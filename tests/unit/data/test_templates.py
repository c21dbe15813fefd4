from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import pytest
from transformers import PreTrainedTokenizerFast

from lpt.data.templates import Encoded, Encoder, Template
from lpt.errors import ConfigError
from tests.support.tokenizers import WORDS, byte_bpe, causal, longest, roberta_like, wordpiece

Kind = Literal["masked", "causal"]
PAIR: dict[str, str] = {
    "masked": "{a} ? <mask> , {b} .",
    "causal": "{a} but {b} It was {word} .",
}
LABEL_WORDS = ["great", "terrible"]
TOKENIZERS: dict[str, tuple[Callable[[], PreTrainedTokenizerFast], Kind]] = {
    "wordpiece": (wordpiece, "masked"),
    "roberta": (roberta_like, "masked"),
    "causal": (causal, "causal"),
}
ODD = [
    "",
    "x",
    "zebra",
    "  two  ",
    "don't",
    '"',
    "né",
    "你好",
    "😀",
    "<",
    "a\u200db",
    "...",
    "\t\n",
]
SPECIAL_TEXT = [
    "<mask>",
    "[MASK]",
    "</s>",
    "<s>",
    "<pad>",
    "[SEP]",
    "[CLS] [PAD]",
    "<<mask>>",
    "good<mask>bad</s></s>",
    "</<s>s> <m<mask>ask>",
]
ALL = (*WORDS, *ODD, *SPECIAL_TEXT)

each_tokenizer = pytest.mark.parametrize(("make", "kind"), TOKENIZERS.values(), ids=TOKENIZERS)


def random_texts(seed: int, count: int, pool: Sequence[str] = ALL) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(pool, k=rng.randint(0, 25))) for _ in range(count)]


def encoder(
    tokenizer: PreTrainedTokenizerFast, kind: Kind, max_length: int = 500, text: str | None = None
) -> Encoder:
    return Encoder(tokenizer, Template.parse(text or PAIR[kind], kind), LABEL_WORDS, max_length)


def sequences(encoded: Encoded, i: int) -> list[list[int]]:
    """Every whole sequence of example i."""
    endings = encoded.endings[i] if encoded.endings else [[]]
    return [encoded.context[i] + ending for ending in endings]


def special_counts(tokenizer: PreTrainedTokenizerFast, ids: Iterable[int]) -> dict[int, int]:
    found = list(ids)
    return {i: found.count(i) for i in tokenizer.added_tokens_decoder if i in found}


# Parsing and rendering


@pytest.mark.parametrize(
    ("text", "kind", "given"),
    [
        ("{a} It was great .", "masked", ["<mask> 0 times"]),
        ("{a} <mask> <mask>", "masked", ["<mask> 2 times"]),
        ("{a} <mask> {word}", "masked", ["has {word}"]),
        ("{a} It was {word}", "masked", ["<mask> 0 times", "has {word}"]),
        ("It was <mask> .", "masked", ["uses no column"]),
        ("nothing", "masked", ["<mask> 0 times", "uses no column"]),
        ("{a} It was great .", "causal", ["{word} 0 times"]),
        ("{a} {word} {word}", "causal", ["{word} 2 times"]),
        ("{a} {word} <mask>", "causal", ["has <mask>"]),
        ("It was {word}", "causal", ["uses no column"]),
    ],
)
def test_malformed_templates(text: str, kind: Kind, given: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Template.parse(text, kind)
    problems = caught.value.problems
    assert len(problems) == len(given)
    for problem, part in zip(problems, given, strict=True):
        assert problem.where == "task.template"
        assert part in problem.given
        assert repr(text) in problem.given
        assert problem.allowed


def test_rendering() -> None:
    masked = Template.parse("<mask> : {b} and {a} {b}!", "masked")
    assert masked.columns == ("b", "a")
    assert masked.render({"a": "{b}", "b": "<mask>"}, "[M]") == "[M] : <mask> and {b} <mask>!"
    tight = Template.parse("{a}{b c} They are {word} .", "causal")
    assert tight.columns == ("a", "b c")
    assert tight.render({"a": "x", "b c": "y"}, "great") == "xy They are great ."


# Encoding


@each_tokenizer
def test_tokens_of_the_rendered_text(
    make: Callable[[], PreTrainedTokenizerFast], kind: Kind
) -> None:
    tokenizer = make()
    encoded = encoder(tokenizer, kind).encode({"a": ["a good film", " bad "], "b": ["no", "x"]})
    answers = [tokenizer.mask_token] if kind == "masked" else LABEL_WORDS
    template = Template.parse(PAIR[kind], kind)
    for i, values in enumerate([{"a": "a good film", "b": "no"}, {"a": "bad", "b": "x"}]):
        expected = [tokenizer(template.render(values, answer))["input_ids"] for answer in answers]
        if kind == "causal":
            expected = [[tokenizer.bos_token_id, *x, tokenizer.eos_token_id] for x in expected]
        assert sequences(encoded, i) == expected
        assert longest(encoded, i) == max(map(len, expected))
    assert len(encoded) == 2
    assert encoded.truncated == 0


@pytest.mark.parametrize("make", [wordpiece, roberta_like])
@pytest.mark.parametrize("max_length", [30, 500])
def test_one_mask_and_it_is_found(
    make: Callable[[], PreTrainedTokenizerFast], max_length: int
) -> None:
    tokenizer = make()
    texts = {"a": random_texts(1, 60), "b": random_texts(2, 60)}
    for template in ("{a} ? <mask> , {b}", "<mask> : {b}{a}", "{a} {b} It was <mask>."):
        encoded = encoder(tokenizer, "masked", max_length, template).encode(texts)
        assert encoded.endings == []
        for ids, at in zip(encoded.context, encoded.mask_at, strict=True):
            assert [i for i, x in enumerate(ids) if x == tokenizer.mask_token_id] == [at]


@each_tokenizer
@pytest.mark.parametrize("text", SPECIAL_TEXT)
@pytest.mark.parametrize("max_length", [24, 500])
def test_special_tokens_in_text_are_text(
    make: Callable[[], PreTrainedTokenizerFast], kind: Kind, text: str, max_length: int
) -> None:
    tokenizer = make()
    encoded = encoder(tokenizer, kind, max_length).encode(
        {"a": ["good", text, f"a film {text} " * 9], "b": ["bad", f"{text} x", text]}
    )
    plain, *marked = [sequences(encoded, i)[-1] for i in range(3)]
    for ids in marked:
        assert special_counts(tokenizer, ids) == special_counts(tokenizer, plain)
        assert len(ids) > len(plain)  # the text is still there


@pytest.mark.parametrize("max_length", [22, 500])
@pytest.mark.parametrize(
    ("text", "label_part"),
    [(PAIR["causal"], " {} ."), ("{a}{b} They are {word}.", " {}."), ("{word} : {a} {b}", None)],
)
def test_causal_parts(text: str, label_part: str | None, max_length: int) -> None:
    tokenizer, words = causal(), ["great", "bad", "terrible"]
    template = Template.parse(text, "causal")
    texts = {name: random_texts(seed, 40, (*WORDS, *ODD)) for name, seed in (("a", 3), ("b", 4))}
    encoded = Encoder(tokenizer, template, words, max_length).encode(texts)
    assert encoded.mask_at == []
    assert (encoded.truncated > 0) == (max_length == 22)
    for i, (context, endings) in enumerate(zip(encoded.context, encoded.endings, strict=True)):
        assert context[0] == tokenizer.bos_token_id
        assert len({ending[0] for ending in endings}) > 1  # the context is all that they share
        values = {name: column[i].strip() for name, column in texts.items()}
        for word, ending in zip(words, endings, strict=True):
            assert ending[-1] == tokenizer.eos_token_id
            assert len(context) + len(ending) <= max_length
            shown = tokenizer.decode(ending[:-1])
            assert shown == label_part.format(word) if label_part else shown.startswith(word)
            if not encoded.truncated:
                rendered = tokenizer(template.render(values, word))["input_ids"]
                assert (context + ending)[1:-1] == rendered


@pytest.mark.parametrize(
    ("special", "start", "end"),
    [
        ({"eos_token": "</s>"}, "</s>", ["</s>"]),  # as Qwen: the end token starts a text, too
        ({"bos_token": "<s>"}, "<s>", []),
    ],
)
def test_causal_with_one_special_token(special: dict[str, str], start: str, end: list[str]) -> None:
    tokenizer = byte_bpe(**special)
    encoded = encoder(tokenizer, "causal").encode({"a": ["good"], "b": ["bad"]})
    for word, ids in zip(LABEL_WORDS, sequences(encoded, 0), strict=True):
        text = tokenizer.tokenize(f"good but bad It was {word} .")
        assert tokenizer.convert_ids_to_tokens(ids) == [start, *text, *end]


@pytest.mark.parametrize(
    ("tokenizer", "kind", "given"),
    [
        (causal(), "masked", "no mask token"),
        (byte_bpe(), "causal", "no start or end token"),
    ],
)
def test_tokenizer_of_the_other_kind(
    tokenizer: PreTrainedTokenizerFast, kind: Kind, given: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        encoder(tokenizer, kind)
    [problem] = caught.value.problems
    assert problem.where == "model.path"
    assert given in problem.given
    assert problem.allowed


# Truncation


@each_tokenizer
def test_template_alone_too_long(make: Callable[[], PreTrainedTokenizerFast], kind: Kind) -> None:
    with pytest.raises(ConfigError) as caught:
        encoder(make(), kind, 4)
    [problem] = caught.value.problems
    assert problem.where == "data.max_length"
    assert problem.given.startswith("4, but the template alone takes ")
    enough = int(problem.allowed.removeprefix("at least "))
    encoded = encoder(make(), kind, enough).encode({"a": ["x"], "b": [""]})
    assert longest(encoded, 0) <= enough
    with pytest.raises(ConfigError):
        encoder(make(), kind, enough - 2)


@each_tokenizer
@pytest.mark.parametrize("max_length", [26, 40, 60])
def test_truncation_fits_and_leaves_short_rows_alone(
    make: Callable[[], PreTrainedTokenizerFast], kind: Kind, max_length: int
) -> None:
    tokenizer = make()
    texts = {"a": random_texts(5, 60), "b": random_texts(6, 60)}
    whole = encoder(tokenizer, kind, 5000).encode(texts)
    cut = encoder(tokenizer, kind, max_length).encode(texts)
    long = [i for i in range(60) if longest(whole, i) > max_length]
    assert 0 < len(long) < 60
    assert (whole.truncated, cut.truncated) == (0, len(long))
    for i in range(60):
        if i in long:
            assert longest(cut, i) <= max_length
        else:
            assert sequences(cut, i) == sequences(whole, i)


@each_tokenizer
@pytest.mark.parametrize(("a", "b"), [(40, 3), (3, 40), (40, 40), (30, 25), (0, 40), (12, 14)])
def test_truncation_shortens_the_longer_field(
    make: Callable[[], PreTrainedTokenizerFast], kind: Kind, a: int, b: int
) -> None:
    """Words of one token each: as many stay as fit, taken off the longer field from its end."""
    tokenizer, max_length = make(), 32
    rng = random.Random(a * 100 + b)
    singles = [w for w in WORDS if w.isalpha() and len(tokenizer.tokenize(f" {w}")) == 1]
    words = {
        name: ["a", *rng.choices(singles, k=count - 1)] if count else []
        for name, count in (("a", a), ("b", b))
    }
    text = PAIR[kind] if kind == "causal" else "{a} but {b} It was <mask> ."

    def encode(limit: int, keep_a: int, keep_b: int) -> Encoded:
        kept = {"a": words["a"][:keep_a], "b": words["b"][:keep_b]}
        columns = {name: [" ".join(value)] for name, value in kept.items()}
        return encoder(tokenizer, kind, limit, text).encode(columns)

    cut = encode(max_length, a, b)
    excess = longest(encode(500, a, b), 0) - max_length
    assert cut.truncated == (excess > 0)
    left = a + b - max(excess, 0)
    splits = [(i, left - i) for i in range(left + 1) if i <= a and left - i <= b]
    keeps = [s for s in splits if sequences(encode(500, *s), 0) == sequences(cut, 0)]
    assert keeps
    kept_a, kept_b = keeps[0]
    assert kept_a == a or kept_a >= kept_b - 1
    assert kept_b == b or kept_b >= kept_a - 1
