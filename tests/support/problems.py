"""What a call is refused for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lpt.errors import ConfigError, Problem


def problems_of(call: Callable[[], object]) -> list[Problem]:
    """The problems with which a call is refused; each can be printed."""
    with pytest.raises(ConfigError) as caught:
        call()
    str(caught.value).encode()
    return caught.value.problems


def problem_of(call: Callable[[], object]) -> Problem:
    """The only problem with which a call is refused."""
    [problem] = problems_of(call)
    return problem


def check_keys(error: ConfigError, *keys: str) -> None:
    """Check that all problems are about these keys, and can be printed."""
    assert {problem.where for problem in error.problems} <= {*keys}
    str(error).encode()
