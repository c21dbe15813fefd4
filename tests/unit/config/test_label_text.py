"""Labels and words stay the text that was written, or are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from lpt.config.command_line import check_overrides, label_aliases_setting
from lpt.config.compose import compose_grid
from tests.support.configs import CONF, configured
from tests.support.problems import problems_of
from tests.support.source_files import write

CUSTOM = ("task=custom", "data.path=.", "task.labels=[a,b]", "task.label_words=[bad,good]")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            "labels: [no, yes]\nlabel_words: [bad, good]",
            {"task.labels: False", "task.labels: True"},
        ),
        (
            "labels: [a, b]\nlabel_words: [No, On]",
            {f"task.label_words: {v}" for v in (True, False)},
        ),
        ("labels: [1.0, 2.50]\nlabel_words: [x, y]", {"task.labels: 1.0", "task.labels: 2.5"}),
        ("labels: [~, .nan]\nlabel_words: [x, y]", {"task.labels: null", "task.labels: nan"}),
        ("labels: [[a], b]\nlabel_words: [x, y]", {"task.labels: ['a']"}),
        ("labels: [a, b]\nlabel_words: [x, y]\nskip_labels: [off]", {"task.skip_labels: False"}),
        (
            "labels: [a, b]\nlabel_words: [x, y]\nlabel_aliases: {c: yes}",
            {"task.label_aliases.c: True"},
        ),
    ],
)
def test_what_yaml_reads_as_no_text_is_refused(
    tmp_path: Path, values: str, expected: set[str]
) -> None:
    write(tmp_path / "task" / "mine.yaml", f"name: mine\n{values}\n")
    problems = problems_of(lambda: compose_grid(["task=mine", "data.path=."], tmp_path))
    assert {f"{p.where}: {p.given.partition(',')[0]}" for p in problems} == expected
    assert all("quote it" in p.hint for p in problems)


@pytest.mark.parametrize(
    "values",
    [
        *("label_words=[false,true]", "label_words=[x,1e3]", "labels=[null,a]", "labels=[0.0,1]"),
        "positive_label=true",
    ],
)
def test_what_hydra_reads_as_no_text_is_refused(values: str) -> None:
    problems = problems_of(lambda: configured(*CUSTOM, f"task.{values}"))
    assert {p.where for p in problems} == {f"task.{values.partition('=')[0]}"}


def test_quoted_text_and_whole_numbers_are_text() -> None:
    task = configured(*CUSTOM, "task.labels=[0,'1.0']", "task.label_words=['false',Yes]").task
    assert (task.labels, task.label_words) == (["0", "1.0"], ["false", "Yes"])
    ends = configured(*CUSTOM, "task.labels=[0.5,2]", "task.task_type=regression").task
    assert ends.labels == ["0.5", "2"]


@pytest.mark.parametrize(
    ("given", "aliases"),
    [
        ("{Neg:a,POS:b}", {"Neg": "a", "POS": "b"}),
        ("{1.0:b,0:a}", {"1.0": "b", "0": "a"}),
        (
            "{True:b,Yes:a}",
            dict.fromkeys(["True", "true", "TRUE", "yes", "YES", "on", "On", "ON"], "b")
            | {"Yes": "a"},
        ),
        ("{x:1}", {"x": "1"}),
    ],
)
def test_aliases_are_typed_without_plus(given: str, aliases: dict[str, str]) -> None:
    override = f"task.label_aliases={given}"
    check_overrides([override], CONF)
    [config] = compose_grid([*CUSTOM, override])
    assert config.task.label_aliases == aliases


def test_aliases_are_added_to_those_of_the_task() -> None:
    [config] = compose_grid(["task=boolq", "data.path=.", "task.label_aliases={yes:'true'}"])
    assert config.task.label_aliases == {"0": "false", "1": "true", "yes": "true"}


@pytest.mark.parametrize(
    "aliases",
    [{"Neg": "neg"}, {"1.0": "1"}, {"True": "true", "False": "false"}, {"very good": "x y"}],
)
def test_suggested_aliases_can_be_typed(aliases: dict[str, str]) -> None:
    setting = label_aliases_setting(aliases).strip('"')
    [config] = compose_grid([*CUSTOM, setting])
    assert aliases.items() <= config.task.label_aliases.items()


@pytest.mark.parametrize("spelling", ["1.50", "a,b", "TRUE-ish: 1", "n\u00e9"])
def test_other_spellings_are_suggested_for_the_file(spelling: str) -> None:
    setting = label_aliases_setting({spelling: "x"})
    assert setting == f"label_aliases: {{{spelling!r}: 'x'}} in the YAML file of the task"
