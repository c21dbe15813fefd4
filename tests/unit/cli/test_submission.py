"""Leaderboard files: their content line by line, and what is refused or missing."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from lpt.cli.leaderboards import SUITES, Entry, Made, make_submission
from lpt.data import submission
from lpt.errors import ConfigError
from tests import runs
from tests.conftest import Compose

ENTRIES = {entry.file: entry for entries in SUITES.values() for entry in entries}


def shrunk(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Pretend that every official test set has so many rows."""
    small = {
        suite: tuple(entry._replace(rows=rows) for entry in entries)
        for suite, entries in SUITES.items()
    }
    monkeypatch.setattr(submission, "SUITES", small)


def finished(
    folder: Path,
    task: str,
    predictions: Sequence[str],
    *,
    set_name: str = "test",
    dev: float = 0.5,
    notes: dict[str, Sequence[str]] | None = None,
    origin: str = "official test set",
) -> Path:
    """A folder as a run leaves it, as far as a submission reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = {"index": [str(i) for i in range(len(predictions))], **(notes or {})}
    columns["prediction"] = predictions
    lines = ["\t".join(columns), *("\t".join(row) for row in zip(*columns.values(), strict=True))]
    name = "predictions.tsv" if set_name == "test" else f"predictions-{set_name}.tsv"
    (folder / name).write_text("\n".join(lines) + "\n")
    origins = {"test": origin, set_name: origin}
    metrics = runs.metrics(task=task, dev=dev, protocol__origin=origins)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def by_file(result: tuple[Sequence[Made], Sequence[Path]]) -> dict[str, Made]:
    return {entry.file: entry for entry in result[0]}


GLUE = {
    ("cola", "CoLA.tsv"): ["0", "1"],
    ("stsb", "STS-B.tsv"): ["0.000", "3.217"],
    ("wnli", "WNLI.tsv"): ["1", "0"],
    ("qnli", "QNLI.tsv"): ["entailment", "not_entailment"],
    ("mnli", "MNLI-m.tsv"): ["neutral", "contradiction"],
}


@pytest.mark.parametrize(("task", "file"), GLUE)
def test_glue_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, file: str) -> None:
    shrunk(monkeypatch, 2)
    first, second = GLUE[task, file]
    run = finished(tmp_path / "run", task, [first, second])
    made = by_file(make_submission([run], tmp_path / "out"))
    assert made[file].run == run
    expected = f"index\tprediction\n0\t{first}\n1\t{second}\n"
    assert (tmp_path / "out" / "glue" / file).read_text() == expected
    with zipfile.ZipFile(tmp_path / "out" / "glue.zip") as archive:
        assert archive.namelist() == [file]
        assert archive.read(file).decode() == expected


SUPER_GLUE: dict[str, tuple[str, list[str], dict[str, Sequence[str]], list[object]]] = {
    "BoolQ.jsonl": (
        "boolq",
        ["true", "false"],
        {"id": ["7", "9"]},
        [{"idx": 7, "label": "true"}, {"idx": 9, "label": "false"}],
    ),
    "WSC.jsonl": (
        "wsc",
        ["true", "false"],
        {"id": ["0", "1"]},
        [{"idx": 0, "label": "True"}, {"idx": 1, "label": "False"}],
    ),
    "CB.jsonl": (
        "cb",
        ["neutral", "entailment"],
        {},
        [{"idx": 0, "label": "neutral"}, {"idx": 1, "label": "entailment"}],
    ),
    "COPA.jsonl": (
        "copa",
        ["0", "1", "1", "0"],
        {"id": ["4/0", "4/1", "5/0", "5/1"], "group": ["4", "4", "5", "5"], "answer": list("0101")},
        [{"idx": 4, "label": 1}, {"idx": 5, "label": 0}],
    ),
    "ReCoRD.jsonl": (
        "record",
        ["0", "0", "1", "1"],
        {"group": ["12", "12", "12", "13"], "answer": ["Ada", "Bern", "Côte d'Or", "Ada"]},
        [{"idx": 12, "label": "Côte d'Or"}, {"idx": 13, "label": "Ada"}],
    ),
}


@pytest.mark.parametrize("file", SUPER_GLUE)
def test_super_glue_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    shrunk(monkeypatch, 2)
    task, predictions, notes, expected = SUPER_GLUE[file]
    run = finished(tmp_path / "run", task, predictions, notes=notes)
    made = by_file(make_submission([run], tmp_path / "out"))
    assert made[file].run == run
    lines = (tmp_path / "out" / "super_glue" / file).read_text().splitlines()
    assert [json.loads(line) for line in lines] == expected


def test_multirc_is_nested_as_the_data_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrunk(monkeypatch, 4)
    ids = ["26/303/1637", "26/303/1638", "26/304/1639", "27/305/1640"]
    notes = {"id": ids, "group": [i.rpartition("/")[0] for i in ids]}
    run = finished(tmp_path / "run", "multirc", ["1", "0", "1", "0"], notes=notes)
    make_submission([run], tmp_path / "out")
    lines = (tmp_path / "out" / "super_glue" / "MultiRC.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {
            "idx": 26,
            "passage": {
                "questions": [
                    {"idx": 303, "answers": [{"idx": 1637, "label": 1}, {"idx": 1638, "label": 0}]},
                    {"idx": 304, "answers": [{"idx": 1639, "label": 1}]},
                ]
            },
        },
        {
            "idx": 27,
            "passage": {"questions": [{"idx": 305, "answers": [{"idx": 1640, "label": 0}]}]},
        },
    ]


def test_diagnostics_come_from_the_task_they_belong_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrunk(monkeypatch, 2)
    run = tmp_path / "mnli"
    for set_name in ("test", "test_mismatched", "ax"):
        finished(run, "mnli", ["neutral", "neutral"], set_name=set_name)
    own = finished(tmp_path / "ax", "ax", ["entailment", "neutral"], dev=0.9)
    made = by_file(make_submission([run, own], tmp_path / "out"))
    assert {made[f].run for f in ("MNLI-m.tsv", "MNLI-mm.tsv", "AX.tsv")} == {run}
    alone = by_file(make_submission([own], tmp_path / "alone"))
    assert alone["AX.tsv"].run == own
    assert alone["MNLI-m.tsv"].why_not == "no run of mnli"


def test_one_run_fills_all_files_of_its_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A k-shot run with a better dev score answered the further sets, too, but not test."""
    shrunk(monkeypatch, 2)
    full, kshot = tmp_path / "full", tmp_path / "kshot"
    for set_name in ("test", "test_mismatched"):
        finished(full, "mnli", ["neutral", "neutral"], set_name=set_name, dev=0.8)
    finished(kshot, "mnli", ["neutral"], dev=0.9, origin="official dev set")
    finished(kshot, "mnli", ["neutral"] * 2, set_name="test_mismatched", dev=0.9)
    origin = {"test": "official dev set", "test_mismatched": "official test_mismatched set"}
    metrics = runs.metrics(task="mnli", dev=0.9, protocol__origin=origin)
    (kshot / "metrics.json").write_text(json.dumps(metrics))
    made = by_file(make_submission([kshot, full], tmp_path / "out"))
    assert {made[file].run for file in ("MNLI-m.tsv", "MNLI-mm.tsv")} == {full}


def test_rte_alone_makes_no_suite_of_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrunk(monkeypatch, 1)
    runs = [
        finished(tmp_path / "rte", "rte", ["entailment"]),
        finished(tmp_path / "cola", "cola", ["1"]),
    ]
    made, _ = make_submission(runs, tmp_path / "out")
    assert {entry.suite for entry in made} == {"GLUE"}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["glue", "glue.zip"]


def test_rte_alone_is_in_both_suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrunk(monkeypatch, 1)
    run = finished(tmp_path / "rte", "rte", ["entailment"])
    made = by_file(make_submission([run], tmp_path / "out"))
    assert {file for file in made if made[file].run} == {"RTE.tsv", "RTE.jsonl"}


def test_files_of_an_earlier_submission_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrunk(monkeypatch, 1)
    cola = finished(tmp_path / "cola", "cola", ["1"])
    sst2 = finished(tmp_path / "sst2", "sst2", ["1"])
    make_submission([cola], tmp_path / "out")
    make_submission([sst2], tmp_path / "out")
    assert [path.name for path in (tmp_path / "out/glue").iterdir()] == ["SST-2.tsv"]


def test_best_dev_score_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrunk(monkeypatch, 1)
    runs = [
        finished(tmp_path / name, "sst2", [label], dev=dev)
        for name, label, dev in (("a", "0", 0.7), ("b", "1", 0.8), ("c", "0", 0.6))
    ]
    made = by_file(make_submission(runs, tmp_path / "out"))
    assert made["SST-2.tsv"].run == runs[1]
    assert (tmp_path / "out/glue/SST-2.tsv").read_text().endswith("0\t1\n")


def test_an_unfit_run_gives_way_to_a_fit_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrunk(monkeypatch, 2)
    short = finished(tmp_path / "a", "sst2", ["0", "1"], dev=0.9, origin="official dev set")
    fit = finished(tmp_path / "b", "sst2", ["0", "1"], dev=0.5)
    assert by_file(make_submission([short, fit], tmp_path / "out"))["SST-2.tsv"].run == fit


CHOICE = {"group": ["4", "4", "5", "5"], "answer": list("0101")}
UNFIT: dict[str, tuple[str, str, list[str], dict[str, Sequence[str]], str]] = {
    "k-shot": ("sst2", "SST-2.tsv", ["0"], {}, "answers 1 of 2 (test: official dev set)"),
    "label": ("sst2", "SST-2.tsv", ["0", "2"], {}, "has labels 2, not 0, 1"),
    "gap": ("sst2", "SST-2.tsv", ["0", "1"], {"index": ["0", "5"]}, "lacks rows of test"),
    "twice": ("sst2", "SST-2.tsv", ["0", "1"], {"index": ["0", "0"]}, "lacks rows of test"),
    "number": ("stsb", "STS-B.tsv", ["0.1", "5.5"], {}, "has labels 5.5, not numbers from 0 to 5"),
    "text": ("stsb", "STS-B.tsv", ["0.1", "x"], {}, "has labels x, not numbers from 0 to 5"),
    "two chosen": ("copa", "COPA.jsonl", list("1101"), CHOICE, "without exactly one answer"),
    "none chosen": ("copa", "COPA.jsonl", list("0001"), CHOICE, "without exactly one answer"),
    "ids": ("multirc", "MultiRC.jsonl", ["0", "1"], {"id": ["1", "2"]}, "has no official ids"),
    "no ids": ("multirc", "MultiRC.jsonl", ["0", "1"], {}, "has no official ids"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_unfit_answers_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    shrunk(monkeypatch, 2)
    task, file, predictions, notes, why = UNFIT[name]
    origin = "official dev set"
    run = finished(tmp_path / "run", task, predictions, notes=notes, origin=origin)
    made = by_file(make_submission([run], tmp_path / "out"))
    assert made[file].run is None
    assert why in made[file].why_not
    assert not (tmp_path / "out").exists()


def test_an_unfinished_run_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrunk(monkeypatch, 1)
    (tmp_path / "b").mkdir()
    run = finished(tmp_path / "a", "cola", ["1"])
    made, skipped = make_submission([tmp_path / "b", run], tmp_path / "out")
    assert [entry.run for entry in made if entry.run] == [run]
    assert skipped == [tmp_path / "b"]


def test_folders_without_any_finished_run_are_refused(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with pytest.raises(ConfigError) as caught:
        make_submission([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert [problem.where for problem in caught.value.problems] == [
        str(tmp_path / name) for name in "ab"
    ]


def test_the_same_answers_give_the_same_zip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shrunk(monkeypatch, 1)
    run = finished(tmp_path / "run", "cola", ["1"])
    for name in ("first", "second"):
        make_submission([run], tmp_path / name)
    first, second = ((tmp_path / name / "glue.zip").read_bytes() for name in ("first", "second"))
    assert first == second


# Sizes of the official test sets, from the data cards of both suites.
OFFICIAL_ROWS = {
    **{"CoLA": 1063, "SST-2": 1821, "MRPC": 1725, "STS-B": 1379, "QQP": 390965, "MNLI-m": 9796},
    **{"MNLI-mm": 9847, "QNLI": 5463, "RTE": 3000, "WNLI": 146, "AX": 1104, "BoolQ": 3245},
    **{"CB": 250, "COPA": 500, "MultiRC": 9693, "ReCoRD": 10000, "WiC": 1400, "WSC": 146},
    **{"AX-b": 1104, "AX-g": 356},
}


def test_official_sizes() -> None:
    assert {file.rpartition(".")[0]: entry.rows for file, entry in ENTRIES.items()} == OFFICIAL_ROWS


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_labels_are_those_of_the_tasks(entry: Entry, composed: Compose) -> None:
    for task, set_name in entry.given:
        config = composed(f"task={task}", "data.path=.").task
        assert set_name == "test" or set_name in config.extra
        if entry.labels is not None:
            assert set(entry.labels) == set(config.labels)
