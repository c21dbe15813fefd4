"""The space of a sweep: files of conf/sweep and the command line in Hydra's grammar."""

from __future__ import annotations

from typing import Any

import pytest

from lpt.config.command_line import parse_value
from lpt.config.schema import SweepConfig
from lpt.runs.job_record import NumberRange
from lpt.sweep.space import Space, quote, read_space
from tests.support.problems import problems_of


def space(*arguments: str, search: bool = False, **file: Any) -> Space:
    return read_space(arguments, SweepConfig(**file, trials=1 if search else None))


def test_the_command_line_takes_precedence_over_the_file() -> None:
    file: dict[str, Any] = {
        "fixed": {"task": "sst2", "seed": 1, "data.k": 16, "optim.lr": 1e-4, "cache.mode": "off"},
        "space": {"seed": [1, 2], "prompt": ["npg", "static"], "prompt.layer": "all"},
    }
    found = space("prompt=mppg", "data.k=8,32", "optim.lr=0.5", "loss=vocabulary", **file)
    shared = {"task=sst2", "optim.lr=0.5", "cache.mode=off", "prompt=mppg", "loss=vocabulary"}
    assert set(found.fixed) == shared
    assert found.axes == {"seed": ("1", "2"), "data.k": ("8", "32"), "prompt.layer": ("all",)}
    assert found.ranges == {}


def test_values_of_a_file_keep_their_types() -> None:
    fixed = {"data.k": None, "data.extra": True, "task.labels": ["0", "1"], "optim.lr": 1e-4}
    found = space("seed=1,2", fixed=fixed)
    pairs = (text.partition("=") for text in found.fixed)
    assert {key: parse_value(text) for key, _, text in pairs} == fixed
    lists = {
        "data.extra": [True, False],
        "task.label_words": [["0", "1"], ["2"]],
        "data.k": [None, 1],
    }
    texts = {"prompt": "npg,mppg", "seed": "range(1,6,2)", "prompt.layer": "all"}
    axes = space(space={**lists, **texts}).axes
    assert {key: list(map(parse_value, values)) for key, values in axes.items()} == {
        **lists,
        **{"prompt": ["npg", "mppg"], "seed": [1, 3, 5], "prompt.layer": ["all"]},
    }


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("seed=13,21,13", [13, 21]),
        ("seed=choice(13)", [13]),
        ("seed=range(5,2,-1)", [5, 4, 3]),
        ("task.template='a, b','c=d'", ["a, b", "c=d"]),
        ('task.template="it\'s",b c', ["it's", "b c"]),
        ("logger=[csv],[csv,wandb]", [["csv"], ["csv", "wandb"]]),
        ("prompt.layer=null,3", [None, 3]),
    ],
)
def test_values_of_the_command_line(argument: str, values: list[Any]) -> None:
    [texts] = space(argument).axes.values()
    assert list(map(parse_value, texts)) == values


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("optim.lr=interval(1e-4,1e-2)", NumberRange(low=1e-4, high=1e-2)),
        ("optim.lr=tag(log,interval(1e-4,1e-2))", NumberRange(low=1e-4, high=1e-2, log=True)),
        ("data.k=tag(int,log,interval(1,20))", NumberRange(low=1, high=20, step=1, log=True)),
        ("data.k=range(20,2,-4)", NumberRange(low=4, high=20, step=4)),
    ],
)
def test_numbers_to_search(argument: str, expected: NumberRange) -> None:
    key = argument.partition("=")[0]
    found = space(argument, "prompt=npg,mppg", search=True)
    assert found.ranges == {key: expected}
    assert found.ranges[key].is_integer == (key == "data.k")
    assert found.axes == {"prompt": ("npg", "mppg")}


def test_keys_of_the_sweep_are_not_passed_to_its_jobs() -> None:
    own = ("run_dir=a", "resume=auto", "overwrite=true", "dry_run=true", "sweep.jobs=2")
    assert space(*own, "sweep=grid", "seed=1,2") == Space([], {"seed": ("1", "2")})


COUPLES = [{"prompt": "static", "prompt.layer": 1}, {"prompt": "mppg", "optim.lr": "1e-2"}]
INPUT, MPPG = {"prompt": "static", "prompt.layer": "1"}, {"prompt": "mppg", "optim.lr": "1e-2"}


def test_couples_are_crossed_with_the_axes() -> None:
    found = space("seed=1,2", settings=[*COUPLES, COUPLES[0], {"prompt.layer": None}])
    couples = [INPUT, MPPG, {"prompt.layer": "null"}]
    assert found.couples == couples
    seeds = [{"seed": "1"}, {"seed": "2"}]
    assert list(found.grid(lambda _: [])) == [{**c, **s} for c in couples for s in seeds]
    assert found.record() == {"seed": ["1", "2"], "settings": couples}


def test_combinations_are_left_out() -> None:
    left_out = [{"prompt": "mppg", "seed": 2}, {"optim.lr": 0.01, "seed": "1"}]
    found = space("seed=1,2", settings=COUPLES, exclude=left_out)
    assert list(found.grid(lambda _: [])) == [{**INPUT, "seed": "1"}, {**INPUT, "seed": "2"}]
    assert "exclude" in found.record()


@pytest.mark.parametrize(
    ("arguments", "entry"),
    [("seed=1,2", {"loss": "vocabulary"}), ("seed=1,2", {}), ("seed=1,2", {"sed": 1})],
)
def test_what_is_left_out_varies(arguments: str, entry: dict[str, Any]) -> None:
    assert problems_of(lambda: space(*arguments.split(), exclude=[entry]))


def test_a_search_leaves_nothing_out() -> None:
    problems = problems_of(
        lambda: space("prompt=npg,mppg", search=True, exclude=[{"prompt": "npg"}])
    )
    assert [problem.where for problem in problems] == ["sweep.exclude"]


def test_all_layers_are_those_of_each_couple() -> None:
    found = space("prompt.layer=all", settings=[{"prompt": "static"}, {"prompt": "npg"}])
    layers = {"static": range(1, 3), "npg": range(2, 4)}
    grid = [tuple(s.values()) for s in found.grid(lambda given: layers[given["prompt"]])]
    assert grid == [("static", "1"), ("static", "2"), ("npg", "2"), ("npg", "3")]


@pytest.mark.parametrize(
    ("arguments", "settings", "keys"),
    [
        ("prompt.layer=2,3", COUPLES, "prompt.layer"),
        ("prompt=npg optim.lr=0.1", COUPLES, "optim.lr prompt"),
        ("", [{"prompt.layer": "2,3", "seed": "range(1,3)"}], "prompt.layer seed"),
        ("", [{"prompt.layer": "all"}, {"prompt.layer": 2}], "prompt.layer"),
        ("", [{"sweep.jobs": 2, "run_dir": "a"}, {}], "run_dir sweep.jobs sweep.settings"),
        ("", [{"promt": "npg"}, {"prompt": "mpg"}], "prompt=mpg promt"),
        ("data.kk=2", [{"data.seed": "x"}], "data.kk data.seed"),
        ("sweep.trials=9", [{"seed": 1}, {"seed": 2}], "seed"),
    ],
)
def test_all_faults_of_couples_are_reported_at_once(
    arguments: str, settings: list[dict[str, Any]], keys: str
) -> None:
    given, search = arguments.split(), "sweep.trials" in arguments
    problems = problems_of(lambda: space(*given, search=search, settings=settings))
    assert sorted(problem.where for problem in problems) == keys.split()
    near = {p.where: p.hint for p in problems if p.where.startswith(("promt", "prompt=mpg"))}
    assert all("did you mean" in hint for hint in near.values())


@pytest.mark.parametrize(
    ("arguments", "search", "keys"),
    [
        ("", False, "sweep"),
        ("seed=3 run_dir=a sweep.jobs=3", False, "sweep"),
        ("run_dir=a,b sweep.jobs=1,2 sweep=grid,seeds seed=1,2", False, "run_dir sweep sweep.jobs"),
        ("data.k=range(5,5) prompt.layer=all,2", False, "data.k prompt.layer"),
        ("optim.lr=interval(1,2)", False, "optim.lr"),
        ("optim.lr=interval(2,1) data.k=tag(log,interval(0,1))", True, "data.k optim.lr"),
        ("seed=1,2 data.seed=3,4", True, "data.seed seed"),
        ("seed=[1 optim.lr=(2", False, "optim.lr=(2 seed=[1"),
    ],
)
def test_all_faults_are_reported_at_once(arguments: str, search: bool, keys: str) -> None:
    problems = problems_of(lambda: space(*arguments.split(), search=search))
    assert sorted(problem.where for problem in problems) == keys.split()


TEXTS = ["it's", '"q"', "back\\", "\\'", "a,b=c", "${x}", "{a:b}", "[1]", " a ", ""]
TEXTS += ["~/x", "a/b-1.0+c", "tab\tbed", "%(x)s!", "runs/007/jobs", "ein Bär/x"]


@pytest.mark.parametrize("text", TEXTS)
def test_quoted_text_is_parsed_to_itself(text: str) -> None:
    assert parse_value(quote(text)) == text
    assert parse_value(f"[{quote(text)},b]") == [text, "b"]
