"""The space of a sweep: keys and their values, written in Hydra's override grammar."""

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
    LAYER,
    check_overrides,
    config_folders,
    expand_all_keyword,
    parse_value,
)
from lpt.errors import Problems
from lpt.runs.job_record import NumberRange

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
    """

    fixed: Sequence[str] = ()
    axes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ranges: Mapping[str, NumberRange] = field(default_factory=dict)

    def grid(self, layers: Callable[[Settings], Sequence[int]]) -> Iterator[Settings]:
        """Every combination of the axes' values, the last axis changing fastest.

        Args:
            layers: The layers that a prompt can be inserted at, given the other settings; replaces
                the value of `prompt.layer=all`.
        """
        if self.axes.get(LAYER) != (ALL,):
            yield from combinations(self.axes)
            return
        other_axes = {key: values for key, values in self.axes.items() if key != LAYER}
        allowed = {tuple(s.items()): layers(s) for s in combinations(other_axes)}
        all_layers = sorted(set().union(*allowed.values()))
        for settings in combinations({**self.axes, LAYER: tuple(map(str, all_layers))}):
            if int(settings[LAYER]) in allowed[tuple((k, settings[k]) for k in other_axes)]:
                yield settings


def combinations(axes: Mapping[str, Sequence[str]]) -> Iterator[Settings]:
    """Every combination of the axes' values, the last axis changing fastest."""
    return (dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))


def read_space(
    arguments: Sequence[str], fixed: Mapping[str, Any], space: Mapping[str, Any], *, search: bool
) -> Space:
    """Combine a file of conf/sweep with the command line, which takes precedence.

    Args:
        arguments: Overrides of the command line.
        fixed: Key or group -> value for all jobs, from the file.
        space: Key or group -> values, as a list or in Hydra's grammar, from the file.
        search: Whether the space is searched rather than tried out in full.

    Raises:
        ConfigError: No key varies, a search varies a seed, or a value is invalid.
    """
    texts = [f"{key}={_format_value(value)}" for key, value in fixed.items()]
    texts += [f"{key}={_format_axis(values)}" for key, values in space.items()]
    texts = list(map(expand_all_keyword, [*texts, *arguments]))
    check_overrides(texts, *config_folders())
    problems = Problems()
    shared: list[str] = []
    axes: dict[str, tuple[str, ...]] = {}
    ranges: dict[str, NumberRange] = {}
    hydra = GlobalHydra.instance()
    parser = OverridesParser.create(hydra.config_loader() if hydra.is_initialized() else None)
    overrides = parser.parse_overrides(texts)
    for key, override in {override.key_or_group: override for override in overrides}.items():
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
            if key == LAYER and ALL in values and len(values) > 1:
                problems.add(key, ",".join(values), "either all or layer numbers")
    for key in sorted({"seed", "data.seed"} & {*axes, *ranges}) if search else ():
        found, expected = "several values in a search", "one: the best of several seeds is luck"
        hint = f"search with one seed, then run the best settings with several: {key}=13,21,42"
        problems.add(key, found, expected, hint)
    if not axes and not ranges and not problems.found:
        hint = "e.g. seed=1,2, or sweep=layers; train.py does a single run"
        problems.add("sweep", "no key varies", "several values for at least one key", hint)
    problems.raise_if_any()
    return Space(shared, axes, ranges)


def quote(text: str) -> str:
    """Text as the value of an override; the inverse of `parse_value`."""
    if re.fullmatch(r"[\w./+-]+", text, re.ASCII) and parse_value(text) == text:
        return text
    return QuotedString(text, Quote.single).with_quotes()


def allowed_layers(prompt_kind: str, depth: int) -> range:
    """The layers that a prompt can be inserted at; a generator reads the layer below."""
    return range(1 if prompt_kind == "static" else 2, depth + 1)


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
