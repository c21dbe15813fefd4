"""One error type for everything a user can mend, and a collector that reports all of it at once."""

from __future__ import annotations

import difflib
import re
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.text import Text

# Exit statuses.
USAGE_ERROR = 2
CTRL_C = 130
PREEMPTED = 75  # interrupted by a signal, to be started again (EX_TEMPFAIL)

_SHOWN_ROWS = 5


def killed_by(status: int) -> str:
    """What a negative exit status says: the signal that ended the process, by its name."""
    known = {number.value: number.name for number in signal.Signals}
    name = known.get(-status, f"signal {-status}")  # real-time ones have no names
    return f"killed by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the input.

    Attributes:
        where: Config key (`prompt.layer`) or file and line (`train.tsv:17`).
        given: What was found there.
        expected: What would be accepted.
        hint: What to do about it.
    """

    where: str
    given: str
    expected: str = ""
    hint: str = ""

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.given}"]
        lines += [f"  expected: {self.expected}"] if self.expected else []
        lines += [f"  hint: {self.hint}"] if self.hint else []
        return "\n".join(lines)


class ConfigError(ValueError):
    """Everything found wrong with the configuration or the data, in one message."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        count = len(self.problems)
        head = "1 problem found" if count == 1 else f"{count} problems found"
        super().__init__(f"{head}; nothing was started.\n{self.listing}")

    @property
    def listing(self) -> str:
        """The problems, numbered."""
        numbered = (f"{i}. {p}" for i, p in enumerate(self.problems, 1))
        return "\n".join(text.replace("\n", "\n   ") for text in numbered)


class HubError(ConfigError):
    """The only thing wrong is that the hub could not be asked."""


class RunError(RuntimeError):
    """A run cannot go on, for a reason that its user can do something about."""


class Problems:
    """Collects problems so that a user sees all of them in one go."""

    def __init__(self) -> None:
        self.found: list[Problem] = []
        self._only_hub = True

    def add(self, where: str, given: str, expected: str = "", hint: str = "") -> None:
        """Note one problem; see `Problem` for the parts."""
        self.found.append(Problem(where, given, expected, hint))
        self._only_hub = False

    @contextmanager
    def rows(self, name: str, what: str = "bad rows") -> Iterator[Problems]:
        """Collect problems of single rows: of many, the first few and how many more there are.

        Args:
            name: File or data set that the rows are in.
            what: What the others are called.
        """
        of_rows = Problems()
        yield of_rows
        more = len(of_rows.found) - _SHOWN_ROWS
        for problem in of_rows.found[:_SHOWN_ROWS]:
            self.add(problem.where, problem.given, problem.expected, problem.hint)
        if more > 0:
            self.add(name, f"{more} more {what}")

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Run a block and keep the problems of a `ConfigError` raised in it instead of stopping."""
        try:
            yield
        except ConfigError as error:
            self.take(error)

    def take(self, error: ConfigError) -> None:
        """Note the problems of an error."""
        self.found.extend(error.problems)
        self._only_hub &= isinstance(error, HubError)

    def concern(self, *keys: str) -> bool:
        """Whether a problem noted so far is about a key that starts with one of these."""
        return any(problem.where.startswith(keys) for problem in self.found)

    def raise_if_any(self) -> None:
        """Raise `ConfigError` with every problem noted so far; do nothing if there is none.

        Raises:
            HubError: All of them come from an unreachable hub.
            ConfigError: Otherwise.
        """
        if self.found:
            raise (HubError if self._only_hub else ConfigError)(dict.fromkeys(self.found))


def config_error(where: str, given: str, expected: str = "", hint: str = "") -> ConfigError:
    """Make a `ConfigError` of a single problem, to be raised."""
    return ConfigError([Problem(where, given, expected, hint)])


def did_you_mean(value: str, options: Iterable[str], count: int = 3) -> str:
    """The options nearest to `value` as a hint, or an empty string when none is near."""
    near = difflib.get_close_matches(value, list(dict.fromkeys(options)), n=count, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else ""


# Those that move the cursor or cannot be encoded; not line breaks and tabs.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def literal_text(text: object, style: str = "") -> Text:
    """Text for a console, a table's cell or a title.

    A string would be read as rich's markup, in which `[/x]` is an error, and `:100:` in
    `train.tsv:100: bad label` an emoji. Control characters are shown by their escapes.

    Args:
        text: What to show.
        style: How.
    """
    return Text(_CONTROL.sub(lambda found: repr(found[0])[1:-1], str(text)), style)
