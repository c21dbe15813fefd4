"""The space of a sweep: which keys take which values, said in Hydra's override grammar."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    IntervalSweep,
    Override,
    Quote,
    QuotedString,
    RangeSweep,
)
from hydra.errors import HydraException
from omegaconf import OmegaConf

from lpt.config.command_line import ALL, LAYER, check_overrides, several
from lpt.config.schema import CONF_DIR
from lpt.errors import Problems

_OWN = ("sweep", "run_dir", "resume", "overwrite", "dry_run")  # the sweep's, not its jobs'


@dataclass(frozen=True)
class Range:
    """Numbers to search in.

    Attributes:
        low: Smallest.
        high: Largest.
        step: Distance of neighbours; None: any number in between.
        log: Whether orders of magnitude are alike.
    """

    low: float
    high: float
    step: float | None = None
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether only integers are meant."""
        return all(isinstance(number, int) for number in (self.low, self.high, self.step))


@dataclass(frozen=True)
class Space:
    """What the jobs of a sweep have in common, and in what they differ.

    Attributes:
        fixed: Key or group -> the override that all jobs share.
        axes: Key or group -> its values, as on the command line.
        ranges: Key -> the numbers to search in; empty for a grid.
    """

    fixed: Mapping[str, str] = field(default_factory=dict)
    axes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)

    @property
    def arguments(self) -> list[str]:
        """What all jobs have in common, as on the command line."""
        return list(self.fixed.values())

    def points(self, layers: Callable[[Mapping[str, str]], Sequence[int]]) -> Iterator[Settings]:
        """Every combination of the axes' values, the last one changing fastest.

        Args:
            layers: The layers that a prompt may enter at with these settings, for
                `prompt.layer=all`.
        """
        if self.axes.get(LAYER) != (ALL,):
            yield from combinations(self.axes)
            return
        others = {key: values for key, values in self.axes.items() if key != LAYER}
        allowed = {tuple(point.items()): layers(point) for point in combinations(others)}
        any_layer = sorted(set().union(*allowed.values()))
        for point in combinations({**self.axes, LAYER: tuple(map(str, any_layer))}):
            if int(point[LAYER]) in allowed[tuple((k, point[k]) for k in others)]:
                yield point

    def described(self) -> dict[str, Any]:
        """The same as plain types, for sweep.json."""
        ranges = {key: vars(numbers) for key, numbers in self.ranges.items()}
        return {**{key: list(values) for key, values in self.axes.items()}, **ranges}


Settings = dict[str, str]


def combinations(axes: Mapping[str, Sequence[str]]) -> Iterator[Settings]:
    """Every combination of some values, the last one changing fastest."""
    return (dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))


def read_space(
    arguments: Sequence[str], fixed: Mapping[str, Any], space: Mapping[str, Any], *, search: bool
) -> Space:
    """The space that conf/sweep and the command line describe together; the latter wins.

    Args:
        arguments: Overrides of the command line.
        fixed: What conf/sweep says of all jobs.
        space: Key -> values in Hydra's grammar, or a list of them, from conf/sweep.
        search: Whether values are searched for instead of all being tried.

    Raises:
        ConfigError: Nothing varies, a value is given twice, or an interval has no search.
    """
    written = [f"{key}={_text(value)}" for key, value in fixed.items()]
    written += [f"{key}={_values_text(value)}" for key, value in space.items()]
    texts = list(map(several, [*written, *arguments]))
    check_overrides(texts, CONF_DIR)
    overrides = {override.key_or_group: override for override in _parsed(texts)}
    problems = Problems()
    one: dict[str, str] = {}
    axes: dict[str, tuple[str, ...]] = {}
    ranges: dict[str, Range] = {}
    for key, override in overrides.items():
        own = key.partition(".")[0] in _OWN
        if override.is_sweep_override() and (own or override.get_key_element() != key):
            given = str(override.input_line)
            problems.add(key, given, "one value for all jobs" if own else f"{key}=a,b,...")
        if own:
            continue
        numbers = _range(override, search=search)
        if numbers is not None:
            ranges[key] = numbers
            if not search:
                problems.add(key, override.get_value_string(), "values, e.g. 1,2,3", _SEARCH)
        elif override.is_discrete_sweep():
            axes[key] = _values(key, override, problems)
        else:
            one[key] = str(override.input_line)
    if not axes and not ranges:
        expected = "a space of conf/sweep of which the command line leaves something open"
        hint = "give a key several values (seed=1,2), or use train.py for a single run"
        problems.add("sweep", "no key with several values", expected, hint)
    problems.raise_if_any()
    return Space(one, axes, ranges)


_SEARCH = "an interval is searched in, not tried out: sweep.trials=20"


def parsed_value(text: str) -> Any:
    """A value as it is in the configuration."""
    return OverridesParser.create().parse_override(f"key={text}").value()


def quoted(text: str) -> str:
    """Text as a value on the command line."""
    if re.fullmatch(r"[\w./+-]+", text, re.ASCII) and parsed_value(text) == text:
        return text
    return QuotedString(text, Quote.single).with_quotes()


def _parsed(written: Sequence[str]) -> list[Override]:
    from hydra.core.global_hydra import GlobalHydra

    known = GlobalHydra.instance()
    parser = OverridesParser.create(known.config_loader() if known.is_initialized() else None)
    problems, overrides = Problems(), []
    for text in written:
        try:
            overrides.append(parser.parse_override(text))
        except HydraException as error:
            problems.add(text, str(error).splitlines()[0], "key=value")
    problems.raise_if_any()
    return overrides


def _values(key: str, override: Override, problems: Problems) -> tuple[str, ...]:
    values = list(override.sweep_string_iterator())
    if not values:
        problems.add(key, override.get_value_string(), "at least one value")
    for value in dict.fromkeys(values):
        if values.count(value) > 1:
            problems.add(key, f"{value} given twice", "each value once")
    if key == LAYER and ALL in values and len(values) > 1:
        problems.add(key, ",".join(values), "all, or numbers")
    return tuple(values)


def _range(override: Override, *, search: bool) -> Range | None:
    """The numbers that an interval, or in a search a range, stands for."""
    value = override.value()
    if isinstance(value, IntervalSweep):
        log, low, high = "log" in value.tags, value.start, value.end
        assert low is not None
        assert high is not None
        if "int" in value.tags or isinstance(low, int):  # tag(int, ...) or int(...)
            return Range(int(low), int(high), 1, log)
        return Range(float(low), float(high), None, log)
    if isinstance(value, RangeSweep) and search:
        numbers = list(value.range())
        return Range(min(numbers), max(numbers), abs(value.step)) if numbers else None
    return None


def _values_text(value: Any) -> str:
    if OmegaConf.is_list(value) or isinstance(value, list | tuple):
        texts = list(map(_text, value))
        # A single value is an axis as well; but Hydra takes no null there.
        return f"choice({texts[0]})" if len(texts) == 1 else ",".join(texts)
    return _text(value)


def _text(value: Any) -> str:
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def layers_of(kind: str, depth: int) -> range:
    """The layers that a prompt may enter at: a generator needs one below it to read."""
    return range(1 if kind == "static" else 2, depth + 1)
