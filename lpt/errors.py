"""One error type for everything a user can fix, and a collector that reports all of it together."""

from __future__ import annotations

import difflib
import re
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

# Exit codes of every command.
FAILURE = 1  # the run, a job of a sweep or the checked data failed
USAGE_ERROR = 2  # a ConfigError
PREEMPTED = 75  # stopped by SIGTERM or SIGUSR1 with its state saved; rerun to resume (EX_TEMPFAIL)
CTRL_C = 130

_SHOWN_ROWS = 5


def killed_by(status: int) -> str:
    """Describe a negative exit code: the name of the signal that ended the process."""
    name = signal.Signals(-status).name
    return f"killed by {name}" + (", possibly out of memory" if name == "SIGKILL" else "")


@dataclass(frozen=True)
class Problem:
    """One problem with the user's input."""

    where: str
    """Config key (`prompt.layer`) or file and line (`train.tsv:17`)."""
    given: str
    """The value or fault found there."""
    expected: str = ""
    """What would be accepted."""
    hint: str = ""
    """How to fix it."""

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.given}"]
        lines += [f"  expected: {self.expected}"] if self.expected else []
        lines += [f"  hint: {self.hint}"] if self.hint else []
        return "\n".join(lines)


class ConfigError(ValueError):
    """All problems with the configuration, the data or the files of a run, in one message."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__(f"Found {self._count('problem')}:\n{self.listing}")

    @property
    def not_started(self) -> str:
        """The message of a run that was refused because of the problems."""
        count = self._count("configuration problem")
        return f"Found {count}; the run was not started.\n{self.listing}"

    def _count(self, noun: str) -> str:
        return f"{len(self.problems)} {noun}{'s' if len(self.problems) > 1 else ''}"

    @property
    def listing(self) -> str:
        """The problems as a numbered list."""
        numbered = (f"{i}. {p}" for i, p in enumerate(self.problems, 1))
        return "\n".join(text.replace("\n", "\n   ") for text in numbered)


class HubError(ConfigError):
    """Every problem comes from the Hugging Face Hub being unreachable."""


class RunError(RuntimeError):
    """A run failed for a reason that the user can fix."""


class Problems:
    """Collects problems so that all of them are reported together."""

    def __init__(self) -> None:
        self.found: list[Problem] = []
        self._only_hub = True

    def add(self, where: str, given: str, expected: str = "", hint: str = "") -> None:
        """Add one problem; see `Problem` for the arguments."""
        self.found.append(Problem(where, given, expected, hint))
        self._only_hub = False

    @contextmanager
    def rows(self, name: str, what: str = "bad rows") -> Iterator[Problems]:
        """Collect problems of single rows; only the first five and the count of the rest are kept.

        Args:
            name: File or dataset of the rows.
            what: Plural noun for the rest.
        """
        row_problems = Problems()
        yield row_problems
        shown, rest = row_problems.found[:_SHOWN_ROWS], row_problems.found[_SHOWN_ROWS:]
        if shown:
            self.extend(ConfigError(shown))
        if rest:
            self.add(name, f"{len(rest)} more {what}")

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Run a block; a `ConfigError` raised in it ends the block and its problems are added."""
        try:
            yield
        except ConfigError as error:
            self.extend(error)

    def extend(self, error: ConfigError) -> None:
        """Add the problems of an error."""
        self.found.extend(error.problems)
        self._only_hub &= isinstance(error, HubError)

    def mentions(self, *keys: str) -> bool:
        """Whether any problem so far is about a key that starts with one of `keys`."""
        return any(problem.where.startswith(keys) for problem in self.found)

    def raise_if_any(self) -> None:
        """Raise a `ConfigError` with every problem so far, if there are any.

        Raises:
            HubError: All of them come from the unreachable hub.
            ConfigError: Otherwise.
        """
        if self.found:
            raise (HubError if self._only_hub else ConfigError)(dict.fromkeys(self.found))


def config_error(where: str, given: str, expected: str = "", hint: str = "") -> ConfigError:
    """A `ConfigError` with a single problem, for the caller to raise."""
    return ConfigError([Problem(where, given, expected, hint)])


def type_of(value: object) -> str:
    """The type of a value with its article: `an int`."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeioAEIO' else 'a'} {name}"


def first_line(error: BaseException) -> str:
    """What an error says in its first line; its type if it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def did_you_mean(value: str, options: Iterable[str], count: int = 3) -> str:
    """A hint with the options closest to `value`; empty if none is close."""
    near = difflib.get_close_matches(value, list(dict.fromkeys(options)), n=count, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else ""


# Control characters that move the cursor, and lone surrogates, which cannot be encoded.
# Line breaks and tabs are kept.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def literal_text(text: object, style: str = "") -> Text:
    """Text for a rich console, table cell or title; control characters are shown as escapes.

    rich would read `[/x]` in a string as markup and the `:100:` in `train.tsv:100: bad label` as an
    emoji.
    """
    from rich.text import Text  # 20 ms that a refused command line need not wait for

    return Text(_CONTROL.sub(lambda match: repr(match[0])[1:-1], str(text)), style)
