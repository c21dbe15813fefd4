"""Templates: parsing, rendering, truncation; any text in them stays text."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from lpt.data.templates import Encoded, Encoder, Template
from tests.support.hostile import SPECIAL, texts
from tests.support.problems import problem_of, problems_of
from tests.support.tokenizers import (
    MAKERS,
    WORDS,
    byte_bpe,
    causal,
    encoder_named,
    kind_of,
    longest,
    tokenizer_named,
)

PAIR = {"masked": "{a} ? <mask> , {b} .", "causal": "{a} but {b} It was {word} ."}
LABEL_WORDS = ("great", "terrible")
ODD = ["", "  two  ", "\t\n", "a\u200db", "zebra", "don't", '"', "né 你好 😀", "<", "..."]
ALL = (*WORDS, *ODD, *SPECIAL)
each_tokenizer = pytest.mark.parametrize("name", ["wordpiece", "roberta", "causal"])


def random_texts(seed: int, count: int, pool: Sequence[str] = ALL) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(pool, k=rng.randint(0, 25))) for _ in range(count)]


def encoder(name: str, max_length: int = 500, text: str | None = None) -> Encoder:
    return encoder_named(name, text or PAIR[kind_of(name)], LABEL_WORDS, max_length)


def sequences(encoded: Encoded, i: int) -> list[list[int]]:
    """Every whole sequence of example i."""
    parts = encoded.label_parts[i] if encoded.label_parts else [[]]
    return [encoded.context[i] + part for part in parts]


@pytest.mark.parametrize(
    ("text", "kind", "given"),
    [
        ("{a} It was great .", "masked", ["<mask> 0 times"]),
        ("{a} <mask> <mask>", "masked", ["<mask> 2 times"]),
        ("{a} It was {word}", "masked", ["<mask> 0 times", "has {word}"]),
        ("nothing", "masked", ["<mask> 0 times", "uses no column"]),
        ("{a} {word} {word}", "causal", ["{word} 2 times"]),
        ("{a} {word} <mask>", "causal", ["has <mask>"]),
        ("It was {word}", "causal", ["uses no column"]),
    ],
)
def test_malformed_templates(
    text: str, kind: Literal["masked", "causal"], given: list[str]
) -> None:
    problems = problems_of(lambda: Template.parse(text, kind))
    assert len(problems) == len(given)
    for problem, part in zip(problems, given, strict=True):
        assert problem.where == "task.template"
        assert part in problem.given
        assert repr(text) in problem.given
        assert problem.expected


def test_rendering() -> None:
    masked = Template.parse("<mask> : {b} and {a} {b}!", "masked")
    assert masked.columns == ("b", "a")
    assert masked.render({"a": "{b}", "b": "<mask>"}, "[M]") == "[M] : <mask> and {b} <mask>!"
    assert Template.parse("{} <mask>", "masked").columns == ("",)
    tight = Template.parse("{a}{b c} They are {word} .", "causal")
    assert tight.columns == ("a", "b c")
    assert tight.render({"a": "x", "b c": "y"}, "great") == "xy They are great ."


@pytest.mark.parametrize("name", ["wordpiece", "roberta", "causal", "start only", "end only"])
def test_tokens_of_the_rendered_text(name: str) -> None:
    """A causal text starts with the end token if there is no start token."""
    used = encoder(name)
    tokenizer, template = used.tokenizer, used.template
    encoded = used.encode({"a": ["a good film", " bad "], "b": ["no", "x"]})
    answers, starts, ends = [tokenizer.mask_token], [], []
    if kind_of(name) == "causal":
        ends = [token for token in [tokenizer.eos_token_id] if token is not None]
        answers, starts = LABEL_WORDS, [tokenizer.bos_token_id or tokenizer.eos_token_id]
    for i, values in enumerate([{"a": "a good film", "b": "no"}, {"a": "bad", "b": "x"}]):
        texts = [tokenizer(template.render(values, answer))["input_ids"] for answer in answers]
        assert sequences(encoded, i) == [[*starts, *ids, *ends] for ids in texts]
    assert (len(encoded), encoded.truncated) == (2, 0)


@pytest.mark.parametrize("max_length", [22, 500])
@pytest.mark.parametrize(
    ("text", "label_part"),
    [(PAIR["causal"], " {} ."), ("{a}{b} They are {word}.", " {}."), ("{word} : {a} {b}", None)],
)
def test_label_parts(text: str, label_part: str | None, max_length: int) -> None:
    words = ("great", "bad", "terrible")
    used = encoder_named("causal", text, words, max_length)
    tokenizer, template = used.tokenizer, used.template
    columns = {name: random_texts(seed, 40, (*WORDS, *ODD)) for name, seed in (("a", 3), ("b", 4))}
    encoded = used.encode(columns)
    assert encoded.mask_index == []
    assert (encoded.truncated > 0) == (max_length == 22)
    for i, (context, parts) in enumerate(zip(encoded.context, encoded.label_parts, strict=True)):
        assert context[0] == tokenizer.bos_token_id
        assert len({part[0] for part in parts}) > 1  # the context is all that they share
        values = {name: column[i].strip() for name, column in columns.items()}
        for word, part in zip(words, parts, strict=True):
            assert part[-1] == tokenizer.eos_token_id
            assert len(context) + len(part) <= max_length
            shown = tokenizer.decode(part[:-1])
            assert shown == label_part.format(word) if label_part else shown.startswith(word)
            if not encoded.truncated:
                rendered = tokenizer(template.render(values, word))["input_ids"]
                assert (context + part)[1:-1] == rendered


def test_each_label_part_has_a_token() -> None:
    """Even where one word begins another and nothing follows."""
    used = encoder_named("start only", "{text}{word}", ("b", "bz"))
    assert used.tokenizer.tokenize("zbz") == ["z", "b", "z"]
    [parts] = used.encode({"text": ["z"]}).label_parts
    assert [used.tokenizer.decode(ids) for ids in parts] == ["b", "bz"]


@pytest.mark.parametrize(
    ("tokenizer", "kind", "given"),
    [(causal(), "masked", "no mask token"), (byte_bpe(), "causal", "no start or end token")],
)
def test_tokenizer_of_another_kind(
    tokenizer: PreTrainedTokenizerFast, kind: Literal["masked", "causal"], given: str
) -> None:
    template = Template.parse(PAIR[kind], kind)
    problem = problem_of(lambda: Encoder(tokenizer, template, LABEL_WORDS, 500))
    assert problem.where == "model.path"
    assert given in problem.given
    assert problem.expected


@each_tokenizer
def test_special_tokens_in_templates_are_refused(name: str) -> None:
    special = tokenizer_named(name).pad_token
    text = f"{special} {PAIR[kind_of(name)]}"
    problem = problem_of(lambda: encoder(name, text=text))
    assert f"contains the special token {special!r}" in problem.given


@each_tokenizer
def test_template_alone_too_long(name: str) -> None:
    problem = problem_of(lambda: encoder(name, 4))
    assert problem.where == "data.max_length"
    assert problem.given.startswith("4, but the template alone takes ")
    enough = int(problem.expected.removeprefix("at least "))
    encoded = encoder(name, enough).encode({"a": ["x"], "b": [""]})
    assert longest(encoded, 0) <= enough
    assert problem_of(lambda: encoder(name, enough - 2)).where == "data.max_length"


@each_tokenizer
@pytest.mark.parametrize("max_length", [26, 60])
def test_truncation_leaves_short_rows_alone(name: str, max_length: int) -> None:
    columns = {"a": random_texts(5, 60), "b": random_texts(6, 60)}
    whole = encoder(name, 5000).encode(columns)
    cut = encoder(name, max_length).encode(columns)
    long = [i for i in range(60) if longest(whole, i) > max_length]
    assert 0 < len(long) < 60
    assert (whole.truncated, cut.truncated) == (0, len(long))
    assert all(longest(cut, i) <= max_length for i in range(60))
    short = [i for i in range(60) if i not in long]
    assert [sequences(cut, i) for i in short] == [sequences(whole, i) for i in short]


@each_tokenizer
@pytest.mark.parametrize(("a", "b", "kept"), [(40, 3, (9, 3)), (3, 40, (3, 9)), (40, 40, (6, 6))])
def test_truncation_shortens_the_longer_field(
    name: str, a: int, b: int, kept: tuple[int, int]
) -> None:
    """Words of one token each: 12 fit, and are cut from the end of the longer field."""
    tokenizer = tokenizer_named(name)
    singles = [w for w in WORDS if w.isalpha() and len(tokenizer.tokenize(f" {w}")) == 1] * 2
    text = PAIR["causal"].replace("{word}", "<mask>" if tokenizer.mask_token else "{word}")

    def encode(limit: int, *counts: int) -> Encoded:
        columns = {
            "a": ["a " + " ".join(singles[: counts[0] - 1])],
            "b": ["a " + " ".join(singles[-40:][: counts[1] - 1])],
        }
        return encoder(name, limit, text).encode(columns)

    fits = longest(encode(500, *kept), 0)
    cut = encode(fits, a, b)
    assert cut.truncated == 1
    assert sequences(cut, 0) == sequences(encode(500, *kept), 0)


ANY_WORDS = ("great", "bad", "a")
ANY_TEXTS = {
    "masked": [
        "{text} It was <mask> .",
        "<mask>{b}{text}",
        "{b}<mask>{text}",
        "<{b}{text}: <mask>",
    ],
    "causal": ["{text} It was {word} .", "{word}{b}{text}", "{b}{word}{text}", "<{b}{text}{word}"],
}


def special_tokens(name: str, encoded: Encoded, i: int) -> list[list[int]]:
    """The special tokens of every sequence of an example, in order, except the unknown token."""
    tokenizer = tokenizer_named(name)
    ids = {*tokenizer.added_tokens_decoder}
    if tokenizer.unk_token_id != tokenizer.eos_token_id:
        ids.discard(tokenizer.unk_token_id)
    return [[token for token in row if token in ids] for row in sequences(encoded, i)]


@example([(text, text) for text in SPECIAL], 0, 0)
@example([("</", "s>"), ("\uff1c", "mask\uff1e"), ("[", "MASK]"), ("[mask]", "[sep]")], 1, 2)
@given(
    st.lists(st.tuples(texts(), texts()), min_size=1, max_size=3),
    st.integers(0, 3),
    st.integers(0, 20),
)
@pytest.mark.parametrize("name", MAKERS)
def test_any_text_is_only_text(
    name: str, rows: list[tuple[str, str]], template: int, room: int
) -> None:
    text = ANY_TEXTS[kind_of(name)][template]
    roomy = encoder_named(name, text, ANY_WORDS)
    shortest = longest(roomy.encode({"text": [""], "b": [""]}), 0)
    used = encoder_named(name, text, ANY_WORDS, shortest + room + 1)
    columns = dict(zip(("text", "b"), map(list, zip(*rows, strict=True)), strict=True))
    encoded = used.encode(columns)
    plain = special_tokens(name, used.encode({"text": ["a"], "b": [""]}), 0)
    assert len(encoded) == len(rows)
    for i in range(len(rows)):
        assert special_tokens(name, encoded, i) == plain
        assert longest(encoded, i) <= used.max_length
        if encoded.mask_index:
            assert encoded.context[i][encoded.mask_index[i]] == used.tokenizer.mask_token_id
        else:
            assert encoded.context[i]
            assert all(encoded.label_parts[i])
            assert len({*map(tuple, encoded.label_parts[i])}) == len(ANY_WORDS)
    alone = [used.encode({key: [of[i]] for key, of in columns.items()}) for i in range(len(rows))]
    assert encoded.context == [one.context[0] for one in alone]
    assert encoded.mask_index == [index for one in alone for index in one.mask_index]
    assert encoded.label_parts == [parts for one in alone for parts in one.label_parts]
    assert encoded.truncated == sum(one.truncated for one in alone)
