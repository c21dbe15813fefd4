"""The jobs of a sweep, composed and checked before the first one starts."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lpt.config.command_line import ALL, LAYER, config_groups
from lpt.config.schema import CONF_DIR, Config, typed
from lpt.config.validation import check_layer, reason_not_to_cache, validate
from lpt.errors import Problems, config_error
from lpt.models.backbone import checkpoint_source, find_backbone
from lpt.sweep.space import Settings, Space, combinations, layers_of, parsed_value
from lpt.training.plan import prepare

_NAME_LENGTH = 120
_WHERE = "see lpt/config/schema.py and lpt/config/task_schema.py"
# What says nothing of model, task, data and machine.
_FREE = ("prompt", "optim", "cache", "logger", "seed", "run_dir", "resume", "sweep")


@dataclass(frozen=True)
class Point:
    """One job that is to be.

    Attributes:
        name: Name of its folder.
        settings: What it differs in.
        overrides: What to type for it.
        config: The run's configuration.
    """

    name: str
    settings: Settings
    overrides: Sequence[str]
    config: Config

    @cached_property
    def reads(self) -> str:
        """What it has in common with the jobs that read the same texts with the same model."""
        known = dataclasses.asdict(self.config)
        return repr({key: value for key, value in known.items() if key not in _FREE})


class Composer:
    """Configurations of jobs: what they have in common is composed once."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.groups = config_groups(CONF_DIR)
        self._composed: Callable[..., DictConfig] = cache(self._compose)
        self._depth = cache(lambda where: find_backbone(**dict(where)).layers)

    def point(self, settings: Settings, name: str | None = None) -> Point:
        """The job with these settings, by that name or one that says them.

        Raises:
            ConfigError: A value is missing or cannot be resolved.
        """
        overrides = [*self.space.arguments, *(f"{k}={v}" for k, v in settings.items())]
        return Point(name or _name(settings), settings, overrides, self._config(settings))

    def grid(self) -> list[Point]:
        """All jobs of a grid.

        Raises:
            ConfigError: A model cannot be found, or as `point`, of all jobs together.
        """
        points = self._points(self.space.points(self.layers))
        if not points:
            raise config_error(LAYER, ALL, "a model with a layer that a prompt may enter at")
        return points

    def corners(self) -> list[Point]:
        """Points of a search that together have every value, and the ends of all ranges.

        Raises:
            ConfigError: As `grid`.
        """
        space = self.space
        values = {key: list(texts) for key, texts in space.axes.items()}
        if values.get(LAYER) == [ALL]:
            values[LAYER] = list(map(str, self.common_layers()))
        values |= {key: [str(r.low), str(r.high)] for key, r in space.ranges.items()}
        first = {key: texts[0] for key, texts in values.items()}
        others = [{**first, key: text} for key, texts in values.items() for text in texts[1:]]
        return self._points([first, *others])

    def _points(self, all_settings: Iterable[Settings]) -> list[Point]:
        problems, points = Problems(), []
        for settings in all_settings:
            with problems.collect():
                points.append(self.point(settings))
        problems.raise_if_any()
        return points

    def common_layers(self) -> range:
        """The layers that a prompt may enter at whatever the groups of a search are.

        Raises:
            ConfigError: There is none.
        """
        axes = {key: values for key, values in self.space.axes.items() if key in self.groups}
        found = [self.layers(settings) for settings in combinations(axes)]
        common = range(max(f.start for f in found), min(f.stop for f in found))
        if not common:
            raise config_error(LAYER, ALL, "models with layers in common", "give numbers")
        return common

    def layers(self, settings: Mapping[str, str]) -> range:
        """The layers that a prompt may enter at with these settings."""
        config = self._config({**settings, LAYER: "null"})
        depth = config.model.layers or self._depth(tuple(checkpoint_source(config.model).items()))
        return layers_of(config.prompt.kind, depth)

    def _config(self, settings: Mapping[str, str]) -> Config:
        of_groups = {k: v for k, v in settings.items() if k in self.groups}
        composed = copy.deepcopy(self._composed(*(f"{k}={v}" for k, v in of_groups.items())))
        for key, value in settings.items():
            if key in of_groups:
                continue
            try:
                OmegaConf.update(composed, key, parsed_value(value))
            except OmegaConfBaseException as error:
                raise config_error(key, f"{value}: {str(error).splitlines()[0]}", _WHERE) from error
        return typed(composed)

    def _compose(self, *of_groups: str) -> DictConfig:
        return compose("train", overrides=[*self.space.arguments, *of_groups])


def _name(settings: Settings) -> str:
    """Name of a folder that says the settings."""
    text = "_".join(f"{key}-{value}" for key, value in settings.items())
    # Without characters that the command line would quote.
    name = re.sub(r"[^\w.+-]+", "_", text, flags=re.ASCII)
    if name == text and len(name) <= _NAME_LENGTH:
        return name
    return f"{name[:_NAME_LENGTH]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def check_points(points: Sequence[Point], progress: Callable[[Any], Iterable[Any]]) -> None:
    """Check all that can fail because of the user's input, for every job.

    Args:
        points: The jobs.
        progress: Goes through a sequence and shows how far it is.

    Raises:
        ConfigError: Every problem found, each once.
    """
    problems = Problems()
    alike: dict[str, list[Point]] = {}
    for point in points:
        with problems.collect():
            validate(point.config).raise_if_any()
            alike.setdefault(point.reads, []).append(point)
    for same in progress(list(alike.values())):
        with problems.collect():
            _check_alike(same)
    problems.raise_if_any()


def _check_alike(points: Sequence[Point]) -> None:
    """Check jobs that read the same: only their prompts have to be looked at one by one."""
    first = points[0].config
    any_layer = dataclasses.replace(first.prompt, layer=None)
    plan, problems = prepare(dataclasses.replace(first, prompt=any_layer)), Problems()
    for point in points:
        prompt = point.config.prompt
        if prompt.layer is not None:
            name = point.config.model.name
            check_layer(prompt.kind, prompt.layer, plan.backbone.layers, name, problems)
    problems.raise_if_any()


def layers_to_fill(points: Sequence[Point]) -> dict[str, list[int]]:
    """Layers whose hidden states the first job of those that read the same makes for the others.

    Returns:
        Name of that job -> the layers; nothing for a job that reads alone.
    """
    alike: dict[str, list[Point]] = {}
    for point in points:
        config = point.config
        if config.cache.mode != "off" and not reason_not_to_cache(config, config.prompt.layer):
            alike.setdefault(point.reads, []).append(point)
    filled = {}
    for same in alike.values():
        layers = sorted({p.config.prompt.layer for p in same if p.config.prompt.layer is not None})
        if len(layers) > 1:
            filled[same[0].name] = layers
    return filled
