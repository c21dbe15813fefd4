"""The task files that ship, on the data they are for."""

from __future__ import annotations

from pathlib import Path

import pytest

from lpt.data.build import build_task
from lpt.data.candidates import EXPANSIONS
from lpt.data.sources import Folder, open_folder
from lpt.data.tasks import Examples, Task
from lpt.data.templates import Encoder
from tests.support.shared import DATA_DIR
from tests.support.tokenizers import causal, longest, wordpiece
from tests.unit.config.test_config import GROUPS, configured

TASKS = GROUPS["task"]
KINDS = ("masked", "causal")
CUSTOM = ("task.labels=['1','5']", "task.label_words=[bad,good]")


def test_further_metrics() -> None:
    mnli = build_task(configured("task=mnli"), "masked")
    assert mnli.metrics_of("ax") == ("matthews_correlation",)
    assert mnli.metrics_of("dev") == mnli.metrics_of("dev_mismatched") == ("accuracy",)
    assert not build_task(configured("task=mnli", "data.extra=false"), "masked").set_metrics
    ax = build_task(configured("task=ax"), "masked")
    assert (ax.metric, ax.metrics_of("test")) == ("accuracy", ("matthews_correlation",))
    mrpc = build_task(configured("task=mrpc", "task.metrics=[accuracy,f1]"), "masked")
    assert (mrpc.metrics, mrpc.metric) == (("f1", "accuracy"), "f1")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TASKS)
def test_every_task_builds(name: str, kind: str) -> None:
    given = CUSTOM if name == "custom" else ()
    template = "task.template='{text} " + ("<mask>" if kind == "masked" else "{word}") + "'"
    config = configured(f"task={name}", *given, *([template] if name == "custom" else []))
    used = build_task(config, kind)
    assert used.template.kind == kind
    assert used.name == name
    assert len(used.label_words) == len(used.labels) >= 2
    assert used.template.columns
    assert set(used.label_aliases.values()) <= set(used.labels)
    assert used.metric == config.task.metric
    assert (used.value_range == (0.0, 5.0)) == (name == "stsb")


def test_every_expansion_has_a_task() -> None:
    named = {configured(f"task={name}").task.row_expansion for name in TASKS if name != "custom"}
    assert named - {None} == set(EXPANSIONS)


def check_encodes(used: Task, examples: Examples) -> None:
    tokenizer = wordpiece() if used.template.kind == "masked" else causal()
    encoder = Encoder(tokenizer, used.template, used.label_words, 512)
    some = examples.limited(5, 13)
    encoded = encoder.encode(some.columns)
    assert len(encoded) == len(some) > 0
    assert all(4 < longest(encoded, i) <= 512 for i in range(len(some)))


# Task, folder, rows of train, dev and test; where rows become candidates, these.
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


def test_all_data_there_are_tried() -> None:
    if not DATA_DIR.is_dir():
        pytest.skip(f"no {DATA_DIR}")
    folders = {str(path.relative_to(DATA_DIR)) for path in DATA_DIR.glob("*/*") if path.is_dir()}
    assert folders <= {folder for _, folder, _ in OFFICIAL}


@pytest.mark.parametrize(("name", "folder", "counts"), OFFICIAL, ids=[f for _, f, _ in OFFICIAL])
def test_official_files(
    name: str, folder: str, counts: tuple[int | None, int | None, int | None]
) -> None:
    path = DATA_DIR / folder
    if not path.is_dir():
        pytest.skip(f"no files of {name} in {DATA_DIR}")
    config = configured(f"task={name}")
    known = config.task
    source = open_folder(path, known.files, known.hub_splits, known.header, known.skip_short_rows)
    masked, other = (build_task(config, kind) for kind in KINDS)
    for split, count in zip(("train", "dev", "test"), counts, strict=True):
        assert source.has(split) == (count is not None)
        if count is None:
            continue
        rows = source.read(split)
        labelled = split != "test" or folder.startswith("extra/")
        examples = masked.examples(rows, need_labels=labelled)
        assert len(examples) == count
        if not labelled:
            assert set(examples.labels) == {-1}
        elif masked.value_range is None:
            assert set(examples.labels) == set(range(len(known.labels)))
        else:
            assert (min(examples.labels), max(examples.labels)) == masked.value_range
        assert other.template.columns == masked.template.columns
        for used in (masked, other):
            check_encodes(used, examples)


@pytest.mark.parametrize("kind", KINDS)
def test_demo_task_loads(kind: str) -> None:
    config = configured("task=reviews")
    assert config.task.default_path is not None
    folder = Folder(Path(config.task.default_path), config.task.files, config.task.header)
    for split in ("train", "dev", "test"):
        used = build_task(config, kind)
        examples = used.examples(folder.read(split), need_labels=True)
        assert set(examples.labels) == {0, 1}
        check_encodes(used, examples)


def test_custom_task_needs_no_code(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text('review,stars\n"good, really",5\nbad,1\n')
    (tmp_path / "val.jsonl").write_text('{"stars": 1, "review": "x"}\n')
    config = configured(
        "task=custom",
        *CUSTOM,
        "task.template='{review} It was {word} .'",
        "task.label_column=stars",
    )
    used, folder = build_task(config, None), Folder(tmp_path, config.task.files)
    assert used.template.kind == "causal"
    train = used.examples(folder.read("train"), need_labels=True)
    assert (train.columns, train.labels) == ({"review": ["good, really", "bad"]}, [1, 0])
    assert used.examples(folder.read("dev"), need_labels=True).labels == [0]
    assert not folder.has("test")
