"""Whatever stands in a template, a text or a label word: one mask, no other special tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, normalizers
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from lpt.data.templates import Encoded, Encoder, Template
from lpt.data.verbalizer import word_ids
from lpt.errors import ConfigError
from tests.support.hostile import SPECIAL, texts
from tests.support.tokenizers import byte_bpe, causal, longest, roberta_like, wordpiece
from tests.unit.data.test_templates import Kind, sequences

WORDS = ["great", "bad", "a"]
TEXTS = {
    "masked": [
        "{text} It was <mask> .",
        "<mask>{b}{text}",
        "{b}<mask>{text}",
        "<{b}{text}: <mask>",
    ],
    "causal": ["{text} It was {word} .", "{word}{b}{text}", "{b}{word}{text}", "<{b}{text}{word}"],
}


def unigram() -> PreTrainedTokenizerFast:
    """A masked model's as XLM-RoBERTa's: wide letters become narrow, special tokens are pieces."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pieces = ["\u2581", *(f"\u2581{word}" for word in WORDS), *map(chr, range(33, 127))]
    vocab = [(piece, 0.0) for piece in special] + [(piece, -5.0) for piece in pieces]
    tokenizer = Tokenizer(Unigram(vocab, unk_id=3))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])
    tokenizer.pre_tokenizer = Metaspace()
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token=AddedToken("<mask>", lstrip=True, special=True),
    )


def looked_for_late() -> PreTrainedTokenizerFast:
    """A BERT tokenizer that looks for special tokens in lower case."""
    tokenizer = wordpiece()
    late = [AddedToken(f"[{name}]", special=True, normalized=True) for name in ("MASK", "SEP")]
    tokenizer.add_special_tokens({"mask_token": late[0], "sep_token": late[1]})
    return tokenizer


def start_only() -> PreTrainedTokenizerFast:
    return byte_bpe(bos_token="<s>")


def one_for_all() -> PreTrainedTokenizerFast:
    """As GPT-2's: the end token is also that for the unknown, which never comes up."""
    return byte_bpe(bos_token="</s>", eos_token="</s>", unk_token="</s>")


MAKERS: dict[str, tuple[Callable[[], PreTrainedTokenizerFast], Kind]] = {
    "wordpiece": (wordpiece, "masked"),
    "roberta": (roberta_like, "masked"),
    "unigram": (unigram, "masked"),
    "late": (looked_for_late, "masked"),
    "causal": (causal, "causal"),
    "start only": (start_only, "causal"),
    "one for all": (one_for_all, "causal"),
}
each_tokenizer = pytest.mark.parametrize("name", MAKERS)


@cache
def tokenizer_of(name: str) -> PreTrainedTokenizerFast:
    return MAKERS[name][0]()


@cache
def encoder(name: str, text: str, max_length: int) -> Encoder:
    template = Template.parse(text, MAKERS[name][1])
    return Encoder(tokenizer_of(name), template, WORDS, max_length)


def special_tokens(name: str, encoded: Encoded, i: int) -> list[list[int]]:
    """Of every sequence of an example the special tokens in order, but the unknown."""
    tokenizer = tokenizer_of(name)
    ids = {*tokenizer.added_tokens_decoder}
    if tokenizer.unk_token_id != tokenizer.eos_token_id:
        ids.discard(tokenizer.unk_token_id)
    return [[token for token in of if token in ids] for of in sequences(encoded, i)]


def refused_for(error: ConfigError, *keys: str) -> None:
    assert {problem.where for problem in error.problems} <= {*keys}
    str(error).encode()


def check(name: str, text: str, rows: list[tuple[str, str]], max_length: int) -> None:
    """What holds for all texts in a template."""
    used = encoder(name, text, max_length)
    columns = dict(zip(("text", "b"), map(list, zip(*rows, strict=True)), strict=True))
    encoded = used.encode(columns)
    plain = special_tokens(name, used.encode({"text": ["a"], "b": [""]}), 0)
    assert len(encoded) == len(rows)
    for i in range(len(rows)):
        assert special_tokens(name, encoded, i) == plain
        assert longest(encoded, i) <= max_length
        if encoded.endings:
            assert encoded.context[i]
            assert all(encoded.endings[i])
            assert len({*map(tuple, encoded.endings[i])}) == len(WORDS)
        else:
            assert encoded.context[i][encoded.mask_at[i]] == used.tokenizer.mask_token_id
    alone = [used.encode({key: [of[i]] for key, of in columns.items()}) for i in range(len(rows))]
    assert encoded.context == [one.context[0] for one in alone]
    assert encoded.mask_at == [at for one in alone for at in one.mask_at]
    assert encoded.endings == [of for one in alone for of in one.endings]
    assert encoded.truncated == sum(one.truncated for one in alone)


@example([(text, text) for text in SPECIAL], 0, 0)
@example([("</", "s>"), ("\uff1c", "mask\uff1e"), ("[", "MASK]"), ("[mask]", "[sep]")], 1, 2)
@given(
    st.lists(st.tuples(texts(), texts()), min_size=1, max_size=3),
    st.integers(0, 3),
    st.integers(0, 20),
)
@each_tokenizer
def test_any_text_is_only_text(
    name: str, rows: list[tuple[str, str]], template: int, room: int
) -> None:
    text = TEXTS[MAKERS[name][1]][template]
    shortest = longest(encoder(name, text, 500).encode({"text": [""], "b": [""]}), 0)
    check(name, text, rows, shortest + room + 1)


def test_each_label_part_has_a_token() -> None:
    """Even where one word begins another and nothing follows."""
    tokenizer = start_only()
    assert tokenizer.tokenize("zbz") == ["z", "b", "z"]
    used = Encoder(tokenizer, Template.parse("{text}{word}", "causal"), ["b", "bz"], 60)
    [endings] = used.encode({"text": ["z"]}).endings
    assert [tokenizer.decode(ids) for ids in endings] == ["b", "bz"]


@st.composite
def template_texts(draw: st.DrawFn) -> str:
    """Arbitrary ones, and those that may well be good."""
    mask = draw(st.sampled_from(["<mask>", "{word}"]))
    holes = st.sampled_from(["{text}", "{b}", "{}", "{a b}", mask])
    parts = draw(st.lists(holes | texts(2), max_size=5))
    return "".join(
        draw(st.permutations([*parts, mask, "{text}"])) if draw(st.booleans()) else parts
    )


@example("{text} <mask> \udcff", "x")
@example("{text} {word} \udcff", "x")
@given(template_texts(), texts())
@each_tokenizer
def test_any_template_works_or_is_refused(name: str, template: str, text: str) -> None:
    kind = MAKERS[name][1]
    try:
        parsed = Template.parse(template, kind)
        used = Encoder(tokenizer_of(name), parsed, WORDS, 60)
    except ConfigError as error:
        refused_for(error, "task.template", "data.max_length")
        return
    assert parsed.columns
    assert parsed.render({}, "X").count("X") >= 1
    encoded = used.encode({column: [text, "a"] for column in parsed.columns})
    first, second = (special_tokens(name, encoded, i) for i in range(2))
    assert first == second
    assert max(longest(encoded, 0), longest(encoded, 1)) <= 60
    if kind == "masked":
        assert [of.count(used.tokenizer.mask_token_id) for of in (*first, *second)] == [1, 1]


words = st.sampled_from([*WORDS, *SPECIAL, "Great", " bad", "b\0ad", "", "\u0301", "\udcff"])


@example(["great", "great"])
@given(st.lists(words | texts(1) | st.text(max_size=3), min_size=1, max_size=3))
@each_tokenizer
def test_any_words_are_distinct_tokens_or_refused(name: str, given_words: list[str]) -> None:
    tokenizer = tokenizer_of(name)
    try:
        ids = word_ids(tokenizer, given_words)
    except ConfigError as error:
        refused_for(error, "task.label_words")
        return
    assert len({*ids}) == len(ids) == len(given_words)
    assert all(0 <= token < len(tokenizer) for token in ids)
    assert not {*ids} & {*tokenizer.added_tokens_decoder}


@each_tokenizer
def test_good_words_are_not_refused(name: str) -> None:
    assert len(word_ids(tokenizer_of(name), WORDS)) == len(WORDS)
