"""What a sweep varies: YAML and command line in Hydra's grammar, and the points that they give."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from lpt.config.schema import SweepConfig, register
from lpt.config.validation import validate
from lpt.errors import ConfigError
from lpt.sweep.plan import Composer, Point, check_points, layers_to_fill
from lpt.sweep.search import check_search
from lpt.sweep.space import Range, Space, layers_of, parsed_value, quoted, read_space
from tests.conftest import CONF

SWEEPS = sorted(CONF.glob("sweep/*.yaml"))


def space(*arguments: str, search: bool = False, **yaml: Mapping[str, Any]) -> Space:
    return read_space(arguments, yaml.get("fixed", {}), yaml.get("space", {}), search=search)


def problems(*arguments: str, search: bool = False, **yaml: Mapping[str, Any]) -> dict[str, str]:
    """Where -> given, of what is refused."""
    with pytest.raises(ConfigError) as caught:
        space(*arguments, search=search, **yaml)
    found = caught.value.problems
    assert len(found) == len({problem.where for problem in found})
    return {problem.where: problem.given for problem in found}


@pytest.fixture
def hydra() -> Iterator[None]:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


@pytest.fixture
def local(hydra: None, checkpoints: dict[str, Path]) -> list[str]:
    """Overrides for the tiny model of four layers."""
    return ["model=local", f"model.path={checkpoints['masked']}", "data.max_length=64"]


def test_the_command_line_wins_over_the_space_and_that_over_what_is_fixed() -> None:
    yaml = {
        "fixed": {"task": "sst2", "seed": 1, "data.k": 16, "optim.lr": 1e-4, "cache.mode": "off"},
        "space": {"seed": [1, 2], "prompt": ["npg", "static"], "prompt.layer": "all"},
    }
    found = space("prompt=mppg", "data.k=8,32", "optim.lr=0.5", "loss=vocabulary", **yaml)
    assert found.fixed == {
        "task": "task=sst2",
        "optim.lr": "optim.lr=0.5",
        "cache.mode": "cache.mode=off",
        "prompt": "prompt=mppg",
        "loss": "loss=vocabulary",
    }
    assert found.axes == {"seed": ("1", "2"), "data.k": ("8", "32"), "prompt.layer": ("all",)}
    assert found.ranges == {}


def test_values_of_the_yaml_arrive_as_they_were() -> None:
    fixed = {"data.k": None, "data.extra": True, "task.labels": ["0", "1"], "optim.lr": 1e-4}
    found = space("seed=1,2", fixed=fixed)
    values = {key: parsed_value(text.partition("=")[2]) for key, text in found.fixed.items()}
    assert values == fixed
    swept = {
        **{
            "data.extra": [True, False],
            "task.label_words": [["0", "1"], ["2"]],
            "data.k": [None, 1],
        },
        **{"prompt": "npg,mppg", "seed": "range(1,6,2)", "prompt.layer": "all"},
    }
    axes = space(space=swept).axes
    assert {key: [parsed_value(text) for text in texts] for key, texts in axes.items()} == {
        **{
            "data.extra": [True, False],
            "task.label_words": [["0", "1"], ["2"]],
            "data.k": [None, 1],
        },
        **{"prompt": ["npg", "mppg"], "seed": [1, 3, 5], "prompt.layer": ["all"]},
    }


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("seed=13,21", [13, 21]),
        ("seed=choice(13)", [13]),
        ("seed=choice(13,21)", [13, 21]),
        ("seed=range(2,5)", [2, 3, 4]),
        ("seed=range(5,2,-1)", [5, 4, 3]),
        ("seed=sort(3,1,2)", [1, 2, 3]),
        ("task.template='a, b','c=d'", ["a, b", "c=d"]),
        ('task.template="it\'s",b c', ["it's", "b c"]),
        ("logger=[csv],[csv,wandb]", [["csv"], ["csv", "wandb"]]),
        ("prompt.layer=null,3", [None, 3]),
        ("prompt.layer=choice(all)", ["all"]),
        ("prompt.layer=all", ["all"]),
    ],
)
def test_values_of_the_command_line(argument: str, values: list[Any]) -> None:
    [texts] = space(argument).axes.values()
    assert list(map(parsed_value, texts)) == values


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("optim.lr=interval(1e-4,1e-2)", Range(1e-4, 1e-2)),
        ("optim.lr=tag(log,interval(1e-4,1e-2))", Range(1e-4, 1e-2, log=True)),
        ("prompt.length=tag(int,interval(1,20))", Range(1, 20, 1)),
        ("prompt.length=tag(int,log,interval(1,20))", Range(1, 20, 1, log=True)),
        ("prompt.length=range(2,20,4)", Range(2, 18, 4)),
        ("prompt.length=range(20,2,-4)", Range(4, 20, 4)),
    ],
)
def test_numbers_to_search_in(argument: str, expected: Range) -> None:
    key = argument.partition("=")[0]
    found = space(argument, "prompt=npg,mppg", search=True)
    assert found.ranges == {key: expected}
    assert found.ranges[key].whole == (key == "prompt.length")
    assert found.axes == {"prompt": ("npg", "mppg")}
    assert found.described() == {"prompt": ["npg", "mppg"], key: vars(expected)}


def test_nothing_that_varies_is_refused() -> None:
    for given in ((), ("seed=3", "prompt=npg"), ("run_dir=a", "sweep.jobs=3", "dry_run=true")):
        assert problems(*given) == {"sweep": "no key with several values"}


def test_what_a_sweep_cannot_vary() -> None:
    given = ("run_dir=a,b", "sweep.jobs=1,2", "sweep=layers,seeds", "++prompt.layer=2,3")
    found = problems(*given, "seed=1,2")
    assert found == {given[0].partition("=")[0]: given[0]} | {
        "sweep.jobs": given[1],
        "sweep": given[2],
        "prompt.layer": given[3],
    }


def test_what_is_the_sweeps_own_is_not_its_jobs() -> None:
    own = ("run_dir=a", "resume=auto", "overwrite=true", "dry_run=true", "sweep.jobs=2")
    assert space(*own, "sweep=grid", "seed=1,2") == Space({}, {"seed": ("1", "2")})


def test_every_fault_of_a_space_is_told() -> None:
    given = ("seed=1,2,1", "data.seed=range(5,5)", "prompt.layer=all,2", "optim.lr=interval(1,2)")
    assert problems(*given) == {
        "seed": "1 given twice",
        "data.seed": "range(5,5)",
        "prompt.layer": "all,2",
        "optim.lr": "interval(1,2)",
    }
    assert problems("optim.lr=1e-3,0.001") == {"optim.lr": "0.001 given twice"}
    assert problems("data.seed=range(5,5)", search=True) == {"data.seed": "range(5,5)"}


def test_what_cannot_be_parsed_is_told_together() -> None:
    faults = {"seed=[1", "optim.lr=(2", "prompt=a", "prompt=b"}
    assert set(problems("seed=[1", "optim.lr=(2", "prompt=a,b")) == faults
    assert set(problems(space={"seed": []})) == {"seed"}


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        (("seed=1,2", "data.seed=3,4", "prompt=npg,mppg"), {"seed", "data.seed"}),
        (("seed=range(1,9)",), {"seed"}),
        (("optim.lr=interval(2,1)", "optim.weight_decay=tag(log,interval(0,1))"), 2),
        (("optim.lr=interval(0,inf)",), {"optim.lr"}),
    ],
)
def test_what_cannot_be_searched(arguments: tuple[str, ...], keys: set[str] | int) -> None:
    with pytest.raises(ConfigError) as caught:
        check_search(space(*arguments, search=True))
    found = {problem.where for problem in caught.value.problems}
    assert found == (keys if isinstance(keys, set) else {"optim.lr", "optim.weight_decay"})


def test_points_are_all_combinations_with_the_last_axis_fastest() -> None:
    given = space("seed=1,2", "prompt=npg,mppg,appg")
    found = list(given.points(lambda _: pytest.fail("no layers asked for")))
    expected = list(itertools.product("12", ("npg", "mppg", "appg")))
    assert [tuple(point.values()) for point in found] == expected
    assert all(list(point) == ["seed", "prompt"] for point in found)


def test_all_layers_are_those_of_each_kind() -> None:
    found = space("prompt=static,npg", "prompt.layer=all", "seed=1,2")
    points = list(found.points(lambda s: layers_of(s["prompt"], 3)))
    expected = [("static", layer) for layer in "123"] + [("npg", layer) for layer in "23"]
    assert [tuple(point.values()) for point in points] == [
        (kind, layer, seed) for kind, layer in expected for seed in "12"
    ]


def test_all_layers_of_the_model_at_hand(local: list[str], checkpoints: dict[str, Path]) -> None:
    def layers(*arguments: str) -> list[tuple[str, ...]]:
        return [tuple(p.settings.values()) for p in Composer(space(*arguments)).grid()]

    assert layers(*local, "prompt.layer=all") == [("2",), ("3",), ("4",)]
    assert layers(*local, "prompt.layer=all", "prompt=static") == [("1",), ("2",), ("3",), ("4",)]
    shallow, deep = "model.layers=2", "model.layers=2,4"
    assert layers(*local, "prompt.layer=all", shallow) == [("2",)]
    assert set(layers(*local, deep, "prompt.layer=all")) == {
        *(("2", "2"), ("4", "2"), ("4", "3"), ("4", "4"))
    }


def test_points_say_what_to_type_and_have_names_of_their_own(local: list[str]) -> None:
    texts = "'a {text} <mask>','a [text] <mask>'"
    points = list(Composer(space(*local, f"task.template={texts}", "seed=1,2")).grid())
    assert len({point.name for point in points}) == len(points) == 4
    for point in points:
        assert quoted(point.name) == point.name
        config = compose("train", overrides=list(point.overrides))
        assert config.task.template == point.config.task.template
        assert config.seed == point.config.seed
    assert [p.name for p in Composer(space(*local, "seed=1,2")).grid()] == ["seed-1", "seed-2"]


def test_layers_are_filled_by_the_first_job_of_those_that_read_the_same(local: list[str]) -> None:
    given = (*local, "data.max_length=32,64", "prompt.layer=3,2", "seed=1,2")
    points = list(Composer(space(*given)).grid())
    assert layers_to_fill(points) == {points[0].name: [2, 3], points[4].name: [2, 3]}
    assert layers_to_fill(points[:2]) == {}  # one layer
    assert layers_to_fill(list(Composer(space(*given, "cache=off")).grid())) == {}


def test_every_job_is_checked_and_all_problems_told(local: list[str], toy_data: Path) -> None:
    data = ("task=reviews", f"data.path={toy_data}", "task.labels=['0','1']")
    template = "task.template='{text} It was <mask> .'"
    good = Composer(space(*local, *data, template, "prompt.layer=2,4", "seed=1,2"))
    check_points(list(good.grid()), iter)
    bad = Composer(space(*local, *data, template, "prompt.layer=2,9,7", "seed=1,2"))
    with pytest.raises(ConfigError) as caught:
        check_points(list(bad.grid()), iter)
    assert [problem.where for problem in caught.value.problems] == ["prompt.layer"] * 2
    bad = Composer(space(*local, *data, template, "optim.lr=1e-3,-1", "prompt.length=0,5"))
    with pytest.raises(ConfigError) as caught:
        check_points(list(bad.grid()), iter)
    assert {problem.where for problem in caught.value.problems} == {"optim.lr", "prompt.length"}


def test_corners_have_every_value_and_both_ends(local: list[str]) -> None:
    given = ("prompt=npg,mppg", "prompt.layer=all", "optim.lr=tag(log,interval(1e-4,1e-2))")
    corners = Composer(space(*local, *given, search=True)).corners()
    seen: dict[str, set[str]] = {}
    for point in corners:
        for key, value in point.settings.items():
            seen.setdefault(key, set()).add(value)
    assert seen == {
        "prompt": {"npg", "mppg"},
        "prompt.layer": {"2", "3", "4"},
        "optim.lr": {"0.0001", "0.01"},
    }
    assert len(corners) == 5  # not their product


def test_all_layers_of_a_search_are_those_that_every_model_has(
    local: list[str],
) -> None:
    given = [*local, "prompt=static,npg", "prompt.layer=all", "model.layers=4"]
    assert Composer(space(*given, search=True)).common_layers() == range(2, 5)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "a b",
            "it's",
            '"q"',
            "back\\",
            "\\\\",
            "\\'",
            "a,b=c",
            "${x}",
            "{a:b}",
            "[1]",
            " a ",
            "",
        ),
        *("~/x", "a/b-1.0+c", "tab\tbed", "#1", "'", "'a'", "%(x)s!", "runs/007/jobs", "ein Bär/x"),
    ],
)
def test_quoted_text_arrives_as_it_was(text: str) -> None:
    assert parsed_value(quoted(text)) == text
    assert parsed_value(f"[{quoted(text)},b]") == [text, "b"]


def of_file(file: Path, *arguments: str) -> tuple[SweepConfig, Space]:
    """What a file of conf/sweep says, and the space that it makes with these arguments."""
    config = OmegaConf.to_object(compose("train", overrides=[f"sweep={file.stem}"]).sweep)
    assert isinstance(config, SweepConfig)
    given = [*arguments, "seed=1,2"] if file.stem == "grid" else arguments
    return config, read_space(given, config.fixed, config.space, search=config.trials is not None)


def assert_valid(points: Sequence[Point]) -> None:
    assert len({point.name for point in points}) == len(points) > 1
    for point in points:
        assert validate(point.config).found == []


@pytest.mark.parametrize("file", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_there_is(file: Path, local: list[str], tmp_path: Path) -> None:
    config, found = of_file(file, *local, f"data.root={tmp_path}")
    assert config.name == ""  # it is that of the file
    assert file.stem == "grid" or f"# python sweep.py sweep={file.stem} " in file.read_text()
    assert {*found.axes, *found.ranges} == ({*config.space} or {"seed"})
    assert set(config.fixed) < set(found.fixed)  # and the arguments
    assert_valid(Composer(found).corners())
    if config.trials is not None:
        check_search(found)


@pytest.mark.slow
@pytest.mark.parametrize("file", [f for f in SWEEPS if f.stem != "search"], ids=lambda f: f.stem)
def test_every_job_of_every_sweep(file: Path, local: list[str], tmp_path: Path) -> None:
    assert_valid(list(Composer(of_file(file, *local, f"data.root={tmp_path}")[1]).grid()))
