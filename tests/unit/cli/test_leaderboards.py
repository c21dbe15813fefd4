"""Leaderboard files: their content line by line, and what is refused or missing."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from lpt.cli import leaderboards
from lpt.cli.leaderboards import SUITES, LeaderboardFile, SubmissionFile, make_submission
from tests.support import runs
from tests.support.configs import configured
from tests.support.problems import problems_of

FILES = {file.name: file for files in SUITES.values() for file in files}
Columns = dict[str, Sequence[str]]


@pytest.fixture(autouse=True)
def two_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shrink every official test set to two examples or groups."""
    small = {suite: tuple(f._replace(size=2) for f in files) for suite, files in SUITES.items()}
    monkeypatch.setattr(leaderboards, "SUITES", small)


def finished(
    folder: Path,
    task: str,
    predictions: Sequence[str],
    columns: Columns | None = None,
    *,
    set_name: str = "test",
    dev: float = 0.5,
    origin: str = "official test set",
) -> Path:
    """A folder as a run leaves it, as far as a submission reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    table = {"index": list(map(str, range(len(predictions)))), **(columns or {})}
    table["prediction"] = list(predictions)
    lines = ["\t".join(table), *("\t".join(row) for row in zip(*table.values(), strict=True))]
    name = "predictions.tsv" if set_name == "test" else f"predictions-{set_name}.tsv"
    (folder / name).write_text("\n".join(lines) + "\n")
    record = runs.metrics(task=task, dev=dev, split__origin={"test": origin, set_name: origin})
    (folder / "metrics.json").write_text(json.dumps(record))
    return folder


def submit(folders: Sequence[Path], out: Path) -> dict[str, SubmissionFile]:
    return {file.name: file for file in make_submission(folders, out)[0]}


# By file: task, predictions and further columns of a run, and what is written for them.
WRITTEN: dict[str, tuple[str, list[str], Columns, list[str]]] = {
    "CoLA.tsv": ("cola", ["0", "1"], {}, ["index\tprediction", "0\t0", "1\t1"]),
    "STS-B.tsv": ("stsb", ["0.000", "3.217"], {}, ["index\tprediction", "0\t0.000", "1\t3.217"]),
    "BoolQ.jsonl": (
        "boolq",
        ["true", "false"],
        {"id": ["7", "9"]},
        ['{"idx": 7, "label": "true"}', '{"idx": 9, "label": "false"}'],
    ),
    "WSC.jsonl": (
        "wsc",
        ["true", "false"],
        {"id": ["0", "1"]},
        ['{"idx": 0, "label": "True"}', '{"idx": 1, "label": "False"}'],
    ),
    "CB.jsonl": (
        "cb",
        ["neutral", "entailment"],
        {},
        ['{"idx": 0, "label": "neutral"}', '{"idx": 1, "label": "entailment"}'],
    ),
    "COPA.jsonl": (
        "copa",
        ["0", "1", "1", "0"],
        {"id": ["4/0", "4/1", "5/0", "5/1"], "group": ["4", "4", "5", "5"], "answer": list("0101")},
        ['{"idx": 4, "label": 1}', '{"idx": 5, "label": 0}'],
    ),
    "ReCoRD.jsonl": (
        "record",
        ["0", "0", "1", "1"],
        {"group": ["12", "12", "12", "13"], "answer": ["Ada", "Bern", "Côte d'Or", "Ada"]},
        ['{"idx": 12, "label": "C\\u00f4te d\'Or"}', '{"idx": 13, "label": "Ada"}'],
    ),
    "MultiRC.jsonl": (
        "multirc",
        ["1", "0"],
        {"id": ["26/303/1637", "26/304/1639"], "group": ["26/303", "26/304"]},
        [
            '{"idx": 26, "passage": {"questions": ['
            '{"idx": 303, "answers": [{"idx": 1637, "label": 1}]}, '
            '{"idx": 304, "answers": [{"idx": 1639, "label": 0}]}]}}'
        ],
    ),
}


IN_ANY_ORDER: dict[str, tuple[str, list[str], Columns, list[str]]] = {
    "WNLI.tsv": ("wnli", ["0", "1"], {"id": ["1", "0"]}, ["index\tprediction", "0\t1", "1\t0"]),
    "WiC.jsonl": (
        "wic",
        ["true", "false"],
        {"id": ["10", "9"]},
        ['{"idx": 9, "label": "false"}', '{"idx": 10, "label": "true"}'],
    ),
    "COPA.jsonl": (
        "copa",
        ["0", "1", "1", "0"],
        {"id": ["1/0", "1/1", "0/0", "0/1"], "group": ["1", "1", "0", "0"], "answer": list("0101")},
        ['{"idx": 0, "label": 0}', '{"idx": 1, "label": 1}'],
    ),
    "MultiRC.jsonl": (
        "multirc",
        ["1", "0"],
        {"id": ["2/7/11", "2/7/9"], "group": ["2/7", "2/7"]},
        [
            '{"idx": 2, "passage": {"questions": [{"idx": 7, "answers": ['
            '{"idx": 9, "label": 0}, {"idx": 11, "label": 1}]}]}}'
        ],
    ),
}


@pytest.mark.parametrize("name", IN_ANY_ORDER)
def test_answers_stand_under_their_official_ids(tmp_path: Path, name: str) -> None:
    task, predictions, columns, expected = IN_ANY_ORDER[name]
    run = finished(tmp_path / "run", task, predictions, columns)
    assert submit([run], tmp_path / "out")[name].run == run
    [file] = (tmp_path / "out").glob(f"*/{name}")
    assert file.read_text().splitlines() == expected


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        (["1", "2"], "has ids from 1 to 2, not those from 0 to 1"),
        (["7", "0"], "has ids from 0 to 7, not those from 0 to 1"),
        (["0", "q1"], "has an id that is no number: 'q1'"),
        (["0", ""], "has an id that is no number: ''"),
    ],
)
def test_other_ids_than_those_of_glue(tmp_path: Path, ids: list[str], reason: str) -> None:
    run = finished(tmp_path / "run", "cola", ["0", "1"], {"id": ids})
    file = submit([run], tmp_path / "out")["CoLA.tsv"]
    assert (file.run, file.reason) == (None, f"{run} {reason}")


def test_data_without_ids(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = finished(tmp_path / "run", "cola", ["0", "1"])
    assert submit([run], tmp_path / "out")["CoLA.tsv"].run == run
    assert "the data have no ids; CoLA.tsv takes their order for the official one" in caplog.text


@pytest.mark.parametrize("name", WRITTEN)
def test_content_of_a_file_and_its_zip(tmp_path: Path, name: str) -> None:
    task, predictions, columns, expected = WRITTEN[name]
    run = finished(tmp_path / "run", task, predictions, columns)
    zips = []
    for out in (tmp_path / "first", tmp_path / "second"):
        assert submit([run], out)[name].run == run
        [file], [archive] = out.glob(f"*/{name}"), out.glob("*.zip")
        assert archive.stem == file.parent.name
        zips.append(archive.read_bytes())
    assert zips[0] == zips[1]
    text = "".join(f"{line}\n" for line in expected)
    assert file.read_text() == text
    with zipfile.ZipFile(archive) as content:
        assert {n: content.read(n).decode() for n in content.namelist()} == {name: text}


def test_diagnostics_are_of_the_task_that_they_belong_to(tmp_path: Path) -> None:
    run = tmp_path / "mnli"
    for set_name in ("test", "test_mismatched", "ax"):
        finished(run, "mnli", ["neutral", "neutral"], set_name=set_name)
    own = finished(tmp_path / "ax", "ax", ["entailment", "neutral"], dev=0.9)
    files = submit([run, own], tmp_path / "out")
    assert {files[name].run for name in ("MNLI-m.tsv", "MNLI-mm.tsv", "AX.tsv")} == {run}
    alone = submit([own], tmp_path / "alone")
    assert alone["AX.tsv"].run == own
    assert alone["MNLI-m.tsv"].reason == "no run of mnli"


def test_one_run_provides_all_files_of_its_task(tmp_path: Path) -> None:
    """The best on dev of those that predicted all of the official test set."""
    folders = []
    for name, dev in (("good", 0.7), ("best", 0.8), ("poor", 0.6)):
        folders.append(tmp_path / name)
        for set_name in ("test", "test_mismatched"):
            finished(folders[-1], "mnli", ["neutral"] * 2, set_name=set_name, dev=dev)
    kshot = tmp_path / "kshot"
    finished(kshot, "mnli", ["neutral"] * 2, set_name="test_mismatched", dev=0.9)
    finished(kshot, "mnli", ["neutral"], dev=0.9, origin="official dev set")
    files = submit([kshot, *folders], tmp_path / "out")
    assert {files[name].run for name in ("MNLI-m.tsv", "MNLI-mm.tsv")} == {tmp_path / "best"}


def test_rte_is_in_both_suites(tmp_path: Path) -> None:
    rte = finished(tmp_path / "rte", "rte", ["entailment"] * 2)
    files = submit([rte], tmp_path / "alone")
    assert {name for name, file in files.items() if file.run} == {"RTE.tsv", "RTE.jsonl"}
    cola = finished(tmp_path / "cola", "cola", ["1", "0"])
    files = submit([rte, cola], tmp_path / "out")
    assert {file.suite for file in files.values()} == {"GLUE"}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["glue", "glue.zip"]


def test_a_task_without_a_leaderboard(tmp_path: Path) -> None:
    other, rte = finished(tmp_path / "mr", "mr", ["0"]), finished(tmp_path / "rte", "rte", ["1"])
    [problem] = problems_of(lambda: make_submission([other], tmp_path / "out"))
    assert problem.given == "only mr, which have no leaderboard"
    assert {file.suite for file in submit([other, rte], tmp_path / "out").values()} == set(SUITES)


def test_files_of_an_earlier_submission_are_removed(tmp_path: Path) -> None:
    for task in ("cola", "sst2"):
        submit([finished(tmp_path / task, task, ["1", "0"])], tmp_path / "out")
    assert [path.name for path in (tmp_path / "out/glue").iterdir()] == ["SST-2.tsv"]


def test_unfinished_runs_are_skipped(tmp_path: Path) -> None:
    run = finished(tmp_path / "a", "cola", ["1", "0"])
    (tmp_path / "b").mkdir()
    files, unfinished = make_submission([tmp_path / "b", run], tmp_path / "out")
    assert [file.run for file in files if file.run] == [run]
    assert unfinished == [tmp_path / "b"]
    problems = problems_of(lambda: make_submission([tmp_path / n for n in "bc"], tmp_path / "out"))
    assert [p.where for p in problems] == [str(tmp_path / n / "metrics.json") for n in "bc"]


@pytest.mark.parametrize(
    ("task", "name", "predictions", "reason"),
    [
        ("sst2", "SST-2.tsv", ["0"], "predictions for 1 of 2 (test: official dev set)"),
        ("sst2", "SST-2.tsv", ["0", "2"], "other labels than 0, 1"),
        ("mnli", "MNLI-mm.tsv", [], "no predictions for test_mismatched"),
    ],
)
def test_unsuitable_predictions_are_refused(
    tmp_path: Path, task: str, name: str, predictions: list[str], reason: str
) -> None:
    run = finished(tmp_path / "run", task, predictions, origin="official dev set")
    file = submit([run], tmp_path / "out")[name]
    assert file.run is None
    assert file.reason == f"{run} has {reason}"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_sets_and_labels_are_the_tasks(file: LeaderboardFile) -> None:
    for name, set_name in file.sources:
        task = configured(f"task={name}", "data.path=.").task
        assert set_name in ("test", *task.extra)
        assert file.labels is None or set(file.labels) == set(task.labels)
