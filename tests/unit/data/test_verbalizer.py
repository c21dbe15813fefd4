"""Label words as single tokens."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from lpt.data.templates import Template
from lpt.data.verbalizer import label_word_ids, similar_words
from lpt.errors import ConfigError
from tests.support.hostile import SPECIAL, texts
from tests.support.problems import check_keys, problem_of, problems_of
from tests.support.tokenizers import MAKERS, encoder_named, tokenizer_named, unigram, wordpiece

each_tokenizer = pytest.mark.parametrize("name", ["wordpiece", "roberta", "causal"])


@each_tokenizer
def test_one_token_with_a_leading_space(name: str) -> None:
    tokenizer = tokenizer_named(name)
    words = ["terrible", "great", "bad"]
    for word, token in zip(words, label_word_ids(tokenizer, words), strict=True):
        sentence = tokenizer.encode(f"it was {word} .", add_special_tokens=False)
        assert tokenizer.convert_ids_to_tokens(token).lstrip("Ġ") == word
        assert token in sentence


@each_tokenizer
def test_several_problems_are_reported_together(name: str) -> None:
    tokenizer = tokenizer_named(name)
    words = ["greatly", "bad", "terribles", "bad"]
    problems = problems_of(lambda: label_word_ids(tokenizer, words))
    assert {problem.where for problem in problems} == {"task.label_words"}
    _, pieces, shared = problems
    tokens = tokenizer.tokenize("a terribles")[1:]
    assert len(tokens) > 1
    assert pieces.given.startswith(f"'terribles' is {' + '.join(map(repr, tokens))} ")
    assert "one token" in pieces.expected
    assert "terrible" in pieces.hint
    assert shared.given.startswith("two of ")
    assert "distinct" in shared.expected


def test_words_of_an_uncased_tokenizer() -> None:
    unknown, shared = problems_of(lambda: label_word_ids(wordpiece(), ["Great", "你", "great"]))
    assert unknown.given.startswith("'你' is '[UNK]' ")
    assert "none" in unknown.hint
    assert "'great'" in shared.given  # as 'Great' is to it


@each_tokenizer
def test_similar_words_are_label_words(name: str) -> None:
    tokenizer = tokenizer_named(name)
    assert similar_words(tokenizer, "grea")[0] == "great"
    assert similar_words(tokenizer, "qqqqqqqq") == []
    vocabulary = [token for token in tokenizer.get_vocab() if len(token) > 1 and token.isalpha()]
    for word in ("grea", *vocabulary):  # some tokens are parts of words only
        similar = similar_words(tokenizer, word)
        assert len(similar) <= 5
        assert len(label_word_ids(tokenizer, similar)) == len(similar)


CAUSAL = [
    "{text} It was {word} .",
    "It was  {word}",
    "{text}\n{word}",
    "{word} {text}",
    "Sentiment:{word} {text}",
    "{text}({word})",
]


@pytest.mark.parametrize("words", [("great", "bad"), ("terrible", "great"), ("film", "food")])
@pytest.mark.parametrize("text", CAUSAL)
def test_causal_words_are_the_tokens_that_are_scored(text: str, words: tuple[str, ...]) -> None:
    tokenizer = tokenizer_named("causal")
    template = Template.parse(text if "{text}" in text else f"{{text}} {text}", "causal")
    encoded = encoder_named("causal", template.text, words).encode({"text": ["a good film"]})
    first, *others = encoded.label_parts[0]
    scored = [part[0] for part in (first, *others)]
    if len({*scored}) == len(words) and all(tokenizer.decode([i]).strip() in words for i in scored):
        assert label_word_ids(tokenizer, words, template) == scored
        assert all(part[1:] == first[1:] for part in others)
    else:
        problem, *_ = problems_of(lambda: label_word_ids(tokenizer, words, template))
        assert "without a leading space" in problem.expected
        assert "a space before the word" in problem.hint


def test_causal_words_without_a_space_that_are_several_tokens_are_refused() -> None:
    tokenizer = tokenizer_named("causal")
    spaced, bare = (Template.parse(f"{{text}} It:{s}{{word}}", "causal") for s in (" ", ""))
    words = ["terrible", "food"]
    assert len(tokenizer.tokenize(" terrible")) == 1 < len(tokenizer.tokenize("terrible"))
    assert len(label_word_ids(tokenizer, words, spaced)) == 2
    problems = problems_of(lambda: label_word_ids(tokenizer, words, bare))
    assert "'terrible' is" in problems[0].given


def test_words_of_languages_without_spaces() -> None:
    tokenizer = unigram()
    letters = ["A", "B"]  # bare pieces, as the letters of such a language are
    places = {text: Template.parse(text, "masked") for text in ("{text}:<mask>.", "{text} <mask>.")}
    ids = label_word_ids(tokenizer, letters, places["{text}:<mask>."])
    assert tokenizer.convert_ids_to_tokens(ids) == letters
    problem, _ = problems_of(lambda: label_word_ids(tokenizer, letters, places["{text} <mask>."]))
    assert problem.given.startswith("'A' is '\u2581' + 'A'")
    spaced = label_word_ids(tokenizer, ["great", "bad"], places["{text}:<mask>."])  # as before
    assert tokenizer.convert_ids_to_tokens(spaced) == ["\u2581great", "\u2581bad"]


CHINESE = (
    "\u597d",
    "\u574f",
    "\u5f88",
    "\u5f88\u597d",
    "\u2581\u597d",
)  # good, bad, very, very good


@pytest.mark.parametrize(
    "text", ["{text}<mask>", "{text}\u5f88<mask>\u3002", "<mask>:{text}", "<mask>{text}"]
)
def test_chinese_words_do_not_merge_with_the_text_before_the_mask(text: str) -> None:
    tokenizer = unigram(*CHINESE)
    template = Template.parse(text, "masked")
    for words in (["\u597d", "\u574f"], ["\u5f88\u597d", "\u574f"]):
        ids = label_word_ids(tokenizer, words, template)
        assert tokenizer.convert_ids_to_tokens(ids) == words


def test_chinese_words_behind_a_space_need_a_token_with_it() -> None:
    words, template = ["\u597d", "\u574f"], Template.parse("{text} <mask>", "masked")
    [problem] = problems_of(lambda: label_word_ids(unigram(*CHINESE), words, template))
    assert problem.given.startswith("'\u574f' is '\u2581' + '\u574f'")


def test_part_of_a_word_that_others_do_not_have_is_no_space() -> None:
    """One word is a token with its space, the other one is a space and a token."""
    tokenizer, words = tokenizer_named("causal"), ["great", "No"]
    assert [len(tokenizer.tokenize(f" {word}")) for word in words] == [1, 2]
    for text in ("{text} It was {word} .", "{text}  {word}"):
        template = Template.parse(text, "causal")
        [problem] = problems_of(lambda: label_word_ids(tokenizer, words, template))  # noqa: B023
        assert problem.given.startswith("'No' is ")


@pytest.mark.parametrize("text", ["{text}{word}", "{word}{text} .", "{text} {word}{text}"])
def test_a_causal_word_stands_beside_no_column(text: str) -> None:
    template = Template.parse(text, "causal")
    words = [" great", " bad"]
    [problem] = problems_of(lambda: label_word_ids(tokenizer_named("causal"), words, template))
    assert problem.where == "task.template"


def test_a_causal_word_that_merges_with_the_text_before_it_is_refused() -> None:
    tokenizer, template = unigram(*CHINESE), Template.parse("{text}\u5f88{word}", "causal")
    [problem] = problems_of(lambda: label_word_ids(tokenizer, ["\u597d", "\u574f"], template))
    assert problem.given.startswith("'\u574f' is '\u5f88' + '\u574f'")


@each_tokenizer
def test_words_near_in_meaning_are_single_tokens_near_the_word(name: str) -> None:
    tokenizer = tokenizer_named(name)
    near_id, alike_id = label_word_ids(tokenizer, ["bad", "terrible"])
    embeddings = torch.randn(len(tokenizer), 8)
    embeddings[near_id] = embeddings[alike_id] * 2
    words = ["great", "terribles"]
    problem = problem_of(lambda: label_word_ids(tokenizer, words, None, lambda: embeddings))
    start = re.match("single-token words near in meaning: (\\w+), (\\w+)", problem.hint)
    assert start is not None
    assert {*start.groups()} == {"bad", "terrible"}
    near = problem.hint.partition(": ")[2].split(", ")
    assert len(label_word_ids(tokenizer, near)) == len(near) <= 5


words = st.sampled_from(["great", "bad", "a", *SPECIAL, "Great", " bad", "", "\u0301"])


@example(["great", "great"])
@example(["great", "bad", "a"])
@given(st.lists(words | texts(1) | st.text(max_size=3), min_size=1, max_size=3))
@pytest.mark.parametrize("name", MAKERS)
def test_any_words_are_distinct_tokens_or_refused(name: str, given_words: list[str]) -> None:
    tokenizer = tokenizer_named(name)
    try:
        ids = label_word_ids(tokenizer, given_words)
    except ConfigError as error:
        assert given_words != ["great", "bad", "a"]
        check_keys(error, "task.label_words")
        return
    assert len({*ids}) == len(ids) == len(given_words)
    assert all(0 <= token < len(tokenizer) for token in ids)
    assert not {*ids} & {*tokenizer.added_tokens_decoder}
