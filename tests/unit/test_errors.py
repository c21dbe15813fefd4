"""One error with everything in it."""

from __future__ import annotations

import pytest

from lpt.errors import ConfigError, HubError, Problem, Problems, config_error, did_you_mean

HUB = HubError([Problem("model.path", "x, and no hub")])


def test_a_message_has_every_part_of_every_problem() -> None:
    first = Problem("prompt.layer", "0", "1 to 12", "prompt.layer=7")
    error = ConfigError([first, Problem("train.tsv:17", "3 columns")])
    assert str(error) == (
        "Found 2 problems:\n"
        "1. prompt.layer: 0\n"
        "     expected: 1 to 12\n"
        "     hint: prompt.layer=7\n"
        "2. train.tsv:17: 3 columns"
    )
    assert str(config_error("seed", "-1")) == "Found 1 problem:\n1. seed: -1"


def test_problems_are_collected_until_raised() -> None:
    problems = Problems()
    problems.raise_if_any()
    problems.add("seed", "-1")
    with problems.collect():
        raise ConfigError([Problem("data.k", "1"), Problem("data.seed", "-1")])
    with problems.collect():
        pass
    assert problems.mentions("data.k")
    assert problems.mentions("prompt.", "data.")
    assert not problems.mentions("k", "prompt.")
    with pytest.raises(ConfigError) as caught:
        problems.raise_if_any()
    assert [problem.where for problem in caught.value.problems] == ["seed", "data.k", "data.seed"]


def test_other_errors_are_not_swallowed() -> None:
    with pytest.raises(KeyError), Problems().collect():
        raise KeyError("a bug, not the user's input")


@pytest.mark.parametrize(
    ("errors", "only_the_hub"),
    [([HUB], True), ([HUB, HUB], True), ([HUB, config_error("seed", "-1")], False)],
)
def test_a_missing_hub_is_told_from_other_problems(
    errors: list[ConfigError], only_the_hub: bool
) -> None:
    problems = Problems()
    for error in errors:
        with problems.collect():
            raise error
    with pytest.raises(ConfigError) as caught:
        problems.raise_if_any()
    assert isinstance(caught.value, HubError) is only_the_hub


def test_near_names() -> None:
    assert did_you_mean("robrta", ["roberta", "bert", "gpt2"]).startswith("did you mean roberta")
    assert did_you_mean("zzz", ["roberta", "bert", "gpt2"]) == ""
