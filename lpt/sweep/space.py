"""The space of a sweep: keys and their values, in Hydra's override grammar; couples of keys."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    IntervalSweep,
    Override,
    Quote,
    QuotedString,
    RangeSweep,
)
from omegaconf import OmegaConf

from lpt.config.command_line import (
    ALL,
    LAYERS,
    check_overrides,
    config_folders,
    expand_all_keyword,
    parse_value,
)
from lpt.config.method_checks import check_layer
from lpt.config.schema import Config, SweepConfig, at_layer
from lpt.errors import Problems
from lpt.runs.job_record import EXCLUDE, SETTINGS, NumberRange

# Keys of the sweep itself; its jobs do not get them.
_SWEEP_KEYS = ("sweep", "run_dir", "resume", "overwrite", "dry_run")

Settings = dict[str, str]
"""Key or group -> value of one job, as on the command line."""


@dataclass(frozen=True)
class Space:
    """Which overrides the jobs of a sweep share, and in which they differ.

    Attributes:
        fixed: The overrides that all jobs share.
        axes: Key or group -> its values, as on the command line.
        ranges: Key -> the numbers to search; empty for a grid.
        couples: Settings of several keys that vary together, crossed with the axes.
        excluded: Combinations that are left out: those with all values of an entry.
    """

    fixed: Sequence[str] = ()
    axes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ranges: Mapping[str, NumberRange] = field(default_factory=dict)
    couples: Sequence[Settings] = ({},)
    excluded: Sequence[Settings] = ()

    @property
    def all_layers(self) -> str | None:
        """The key whose values are all layers of the model, if there is one."""
        return next((key for key in LAYERS if self.axes.get(key) == (ALL,)), None)

    def record(self) -> dict[str, list[str] | list[Settings] | NumberRange]:
        """The space as sweep.json has it."""
        axes = {key: list(values) for key, values in self.axes.items()}
        couples = {SETTINGS: list(self.couples)} if any(self.couples) else {}
        excluded = {EXCLUDE: list(self.excluded)} if self.excluded else {}
        return {**axes, **self.ranges, **couples, **excluded}

    def grid(self, layers: Callable[[Settings], Sequence[int]]) -> Iterator[Settings]:
        """Every combination of the couples and the axes' values, the last axis changing fastest.

        Args:
            layers: The first layers that the method can have, given the other settings; replaces
                the value of `method.layer=all`.
        """
        key = self.all_layers
        if key is None:
            yield from filter(self._included, combinations(self.axes, self.couples))
            return
        others = {name: values for name, values in self.axes.items() if name != key}
        given = filter(self._included, combinations(others, self.couples))
        allowed = {tuple(s.items()): layers(s) for s in given}
        all_layers = tuple(map(str, sorted(set().union(*allowed.values()))))
        for settings in combinations({**self.axes, key: all_layers}, self.couples):
            fitting = allowed.get(tuple(s for s in settings.items() if s[0] != key), ())
            if int(settings[key]) in fitting and self._included(settings):
                yield settings

    def _included(self, settings: Settings) -> bool:
        return not any(matches(entry, settings) for entry in self.excluded)


def combinations(
    axes: Mapping[str, Sequence[str]], couples: Sequence[Settings] = ({},)
) -> Iterator[Settings]:
    """Every combination of the couples and the axes' values, the last axis changing fastest."""
    for couple, values in itertools.product(couples, itertools.product(*axes.values())):
        yield {**couple, **dict(zip(axes, values, strict=True))}


def matches(entry: Settings, settings: Settings) -> bool:
    """Whether settings have all values of an entry."""
    return all(
        key in settings and parse_value(settings[key]) == parse_value(value)
        for key, value in entry.items()
    )


def read_space(arguments: Sequence[str], config: SweepConfig) -> Space:
    """Combine a file of conf/sweep with the command line, which takes precedence.

    Args:
        arguments: Overrides of the command line.
        config: Section `sweep` of the configuration.

    Raises:
        ConfigError: No key varies, a search varies a seed, or a value is invalid.
    """
    search, problems = config.trials is not None, Problems()
    texts = [f"{key}={_format_value(value)}" for key, value in config.fixed.items()]
    texts += [f"{key}={_format_axis(values)}" for key, values in config.space.items()]
    texts = list(map(expand_all_keyword, [*texts, *arguments]))
    couples = [{k: _format_value(v) for k, v in entry.items()} for entry in config.settings]
    excluded = [{k: _format_value(v) for k, v in entry.items()} for entry in config.exclude]
    coupled = [f"{key}={value}" for entry in (*couples, *excluded) for key, value in entry.items()]
    check_overrides([*texts, *coupled], *config_folders())
    shared: list[str] = []
    axes: dict[str, tuple[str, ...]] = {}
    ranges: dict[str, NumberRange] = {}
    hydra = GlobalHydra.instance()
    parser = OverridesParser.create(hydra.config_loader() if hydra.is_initialized() else None)
    overrides = {o.key_or_group: o for o in parser.parse_overrides(texts)}
    for key, override in overrides.items():
        if key.partition(".")[0] in _SWEEP_KEYS:
            if override.is_sweep_override():
                problems.add(key, str(override.input_line), "one value for all jobs")
        elif not override.is_sweep_override():
            shared.append(str(override.input_line))
        elif (numbers := _number_range(key, override, problems, search=search)) is not None:
            ranges[key] = numbers
        else:
            values = axes[key] = tuple(dict.fromkeys(override.sweep_string_iterator()))
            if not values:
                problems.add(key, override.get_value_string(), "at least one value")
            if key in LAYERS and ALL in values and len(values) > 1:
                problems.add(key, ",".join(values), "either all or layer numbers")
    _check_couples(couples, overrides, problems)
    different = [c for place, c in enumerate(couples) if c not in couples[:place]]
    space = Space(shared, axes, ranges, different or ({},), tuple(excluded))
    _check_varied(space, problems, search=search)
    _check_excluded(space, problems, search=search)
    problems.raise_if_any()
    return space


def _check_couples(
    couples: Sequence[Settings], overrides: Mapping[str, Override], problems: Problems
) -> None:
    """Check that each entry of `sweep.settings` has one value for keys that nothing else sets."""
    if {} in couples:
        problems.add("sweep.settings", "an empty entry", "at least one key")
    for key in dict.fromkeys(key for couple in couples for key in couple):
        texts = [couple[key] for couple in couples if key in couple]
        several = [text for text in texts if _varies(key, text)]
        if key.partition(".")[0] in _SWEEP_KEYS:
            problems.add(key, "varied by sweep.settings", "a key of a run")
        elif several:
            hint = "an entry of sweep.settings for each value"
            problems.add(key, f"{several[0]} in sweep.settings", "one value", hint)
        elif key in overrides:
            found = f"set by sweep.settings, and by {overrides[key].input_line}"
            hint = "replace the whole list, e.g. 'sweep.settings=[{prompt:mppg},{prompt:npg}]'"
            problems.add(key, found, "one of them", hint)


def _varies(key: str, text: str) -> bool:
    override = expand_all_keyword(f"{key}={text}")
    return OverridesParser.create().parse_override(override).is_sweep_override()


def _check_varied(space: Space, problems: Problems, *, search: bool) -> None:
    """Check that some key varies, and in a search no seed."""
    keys = {*space.axes, *space.ranges, *(key for couple in space.couples for key in couple)}
    for key in sorted({"seed", "data.seed"} & keys) if search else ():
        found, expected = "several values in a search", "one: the best of several seeds is luck"
        hint = f"search with one seed, then run the best settings with several: {key}=13,21,42"
        problems.add(key, found, expected, hint)
    if not keys and not problems.found:
        hint = "e.g. seed=1,2, or sweep=layers; train.py does a single run"
        problems.add("sweep", "no key varies", "several values for at least one key", hint)


def _check_excluded(space: Space, problems: Problems, *, search: bool) -> None:
    """Check that each entry of `sweep.exclude` is about keys that vary in a grid."""
    varied = {*space.axes, *(key for couple in space.couples for key in couple)}
    for entry in space.excluded:
        unknown = ", ".join(key for key in entry if key not in varied)
        if search or unknown or not entry:
            expected = "values of keys that vary, in a grid"
            problems.add("sweep.exclude", unknown or str(entry), expected)


def quote(text: str) -> str:
    """Text as the value of an override; the inverse of `parse_value`."""
    if re.fullmatch(r"[\w./+-]+", text, re.ASCII) and parse_value(text) == text:
        return text
    return QuotedString(text, Quote.single).with_quotes()


def allowed_layers(config: Config, depth: int) -> list[int]:
    """The first layers that the method can have in a model of this depth."""

    def fits(layer: int) -> bool:
        problems = Problems()
        check_layer(at_layer(config, layer), depth, problems)
        return not problems.found

    return list(filter(fits, range(1, depth + 1)))


def _number_range(
    key: str, override: Override, problems: Problems, *, search: bool
) -> NumberRange | None:
    """The numbers of an interval or, in a search, of a range; None for other values."""
    value = override.value()
    if isinstance(value, IntervalSweep):
        if not search:
            hint = "an interval can only be searched: sweep.trials=20"
            problems.add(key, override.get_value_string(), "values, e.g. 1,2,3", hint)
        low, high, log = float(value.start or 0), float(value.end or 0), "log" in value.tags
        if low > high or (log and low <= 0):
            expected = "an interval from a lower to a higher number, above 0 with log"
            problems.add(key, override.get_value_string(), expected)
        if "int" in value.tags or isinstance(value.start, int):  # tag(int, ...) or int(...)
            return NumberRange(low=int(low), high=int(high), step=1, log=log)
        return NumberRange(low=low, high=high, log=log)
    if isinstance(value, RangeSweep) and search:
        numbers = list(value.range())
        if numbers:
            return NumberRange(low=min(numbers), high=max(numbers), step=abs(value.step))
    return None


def _format_axis(value: Any) -> str:
    if OmegaConf.is_list(value) or isinstance(value, list | tuple):
        texts = list(map(_format_value, value))
        # choice() makes an axis of a single value, but does not take null.
        return f"choice({texts[0]})" if len(texts) == 1 else ",".join(texts)
    return _format_value(value)


def _format_value(value: Any) -> str:
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)
