from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lpt.config import TaskConfig
from lpt.data.sources import Folder, Table
from lpt.data.tasks import Examples, Task, make_task
from lpt.data.templates import Encoder
from lpt.errors import ConfigError
from tests.conftest import CONF, Compose
from tests.shared import DATA_DIR
from tests.tokenizers import causal, longest, wordpiece


def task(**changes: Any) -> Task:
    arguments: dict[str, Any] = {
        "name": "toy",
        "kind": "masked",
        "templates": {"masked": "{text} <mask> .", "causal": "{text} {word} ."},
        "template": None,
        "labels": ["neg", "pos"],
        "words": ["bad", "good"],
        "label_column": "label",
        "aliases": {},
        "metric": "accuracy",
        "metrics": [],
    }
    return make_task(**arguments | changes)


def table(labels: Sequence[str | None], **columns: Sequence[str | None]) -> Table:
    """Rows on lines 2, 4, 6, ... of train.tsv."""
    texts = columns or {"text": [f"text {i}" for i in range(len(labels))]}
    return Table("train.tsv", {**texts, "label": labels}, range(2, 2 * len(labels) + 2, 2))


def refused(rows: Table, used: Task, *, need_labels: bool = True) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        used.examples(rows, need_labels=need_labels)
    return caught.value


def test_rows_become_examples() -> None:
    rows = table(["pos", "neg", " pos "], text=["a", "", "c"], unused=["1", "2", "3"])
    examples = task().examples(rows, need_labels=True)
    assert examples == Examples({"text": ["a", "", "c"]}, [1, 0, 1], [0, 1, 2])
    assert examples.labelled


def test_take_and_limited() -> None:
    examples = task().examples(table(["pos", "neg", "pos", "neg"]), need_labels=True)
    assert examples.take([3, 0]) == Examples({"text": ["text 3", "text 0"]}, [0, 1], [3, 0])
    assert examples.take([3, 0]).take([1]).index == [0]
    assert [len(examples.limited(n, 13)) for n in (None, 0, 2, 9)] == [4, 0, 2, 4]
    assert {tuple(examples.limited(2, seed).index) for seed in range(30)} > {(0, 1), (2, 3)}


@pytest.mark.parametrize(("bad", "more"), [(1, None), (5, None), (7, 2)])
def test_unknown_labels(bad: int, more: int | None) -> None:
    problems = refused(table(["pos", *["Pos"] * bad, "neg"]), task()).problems
    shown = problems[:5] if more else problems
    assert [p.where for p in shown] == [f"train.tsv:{4 + 2 * i}" for i in range(min(bad, 5))]
    assert {p.given for p in shown} == {"label 'Pos'"}
    assert {p.allowed for p in shown} == {"neg, pos"}
    assert all("task.labels" in p.todo for p in shown)
    if more:
        assert [p.where for p in problems[5:]] == ["train.tsv"]
        assert f"{more} more" in problems[5].given


@pytest.mark.parametrize("value", ["", None])
def test_no_label(value: str | None) -> None:
    [problem] = refused(table(["pos", value]), task()).problems
    assert (problem.where, problem.given) == ("train.tsv:4", "no label")
    examples = task().examples(table(["pos", value]), need_labels=False)
    assert examples.labels == [1, -1]
    assert not examples.labelled


def test_unlabelled_test_set() -> None:
    rows = Table("test.tsv", {"index": ["0", "1"], "text": ["a", "b"]}, [2, 3])
    examples = task().examples(rows, need_labels=False)
    assert examples == Examples({"text": ["a", "b"]}, [-1, -1], [0, 1])
    [problem] = refused(rows, task()).problems
    assert problem.where == "test.tsv"
    assert "no column label" in problem.given
    assert "index, text" in problem.given
    assert "task.label_column" in problem.todo


def test_wrong_label_is_refused_where_labels_are_optional() -> None:
    [problem] = refused(table(["pos", "maybe"]), task(), need_labels=False).problems
    assert (problem.where, problem.given) == ("train.tsv:4", "label 'maybe'")


def test_missing_columns_come_together_with_near_names() -> None:
    pair = task(template="{premise} <mask> {hypothesis}", label_column="gold")
    rows = table(["pos"], premisse=["a"], other=["b"])
    problems = refused(rows, pair).problems
    assert {p.where for p in problems} == {"train.tsv"}
    premise, hypothesis, gold = problems
    assert "no column premise (it has: premisse, other, label)" in premise.given
    assert "did you mean premisse?" in premise.todo
    assert "task.template" in premise.allowed
    assert "hypothesis" in hypothesis.given
    assert "did you mean" not in hypothesis.todo
    assert "gold" in gold.given
    assert "task.label_column" in gold.allowed


def test_aliases() -> None:
    aliases = {"text": ["#1 String", "sentence"], "label": ["Quality"]}
    rows = Table("t", {"Quality": ["pos"], "sentence": ["a"]}, [2])
    examples = task(aliases=aliases).examples(rows, need_labels=True)
    assert examples == Examples({"text": ["a"]}, [1], [0])
    both = Table("t", {"Quality": ["pos"], "sentence": ["a"], "text": ["own name first"]}, [2])
    assert task(aliases=aliases).examples(both, need_labels=True).columns["text"] == [
        "own name first"
    ]
    [problem, _] = refused(Table("t", {"other": ["a"]}, [2]), task(aliases=aliases)).problems
    assert "text or #1 String or sentence" in problem.given


def test_missing_values() -> None:
    rows = table(["pos", "wrong", "neg"], text=["a", None, None])
    found = {(p.where, p.given) for p in refused(rows, task()).problems}
    assert found == {
        ("train.tsv:4", "no value for 'text'"),
        ("train.tsv:6", "no value for 'text'"),
        ("train.tsv:4", "label 'wrong'"),
    }


def test_make_task() -> None:
    assert task().template.kind == "masked"
    assert task(kind="causal").template.text == "{text} {word} ."
    assert task(template="<mask> : {text}").template.text == "<mask> : {text}"
    assert task(metric="f1", metrics=["accuracy", "f1"]).metrics == ("f1", "accuracy")
    with pytest.raises(ConfigError) as caught:
        task(kind="causal", templates={"masked": "{text} <mask>"})
    [problem] = caught.value.problems
    assert problem.where == "task.template"
    assert "no template for a causal model" in problem.given
    assert "masked" in problem.allowed


# The task files that ship, on the data they are for.

ROWS: dict[str, tuple[int | None, int | None, int | None]] = {  # train, dev, test
    "sst2": (67349, 872, 1821),
    "mrpc": (3668, 408, 1725),
    "rte": (2490, 277, 3000),
    "qnli": (10475, 5463, 5463),
    "qqp": (20000, 3497, None),
    "mnli": (None, 9815, None),
    "mr": (8662, None, 2000),
    "subj": (8000, None, 2000),
    "trec": (5452, None, 500),
}
TASKS = sorted(path.stem for path in (CONF / "task").glob("*.yaml"))


def build(config: TaskConfig, kind: str) -> Task:
    return make_task(
        name=config.name,
        kind=kind,
        templates=config.templates,
        template=config.template,
        labels=config.labels,
        words=config.words,
        label_column=config.label_column,
        aliases=config.aliases,
        metric=config.metric,
        metrics=config.metrics,
    )


def check_encodes(used: Task, examples: Examples) -> None:
    tokenizer = wordpiece() if used.template.kind == "masked" else causal()
    encoder = Encoder(tokenizer, used.template, used.words, 512)
    some = examples.limited(10, 13)
    encoded = encoder.encode(some.columns)
    assert len(encoded) == len(some)
    assert all(4 < longest(encoded, i) <= 512 for i in range(len(some)))


def data_folder(name: str) -> Path | None:
    found = (d for d in sorted(DATA_DIR.glob("*/*")) if d.name.lower().replace("-", "") == name)
    return next(found, None)


def test_every_count_is_of_a_task() -> None:
    assert set(ROWS) <= set(TASKS)


@pytest.mark.parametrize("name", [name for name in TASKS if name not in ("custom", "reviews")])
def test_official_files(composed: Compose, name: str) -> None:
    path = data_folder(name)
    if path is None:
        pytest.skip(f"no files of {name} in {DATA_DIR}")
    config = composed(f"task={name}").task
    assert config.templates
    folder = Folder(path, config.files, config.header)
    for split, count in zip(("train", "dev", "test"), ROWS[name], strict=True):
        if count is None:
            assert not list(path.glob(f"{split}*"))
            continue
        rows = folder.read(split)
        for kind in config.templates:
            used = build(config, kind)
            examples = used.examples(rows, need_labels=split != "test")
            assert len(examples) == count
            if split != "test":
                assert set(examples.labels) == set(range(len(config.labels)))
            check_encodes(used, examples)


@pytest.mark.parametrize("kind", ["masked", "causal"])
def test_demo_task_loads(composed: Compose, kind: str) -> None:
    config = composed("task=reviews").task
    assert config.default_path is not None
    folder = Folder(Path(config.default_path), config.files, config.header)
    for split in ("train", "dev", "test"):
        examples = build(config, kind).examples(folder.read(split), need_labels=True)
        assert set(examples.labels) == {0, 1}
        check_encodes(build(config, kind), examples)


def test_custom_task_needs_no_code(composed: Compose, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text('review,stars\n"good, really",5\nbad,1\n')
    (tmp_path / "val.jsonl").write_text('{"stars": 1, "review": "x"}\n')
    config = composed(
        "task=custom",
        "task.labels=['1','5']",
        "task.words=[bad,good]",
        "task.template='{review} It was {word} .'",
        "task.label_column=stars",
    ).task
    used, folder = build(config, "causal"), Folder(tmp_path, config.files, config.header)
    train = used.examples(folder.read("train"), need_labels=True)
    assert (train.columns, train.labels) == ({"review": ["good, really", "bad"]}, [1, 0])
    assert used.examples(folder.read("dev"), need_labels=True).labels == [0]
    assert not folder.has("test")
