"""The task files that ship, on the data that they are for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lpt.data.examples import build_examples
from lpt.data.sources import build_source
from lpt.data.tasks import build_task
from tests.support.configs import GROUPS, configured
from tests.support.problems import problem_of
from tests.support.shared import DATA_DIR
from tests.support.source_files import splits_of

TASKS = GROUPS["task"]
KINDS = ("masked", "causal")
CUSTOM = ("task.labels=['1','5']", "task.label_words=[bad,good]")


def test_the_template_depends_on_the_kind_of_model() -> None:
    mr = configured("task=mr")
    assert build_task(mr, "masked").template.text == mr.task.templates["masked"]
    assert build_task(mr, "causal").template.text == mr.task.templates["causal"]
    own = configured("task=mr", "task.template='<mask> : {text}'")
    assert build_task(own, None).template.text == "<mask> : {text}"
    del mr.task.templates["causal"]
    problem = problem_of(lambda: build_task(mr, "causal"))
    assert problem.where == "task.template"
    assert "mr has no template for a causal model" in problem.given
    assert "masked" in problem.expected


def test_a_template_does_not_insert_the_label() -> None:
    leaking = configured("task=mr", "task.template='{text} {label} <mask>'")
    assert "inserts the label" in problem_of(lambda: build_task(leaking, "masked")).given


def test_metrics() -> None:
    mnli = build_task(configured("task=mnli"), "masked")
    assert mnli.metrics_for("ax") == ["matthews_correlation"]
    assert mnli.metrics_for("dev") == mnli.metrics_for("dev_mismatched") == ["accuracy"]
    ax = build_task(configured("task=ax"), "masked")
    assert (ax.metrics[0], ax.metrics_for("test")) == ("accuracy", ["matthews_correlation"])
    mrpc = build_task(configured("task=mrpc", "task.metrics=[accuracy,f1]"), "masked")
    assert mrpc.metrics == ["f1", "accuracy"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TASKS)
def test_every_task_builds(name: str, kind: str) -> None:
    template = "task.template='{text} " + ("<mask>" if kind == "masked" else "{word}") + "'"
    config = configured(f"task={name}", *((*CUSTOM, template) if name == "custom" else ()))
    used = build_task(config, kind)
    assert used.template.kind == kind
    assert used.template.columns
    assert len(config.task.label_words) == len(config.task.labels) >= 2
    assert set(config.task.label_aliases.values()) <= set(config.task.labels)
    assert used.metrics[0] == config.task.metric
    assert (used.value_range == (0.0, 5.0)) == (name == "stsb")


# Task, folder, rows of train, dev and test; of candidates where rows are expanded.
OFFICIAL: list[tuple[str, str, tuple[int | None, int | None, int | None]]] = [
    ("sst2", "glue/SST-2", (67349, 872, 1821)),
    ("cola", "glue/CoLA", (8551, 1043, 1063)),
    ("mrpc", "glue/MRPC", (3668, 408, 1725)),
    ("stsb", "glue/STS-B", (5749, 1500, 1379)),
    ("rte", "glue/RTE", (2490, 277, 3000)),
    ("wnli", "glue/WNLI", (635, 71, 146)),
    ("qnli", "glue_partial/QNLI", (10475, 5463, 5463)),
    ("qqp", "glue_partial/QQP", (20000, 3497, None)),
    ("mnli", "glue_partial/MNLI", (None, 9815, None)),
    ("boolq", "super_glue/BoolQ", (1543, 32, None)),
    ("cb", "super_glue/CB", (250, 56, None)),
    ("copa", "super_glue/COPA", (2 * 400, 2 * 32, None)),
    ("multirc", "super_glue/MultiRC", (3515, 167, None)),
    ("rte", "super_glue/RTE", (2490, 277, None)),
    ("wic", "super_glue/WiC", (5428, 32, None)),
    ("wsc", "super_glue/WSC", (554, 32, None)),
    ("mr", "extra/mr", (8662, None, 2000)),
    ("subj", "extra/subj", (8000, None, 2000)),
    ("trec", "extra/trec", (5452, None, 500)),
]


def test_all_available_data_are_tested() -> None:
    if not DATA_DIR.is_dir():
        pytest.skip(f"no {DATA_DIR}")
    folders = {str(path.relative_to(DATA_DIR)) for path in DATA_DIR.glob("*/*") if path.is_dir()}
    assert folders <= {folder for _, folder, _ in OFFICIAL}


@pytest.mark.parametrize(("name", "folder", "counts"), OFFICIAL, ids=[f for _, f, _ in OFFICIAL])
def test_official_files(
    name: str, folder: str, counts: tuple[int | None, int | None, int | None]
) -> None:
    if not (DATA_DIR / folder).is_dir():
        pytest.skip(f"no files of {name} in {DATA_DIR}")
    config = configured(f"task={name}", f"data.path={DATA_DIR / folder}")
    source = build_source(config)
    masked, other = (build_task(config, kind) for kind in KINDS)
    assert other.template.columns == masked.template.columns
    for split, count in zip(("train", "dev", "test"), counts, strict=True):
        assert source.has(split) == (count is not None)
        if count is None:
            continue
        labelled = split != "test" or folder.startswith("extra/")
        examples = build_examples(masked, source.read(split), need_labels=labelled)
        assert len(examples) == count
        if not labelled:
            assert not examples.labeled_positions()
        elif masked.value_range is None:
            assert set(examples.labels) == set(range(len(masked.config.labels)))
        else:
            assert (min(examples.labels), max(examples.labels)) == masked.value_range


def test_custom_task_needs_no_code(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text('review,stars\n"good, really",5\nbad,1\n')
    (tmp_path / "val.jsonl").write_text('{"stars": 1, "review": "x"}\n')
    config = configured(
        "task=custom",
        *CUSTOM,
        "task.template='{review} It was {word} .'",
        "task.label_column=stars",
        f"data.path={tmp_path}",
    )
    used, source = build_task(config, None), build_source(config)
    assert used.template.kind == "causal"
    train = build_examples(used, source.read("train"), need_labels=True)
    assert (train.columns, train.labels) == ({"review": ["good, really", "bad"]}, [1, 0])
    assert build_examples(used, source.read("dev"), need_labels=True).labels == [0]
    assert not source.has("test")


def words(text: str) -> str:
    straight = text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    return " ".join(re.findall(r"[a-z0-9']+", straight))


def test_the_reviews_that_ship_are_balanced_and_no_sentence_is_in_two_splits() -> None:
    """Sentences of four words or more; shorter ones ("Never again.") are common."""
    found_in: dict[str, set[str]] = {}
    for split, part in splits_of("reviews").sets.items():
        texts = [words(text) for text in part.columns["text"]]
        assert len({*texts}) == len(texts) == 2 * part.labels.count(0) == 2 * part.labels.count(1)
        for text in part.columns["text"]:
            for sentence in map(words, re.split(r"(?<=[.!?;])\s+", text)):
                if sentence.count(" ") >= 3:
                    found_in.setdefault(sentence, set()).add(split)
    assert len(found_in) > 100
    assert [sentence for sentence, splits in found_in.items() if len(splits) > 1] == []
