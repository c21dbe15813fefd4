"""The jobs of a sweep: composed from the space, named and grouped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hydra import compose
from omegaconf import OmegaConf

from lpt.config.schema import SweepConfig
from lpt.config.validation import validate
from lpt.sweep.plan import Composer, Point, layers_to_precompute
from lpt.sweep.space import quote, read_space
from tests.support.configs import CONF
from tests.support.sweeps import composer

SWEEPS = sorted(CONF.glob("sweep/*.yaml"))


def settings(points: Sequence[Point]) -> list[tuple[str, ...]]:
    return [tuple(point.settings.values()) for point in points]


def test_all_layers_are_those_of_the_model_and_prompt(local: list[str]) -> None:
    every = (*local, "prompt.layer=all")
    assert settings(composer(*every).grid()) == [("2",), ("3",), ("4",)]
    assert settings(composer(*every, "prompt=static").grid())[0] == ("1",)
    assert settings(composer(*every, "model.layers=2").grid()) == [("2",)]
    mixed = composer(*local, "model.layers=2,4", "prompt.layer=all").grid()
    assert settings(mixed) == [("2", "2"), ("4", "2"), ("4", "3"), ("4", "4")]


def test_overrides_repeat_the_configuration_and_names_are_unique(local: list[str]) -> None:
    texts = "'a {text} <mask>','a [text] <mask>'"
    points = composer(*local, f"task.template={texts}", "seed=1,2").grid()
    assert len({point.name for point in points}) == len(points) == 4
    for point in points:
        assert quote(point.name) == point.name
        config = compose("train", overrides=list(point.overrides))
        assert config.task.template == point.config.task.template
        assert config.seed == point.config.seed
    assert [point.name for point in composer(*local, "seed=1,2").grid()] == ["seed-1", "seed-2"]


def test_the_first_job_with_the_same_inputs_precomputes_all_layers(local: list[str]) -> None:
    arguments = (*local, "data.max_length=32,64", "prompt.layer=3,2", "seed=1,2")
    points = composer(*arguments).grid()
    assert layers_to_precompute(points) == {points[0].name: [2, 3], points[4].name: [2, 3]}
    assert layers_to_precompute(points[:2]) == {}  # a single layer
    assert layers_to_precompute(composer(*arguments, "cache=off").grid()) == {}


def test_boundary_points_have_every_value_and_both_ends(local: list[str]) -> None:
    """Of all layers those that every prompt can be inserted at: static could be at 1."""
    space = ("prompt=static,npg", "prompt.layer=all", "optim.lr=tag(log,interval(1e-4,1e-2))")
    points = composer(*local, *space, search=True).boundary_points()
    values = zip(*settings(points), strict=True)
    assert list(map(set, values)) == [{"static", "npg"}, {"2", "3", "4"}, {"0.0001", "0.01"}]
    assert len(points) == 5  # not their product


@pytest.mark.parametrize("file", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_of_the_repository(file: Path, local: list[str], tmp_path: Path) -> None:
    assert file.stem == "grid" or f"# python sweep.py sweep={file.stem} " in file.read_text()
    config = OmegaConf.to_object(compose("train", overrides=[f"sweep={file.stem}"]).sweep)
    assert isinstance(config, SweepConfig)
    arguments = [*local, f"data.root={tmp_path}", *(["seed=1,2"] if file.stem == "grid" else [])]
    search = config.trials is not None
    space = read_space(arguments, config.fixed, config.space, search=search)
    assert {*space.axes, *space.ranges} == ({*config.space} or {"seed"})
    points = Composer(space).boundary_points()
    assert len({point.name for point in points}) == len(points) > 1
    assert [validate(point.config).found for point in points] == [[]] * len(points)
