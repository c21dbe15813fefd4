"""The jobs of a sweep, composed and validated before the first one starts."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from hydra.core.hydra_config import HydraConfig
from rich.console import Console
from rich.progress import track

from lpt.caching.policy import reason_not_to_cache
from lpt.config.command_line import ALL, LAYER
from lpt.config.compose import RunComposer
from lpt.config.schema import Config
from lpt.config.validation import check_layer, validate
from lpt.errors import Problems, config_error
from lpt.models.backbone import checkpoint_source, find_backbone
from lpt.sweep.space import Settings, Space, allowed_layers, combinations
from lpt.training.plan import prepare

_MAX_NAME_LENGTH = 120
# Sections and keys that change neither the model, nor the texts it reads, nor the devices.
_CACHE_IRRELEVANT = ("prompt", "optim", "cache", "logger", "seed", "run_dir", "resume", "sweep")


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

        Raises:
            ConfigError: A value is missing or cannot be resolved.
        """
        overrides = [*self.space.fixed, *(f"{k}={v}" for k, v in settings.items())]
        return Point(
            name or _folder_name(settings), settings, overrides, self._composer.compose(settings)
        )

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
        if values.get(LAYER) == (ALL,):
            values[LAYER] = tuple(map(str, self.common_layers()))
        values |= {key: (str(r.low), str(r.high)) for key, r in self.space.ranges.items()}
        first = {key: texts[0] for key, texts in values.items()}
        others = [{**first, key: text} for key, texts in values.items() for text in texts[1:]]
        return self._points([first, *others])

    def common_layers(self) -> range:
        """The layers that a prompt can be inserted at, whichever groups a search chooses.

        Raises:
            ConfigError: There are none.
        """
        groups = self._composer.groups
        axes = {key: values for key, values in self.space.axes.items() if key in groups}
        found = [self._layers(settings) for settings in combinations(axes)]
        common = range(max(f.start for f in found), min(f.stop for f in found))
        if not common:
            raise config_error(LAYER, ALL, "models with layers in common", "list the layers")
        return common

    def _points(self, all_settings: Iterable[Settings]) -> list[Point]:
        problems, points = Problems(), []
        for settings in all_settings:
            with problems.collect():
                points.append(self.point(settings))
        if not points and not problems.found:
            problems.add(LAYER, ALL, "a model with a layer that takes a prompt")
        problems.raise_if_any()
        return points

    def _layers(self, settings: Mapping[str, str]) -> range:
        """The layers that a prompt can be inserted at, given the other settings."""
        config = self._composer.compose({**settings, LAYER: "null"})
        depth = config.model.layers or self._depth(tuple(checkpoint_source(config.model).items()))
        return allowed_layers(config.prompt.kind, depth)


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


def check_points(points: Sequence[Point], console: Console) -> None:
    """Check everything in every job that can fail because of the user's input.

    Args:
        points: The jobs.
        console: Console for a progress bar.

    Raises:
        ConfigError: Every problem found, each once.
    """
    problems, valid = Problems(), []
    for point in points:
        with problems.collect():
            validate(point.config).raise_if_any()
            valid.append(point)
    groups, hidden = _by_cache_group(valid), not console.is_terminal
    for group in track(groups, "checking", console=console, transient=True, disable=hidden):
        # Jobs with the same inputs: only the layers of their prompts need a look one by one.
        first = group[0].config
        with problems.collect():
            any_layer = dataclasses.replace(first.prompt, layer=None)
            depth = prepare(dataclasses.replace(first, prompt=any_layer)).backbone.layers
            for point in group:
                check_layer(point.config, depth, problems)
    problems.raise_if_any()


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
        and not reason_not_to_cache(point.config, point.config.prompt.layer)
    ]
    layers_of = {}
    for group in _by_cache_group(cached):
        layers = sorted({p.config.prompt.layer for p in group if p.config.prompt.layer is not None})
        if len(layers) > 1:
            layers_of[group[0].name] = layers
    return layers_of
