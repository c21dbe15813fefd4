"""The jobs of a sweep: composed from the space, named and grouped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hydra import compose
from omegaconf import OmegaConf
from rich.console import Console

from lpt.config.method_schema import PROMPT_KINDS
from lpt.config.schema import SweepConfig, first_layer
from lpt.config.validation import validate
from lpt.methods.registry import METHODS
from lpt.sweep.plan import Composer, Point, check_points, layers_to_precompute
from lpt.sweep.space import quote, read_space
from tests.support.configs import CONF
from tests.support.problems import problems_of
from tests.support.sweeps import TASK, composer

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


INPUT = {"prompt": "static", "prompt.layer": 1}


def test_boundary_points_have_every_couple(local: list[str]) -> None:
    space = (*local, "prompt.length=range(2,11,4)")
    points = composer(*space, search=True, settings=[INPUT, {"prompt": "npg"}]).boundary_points()
    assert settings(points) == [("static", "1", "2"), ("npg", "2"), ("static", "1", "10")]


def test_a_search_has_the_layers_that_all_couples_have(local: list[str]) -> None:
    couples = [{"model.layers": 3}, {"prompt": "static"}]
    layers = composer(*local, "prompt.layer=all", search=True, settings=couples).common_layers()
    assert list(layers) == [2, 3]


def sweep_points(name: str, *arguments: str) -> list[Point]:
    """The jobs of a sweep of the repository."""
    config = SweepConfig(**compose("train", overrides=[f"sweep={name}"]).sweep)
    return Composer(read_space(arguments, config)).grid()


@pytest.mark.parametrize("name", ["paper_fewshot", "paper_full", "methods"])
def test_every_row_has_its_own_rate_and_fits(name: str, local: list[str], tmp_path: Path) -> None:
    given = [*local, "model.layers=24", f"data.root={tmp_path}", "task=mr", "data.seed=13"]
    configs = [point.config for point in sweep_points(name, *given, "seed=13")]
    rates = {
        choice: compose("train", [f"{group}={choice}"]).optim.lr
        for group, choices in (("prompt", PROMPT_KINDS), ("method", METHODS))
        for choice in choices
    }
    kinds = [c.prompt.kind if c.method.name == "late_prompt" else c.method.name for c in configs]
    assert [config.optim.lr for config in configs] == [rates[kind] for kind in kinds]
    layers = {kind: first_layer(c) for kind, c in zip(kinds, configs, strict=True)}
    assert {layers[kind] for kind in ("npg", "mppg", "appg")} == {None}  # the default
    assert layers["lora"] == layers["full"] == 1
    assert [validate(config).found for config in configs] == [[]] * len(configs)


def test_a_sweep_has_every_method(local: list[str]) -> None:
    names = {point.config.method.name for point in sweep_points("methods", *local)}
    assert names == set(METHODS) - {"peft", "in_context"}  # a config; a causal model


def test_a_layer_sweep_of_methods_has_a_late_prompt_too(local: list[str]) -> None:
    layers: dict[str, list[int | None]] = {}
    for point in sweep_points("method_layers", *local, "seed=13"):
        name = f"{point.settings.get('method')} {point.settings.get('prompt')}"
        layers.setdefault(name, []).append(first_layer(point.config))
    assert layers["None mppg"] == [2, 3, 4]  # a generator reads the layer below
    assert layers["None static"] == layers["lora None"] == layers["full None"] == [1, 2, 3, 4]


def test_a_shared_key_of_the_prompt_concerns_the_jobs_with_a_prompt(local: list[str]) -> None:
    couples = [{"method": "lora"}, {"prompt": "npg"}]
    lora, npg = composer(*local, "prompt.length=7", "seed=1", settings=couples).grid()
    assert "prompt.length=7" in npg.overrides
    assert npg.config.prompt is not None
    assert npg.config.prompt.length == 7
    assert lora.overrides == [*local, "seed=1", "method=lora"]


def test_keys_of_the_prompt_are_refused_if_no_job_has_one(local: list[str]) -> None:
    space = read_space([*local, "method=lora", "prompt.length=7", "seed=1,2"], SweepConfig())
    points = Composer(space).grid()
    [problem] = problems_of(lambda: check_points(points, Console(), space))
    assert problem.where == "prompt.length"


def test_jobs_that_cannot_run_are_named_with_the_way_out(
    checkpoints: dict[str, Path], toy_data: Path, local: list[str]
) -> None:
    given = [f"model.path={checkpoints['causal']}", f"data.path={toy_data}", *TASK]
    given += ["task.template='{text} {word}'"]
    couples = [{"method": "bitfit"}, {"method": "lora"}, {"prompt": "npg"}]

    def check(*exclude: dict[str, str | int]) -> int:
        config = SweepConfig(settings=couples, exclude=list(exclude))
        space = read_space([*local, *given, "method.layer=1,2"], config)
        check_points(points := Composer(space).grid(), Console(), space)
        return len(points)

    problems = problems_of(check)
    bitfit, npg, sweep = problems
    assert "biases" in bitfit.given + npg.given
    assert sweep.given == "3 of 6 jobs cannot run"
    assert "'sweep.exclude=[{method:bitfit},{prompt:npg,method.layer:1}]'" in sweep.hint
    assert check({"method": "bitfit"}, {"prompt": "npg", "method.layer": 1}) == 3


@pytest.mark.parametrize("file", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_of_the_repository(file: Path, local: list[str], tmp_path: Path) -> None:
    assert file.stem == "grid" or f"# python sweep.py sweep={file.stem} " in file.read_text()
    config = OmegaConf.to_object(compose("train", overrides=[f"sweep={file.stem}"]).sweep)
    assert isinstance(config, SweepConfig)
    arguments = [*local, f"data.root={tmp_path}", *(["seed=1,2"] if file.stem == "grid" else [])]
    space = read_space(arguments, config)
    assert {*space.axes, *space.ranges} == ({*config.space} or {"seed"})
    points = Composer(space).boundary_points()
    assert len({point.name for point in points}) == len(points) > 1
    assert [validate(point.config).found for point in points] == [[]] * len(points)
