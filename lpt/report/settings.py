"""Which config keys tell the runs of a report apart, and which only follow another one."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lpt.report.runs import SEEDS, Run, Value

# Where things lie, and what changes neither scores nor costs in a way worth a column.
_IRRELEVANT = (
    "model.path",
    "data.path",
    "data.root",
    "data.verify",
    "data.extra",
    "data.num_workers",
    "data.eval_batch_size",
    "trainer.num_sanity_val_steps",
)
# Of keys that vary together, the first of these is shown. optim.lr comes before prompt.lr, which is
# only its default.
_FIRST = ("task", "model.name", "prompt.kind", "prompt.layer", "prompt.length", "optim.lr")
_LEADING = ("task", "model.name", "prompt.kind")
_PLAIN = ("kind", "name", "loss")  # words whose values speak for themselves


@dataclass(frozen=True)
class Keys:
    """Config keys that vary among the runs.

    Attributes:
        shown: The ones whose values make a setting, without task and seeds.
        follows: Key that varies, too, but only together with others, to those others.
    """

    shown: tuple[str, ...]
    follows: Mapping[str, tuple[str, ...]]

    def setting(self, run: Run) -> Setting:
        """The setting of a run."""
        return Setting(tuple((key, run.config.get(key)) for key in self.shown))

    def word(self, key: str) -> str:
        """A key as short as it can be told from the others: `prompt.layer` is `layer`."""
        last = key.rpartition(".")[2]
        alone = sum(other.rpartition(".")[2] == last for other in self.shown) <= 1
        return last if alone else key

    def label(self, setting: Setting, without: Iterable[str] = ()) -> str:
        """A setting in a few words, or an empty string where nothing varies."""
        left_out = set(without)
        words = ((self.word(key), value) for key, value in setting.values if key not in left_out)
        return ", ".join(
            show(value) if word in _PLAIN else f"{word} {show(value)}" for word, value in words
        )


@dataclass(frozen=True)
class Setting:
    """Values of the keys that vary: what is repeated over the seeds."""

    values: tuple[tuple[str, Value], ...]

    def __getitem__(self, key: str) -> Value:
        return dict(self.values)[key]

    def without(self, *keys: str) -> Setting:
        """The same, blind for some keys."""
        return Setting(tuple(item for item in self.values if item[0] not in keys))

    @property
    def order(self) -> tuple[tuple[int, float, str], ...]:
        """By what settings are sorted: numbers by size before words."""
        return tuple(order_of(value) for _, value in self.values)


def order_of(value: Value) -> tuple[int, float, str]:
    """By what values of a key are sorted: nothing, then numbers by size, then words."""
    if value is None:
        return (0, 0.0, "")
    if is_number(value):
        return (1, float(value), "")
    return (2, 0.0, str(value))


def is_number(value: Value) -> bool:
    """Whether a value is a number; true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def show(value: Value) -> str:
    """A value as it is written in the report: on one line, without what cannot be printed."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    return tidy(value) if isinstance(value, str) else json.dumps(value)


def tidy(text: str) -> str:
    """Text on one line, without what cannot be printed."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def find_keys(runs: Sequence[Run], swept: Collection[str] = ()) -> Keys:
    """The keys that differ among the runs, or were to differ.

    A key that is a function of another one, or of task, model and kind of prompt together, is not
    shown: a learning rate that was chosen for each kind of prompt is no setting of its own. What a
    sweep was to vary (`swept`) is shown in any case.
    """
    names = dict.fromkeys(key for run in runs for key in run.config)
    columns = {
        key: tuple(_hashable(run.config.get(key)) for run in runs)
        for key in names
        if key not in SEEDS and key not in _IRRELEVANT
    }
    combinations = len(set(zip(*columns.values(), strict=True)))
    varying = [key for key, column in columns.items() if len(set(column)) > 1 or key in swept]
    varying.sort(key=lambda key: _FIRST.index(key) if key in _FIRST else len(_FIRST))
    # A number drawn anew for each setting, as random search does, decides nothing else.
    drawn = {
        key
        for key in varying
        if len(set(columns[key])) == combinations
        and any(isinstance(run.config.get(key), float) for run in runs)
    }
    shown: list[str] = []
    follows: dict[str, tuple[str, ...]] = {}
    for key in varying:
        leading = tuple(other for other in _LEADING if other in shown and other != key)
        single = ((other,) for other in shown if other not in drawn)
        led = (o for o in (*single, leading) if o and _follows(columns, key, o))
        others = None if key in _LEADING or key in swept else next(led, None)
        if others is None:
            shown.append(key)
        else:
            follows[key] = others
    return Keys(tuple(key for key in shown if key != "task"), follows)


def _follows(columns: Mapping[str, tuple[object, ...]], key: str, others: tuple[str, ...]) -> bool:
    """Whether a key has one value for each of the others'."""
    given = list(zip(*(columns[other] for other in others), strict=True))
    return len(set(given)) == len(set(zip(given, columns[key], strict=True)))


def _hashable(value: Value) -> object:
    """1, 1.0 and true are equal to Python, and 1 and true are not the same setting."""
    return (value, isinstance(value, bool))
