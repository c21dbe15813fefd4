"""The jobs of a sweep, composed and validated before the first one starts."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property

from hydra.core.hydra_config import HydraConfig
from rich.console import Console
from rich.progress import track

from lpt.caching.policy import reason_not_to_cache
from lpt.config.command_line import ALL, key_of
from lpt.config.compose import RunComposer
from lpt.config.method_checks import check_layer, check_prompt_keys
from lpt.config.schema import Config, at_layer, first_layer
from lpt.config.validation import validate
from lpt.errors import ConfigError, Problems, config_error
from lpt.methods.registry import check_method
from lpt.models.backbone import Backbone, checkpoint_source, find_backbone
from lpt.sweep.space import Settings, Space, allowed_layers, combinations
from lpt.training.plan import prepare

_MAX_NAME_LENGTH = 120
# Sections and keys that change neither the model, nor the texts it reads, nor the devices.
_CACHE_IRRELEVANT = (
    "method",
    "prompt",
    "optim",
    "cache",
    "logger",
    "seed",
    "run_dir",
    "resume",
    "sweep",
)


@dataclass(frozen=True)
class Point:
    """One point of the space: a job to be run.

    Attributes:
        name: Name of its folder.
        settings: The keys that the sweep varies.
        overrides: All overrides of its run.
        config: Configuration of its run.
    """

    name: str
    settings: Settings
    overrides: Sequence[str]
    config: Config

    @cached_property
    def cache_group(self) -> str:
        """Equal for jobs that read the same texts with the same model, so can share a cache."""
        config = dataclasses.asdict(self.config)
        return repr({k: value for k, value in config.items() if k not in _CACHE_IRRELEVANT})


class Composer:
    """Composes the jobs of a sweep."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self._composer = RunComposer([*_search_path(), *space.fixed], _config_name())
        self._depth = cache(lambda source: find_backbone(**dict(source)).layers)

    def point(self, settings: Settings, name: str | None = None) -> Point:
        """The job with these settings; without a name, it is named after them.

        Keys of the prompt that all jobs share are left out where the method varies and has none.

        Raises:
            ConfigError: A value is missing or cannot be resolved.
        """
        config, others = self._composer.compose(settings), Problems()
        if "method" in settings:
            check_prompt_keys(config, map(key_of, self.space.fixed), others)
        shared = [text for text in self.space.fixed if not others.mentions(key_of(text))]
        overrides = [*shared, *(f"{key}={value}" for key, value in settings.items())]
        return Point(name or _folder_name(settings), settings, overrides, config)

    def grid(self) -> list[Point]:
        """All combinations of the space's values.

        Raises:
            ConfigError: A model cannot be found, or any problem of any job.
        """
        return self._points(self.space.grid(self._layers))

    def boundary_points(self) -> list[Point]:
        """Points of a search that together cover every value and the ends of all ranges.

        Raises:
            ConfigError: A model cannot be found, or any problem of any job.
        """
        values = dict(self.space.axes)
        if self.space.all_layers is not None:
            values[self.space.all_layers] = tuple(map(str, self.common_layers()))
        values |= {key: (str(r.low), str(r.high)) for key, r in self.space.ranges.items()}
        first = {key: texts[0] for key, texts in values.items()}
        first, *others = [{**couple, **first} for couple in self.space.couples]
        others += [{**first, key: text} for key, texts in values.items() for text in texts[1:]]
        return self._points([first, *others])

    def common_layers(self) -> list[int]:
        """The first layers that the method can have, whichever groups a search chooses.

        Raises:
            ConfigError: There are none.
        """
        groups = self._composer.groups
        axes = {key: values for key, values in self.space.axes.items() if key in groups}
        found = [self._layers(settings) for settings in combinations(axes, self.space.couples)]
        common = sorted(set(found[0]).intersection(*found[1:]))
        if not common:
            key = str(self.space.all_layers)
            raise config_error(key, ALL, "models with layers in common", "list the layers")
        return common

    def _points(self, all_settings: Iterable[Settings]) -> list[Point]:
        problems, points = Problems(), []
        for settings in all_settings:
            with problems.collect():
                points.append(self.point(settings))
        if not points and not problems.found:
            problems.add(
                str(self.space.all_layers), ALL, "a model with a layer that takes the method"
            )
        problems.raise_if_any()
        return points

    def _layers(self, settings: Mapping[str, str]) -> list[int]:
        """The first layers that the method can have, given the other settings."""
        config = self._composer.compose({**settings, str(self.space.all_layers): "null"})
        depth = config.model.layers or self._depth(tuple(checkpoint_source(config.model).items()))
        return allowed_layers(config, depth)


def hydra_flags() -> list[str]:
    """Flags by which the run of a job finds the config files that Hydra found here."""
    if not HydraConfig.initialized():
        return []
    hydra = HydraConfig.get()
    sources = hydra.runtime.config_sources
    flags = [f"--config-dir={s.path}" for s in sources if s.provider == "command-line"]
    flags += _search_path()
    if _config_name() != "train":
        flags += [f"--config-name={_config_name()}", "hydra.mode=RUN"]
    return flags


def _search_path() -> list[str]:
    """The override of `hydra.searchpath` on the command line, if there is one."""
    given = HydraConfig.get().overrides.hydra if HydraConfig.initialized() else []
    return [text for text in given if text.startswith("hydra.searchpath=")]


def _config_name() -> str:
    """Primary config of the jobs: that of a single run for sweep.yaml, which extends it."""
    name = HydraConfig.get().job.config_name if HydraConfig.initialized() else None
    return "train" if name in (None, "sweep") else str(name)


def _folder_name(settings: Settings) -> str:
    """The settings as a name that needs no quoting on the command line."""
    text = "_".join(f"{key}-{value}" for key, value in settings.items())
    name = re.sub(r"[^\w.+-]+", "_", text, flags=re.ASCII)
    if name == text and len(name) <= _MAX_NAME_LENGTH:
        return name
    return f"{name[:_MAX_NAME_LENGTH]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def check_points(points: Sequence[Point], console: Console, space: Space) -> None:
    """Check everything in every job that can fail because of the user's input.

    Args:
        points: The jobs.
        console: Console for a progress bar.
        space: What they were composed from.

    Raises:
        ConfigError: Every problem found, each once; if some jobs have none, with the setting that
            leaves out the others.
    """
    problems, valid, fitting = Problems(), [], []
    for point in points:
        with problems.collect():
            found = validate(point.config)
            check_prompt_keys(point.config, map(key_of, point.overrides), found)
            found.raise_if_any()
            valid.append(point)
    groups, hidden = _by_cache_group(valid), not console.is_terminal
    for group in track(groups, "checking", console=console, transient=True, disable=hidden):
        # Jobs with the same inputs: only their methods need a look one by one.
        with problems.collect():
            backbone = prepare(at_layer(group[0].config, None), any_method=True).backbone
            refusal = cache(lambda key, backbone=backbone: _refusal(key.config, backbone))
            for point in group:
                method = repr((point.config.method, point.config.prompt))
                error = refusal(_ByMethod(method, point.config))
                if error is None:
                    fitting.append(point)
                else:
                    problems.extend(error)
    entries = _distinguishing(points, fitting) if fitting else []
    if any(len(entry) > 1 or not entry.keys() <= space.axes.keys() for entry in entries):
        entries = [*space.excluded, *entries]
        texts = ["{" + ",".join(f"{k}:{v}" for k, v in entry.items()) + "}" for entry in entries]
        given = f"{len(points) - len(fitting)} of {len(points)} jobs cannot run"
        problems.add("sweep", given, "", f"without them: 'sweep.exclude=[{','.join(texts)}]'")
    problems.raise_if_any()


@dataclass(frozen=True)
class _ByMethod:
    """A configuration; equal to all with the same method."""

    method: str
    config: Config = field(compare=False)


def _refusal(config: Config, backbone: Backbone) -> ConfigError | None:
    """Why a method cannot be put into a backbone."""
    problems = Problems()
    check_layer(config, backbone.layers, problems)
    if not problems.found:
        check_method(config, backbone, problems)
    return ConfigError(problems.found) if problems.found else None


def _distinguishing(points: Sequence[Point], fitting: Sequence[Point]) -> list[Settings]:
    """The fewest values that tell the other points from those that fit."""
    entries: list[Settings] = []
    for settings in (point.settings for point in points if point not in fitting):
        if any(entry.items() <= settings.items() for entry in entries):
            continue
        sizes = range(1, len(settings) + 1)
        parts = (dict(p) for n in sizes for p in itertools.combinations(settings.items(), n))
        alone = (p for p in parts if not any(p.items() <= f.settings.items() for f in fitting))
        entries += itertools.islice(alone, 1)
    return entries


def _by_cache_group(points: Iterable[Point]) -> list[list[Point]]:
    groups: dict[str, list[Point]] = {}
    for point in points:
        groups.setdefault(point.cache_group, []).append(point)
    return list(groups.values())


def layers_to_precompute(points: Sequence[Point]) -> dict[str, list[int]]:
    """Layers whose hidden states one job computes for all jobs with the same inputs, in one pass.

    Returns:
        Name of the first job of each cache group with more than one layer -> these layers.
    """
    cached = [
        point
        for point in points
        if point.config.cache.mode != "off"
        and not reason_not_to_cache(point.config, first_layer(point.config))
    ]
    layers_of = {}
    for group in _by_cache_group(cached):
        firsts = {first_layer(point.config) for point in group}
        layers = sorted(layer for layer in firsts if layer not in (None, 1))
        if len(layers) > 1:
            layers_of[group[0].name] = layers
    return layers_of
