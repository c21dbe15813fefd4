from __future__ import annotations

from collections.abc import Callable

import pytest
from transformers import PreTrainedTokenizerFast

from lpt.data.verbalizer import near_words, word_ids
from lpt.errors import ConfigError
from tests.support.tokenizers import causal, roberta_like, wordpiece

MAKERS = [wordpiece, roberta_like, causal]
each_tokenizer = pytest.mark.parametrize("make", MAKERS)
Make = Callable[[], PreTrainedTokenizerFast]


@each_tokenizer
def test_one_token_with_a_leading_space(make: Make) -> None:
    tokenizer = make()
    words = ["terrible", "great", "bad"]
    for word, token in zip(words, word_ids(tokenizer, words), strict=True):
        sentence = tokenizer.encode(f"it was {word} .", add_special_tokens=False)
        assert tokenizer.convert_ids_to_tokens(token).lstrip("Ġ") == word
        assert token in sentence


@each_tokenizer
def test_word_of_several_pieces(make: Make) -> None:
    tokenizer = make()
    with pytest.raises(ConfigError) as caught:
        word_ids(tokenizer, ["great", "terribles"])
    [problem] = caught.value.problems
    assert problem.where == "task.label_words"
    pieces = tokenizer.tokenize("a terribles")[1:]
    assert len(pieces) > 1
    assert problem.given.startswith(f"'terribles' is {' + '.join(map(repr, pieces))} ")
    assert "one token" in problem.allowed
    assert "terrible" in problem.hint


@each_tokenizer
def test_near_words_are_single_tokens(make: Make) -> None:
    tokenizer = make()
    near = near_words(tokenizer, "grea")
    assert near
    assert near[0] == "great"
    assert len(word_ids(tokenizer, near)) == len(near) <= 5
    assert near_words(tokenizer, "qqqqqqqq") == []


def test_fragments_are_no_near_words() -> None:
    tokenizer = causal()
    vocab = tokenizer.get_vocab()
    fragments = [t for t in vocab if len(t) > 1 and t.isalpha() and f"Ġ{t}" not in vocab]
    fragments = [t for t in fragments if "Ġ" not in t]
    assert fragments
    assert [t for t in fragments if t in near_words(tokenizer, t)] == []


def test_words_that_share_a_token() -> None:
    with pytest.raises(ConfigError) as caught:
        word_ids(wordpiece(), ["Great", "bad", "great"])  # lower case to this tokenizer
    [problem] = caught.value.problems
    assert problem.where == "task.label_words"
    assert "'great'" in problem.given
    assert "distinct" in problem.allowed


def test_word_unknown_to_the_tokenizer() -> None:
    with pytest.raises(ConfigError) as caught:
        word_ids(wordpiece(), ["great", "你"])
    [problem] = caught.value.problems
    assert problem.given.startswith("'你' is '[UNK]' ")
    assert "none found" in problem.hint


@each_tokenizer
def test_several_problems_come_together(make: Make) -> None:
    with pytest.raises(ConfigError) as caught:
        word_ids(make(), ["greatly", "bad", "terribles", "bad"])
    given = [problem.given for problem in caught.value.problems]
    starts = ["'greatly' is", "'terribles' is", "two of"]
    assert len(given) == len(starts)
    assert all(text.startswith(start) for text, start in zip(given, starts, strict=True))
    assert {problem.where for problem in caught.value.problems} == {"task.label_words"}
