"""lpt-predict, as a user types it."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from lpt.cli import predict_rows
from lpt.cli.predict import main
from lpt.errors import FAILURE, USAGE_ERROR
from lpt.experiment import run
from lpt.predictor import Predictor
from lpt.runs.record import RunRecord
from tests.conftest import toy_overrides
from tests.support.configs import configured
from tests.support.task_rows import copa_rows, write_jsonl
from tests.support.trained import table

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


@pytest.fixture(scope="module")
def run_dir(
    checkpoints: dict[str, Path], toy_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("predict") / "run"
    run(configured(*toy_overrides(checkpoints, toy_data, "masked"), f"run_dir={folder}"))
    return folder


@pytest.fixture(scope="module")
def frame(toy_data: Path) -> pd.DataFrame:
    """The test rows."""
    names = ["label", "text"]
    return pd.read_csv(toy_data / "test.tsv", sep="\t", header=None, names=names, dtype=str)


def type_in(monkeypatch: Patch, text: str | bytes) -> None:
    content = text.encode() if isinstance(text, str) else text
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def same(found: list[dict[str, str]], run_dir: Path) -> bool:
    """Whether predictions are those that the run wrote for its test set."""
    written = table(run_dir / "predictions.tsv")
    names = ("index", "prediction", "label")
    return [[r[n] for n in names] for r in found] == [[r[n] for n in names] for r in written]


Write = Callable[[pd.DataFrame, Path], object]
FORMATS: dict[str, Write] = {
    "tsv": lambda frame, path: frame.to_csv(path, sep="\t", index=False),
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    "parquet": lambda frame, path: frame.to_parquet(path),
}


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_of_training(
    run_dir: Path, frame: pd.DataFrame, tmp_path: Path, suffix: str, capsys: Capture
) -> None:
    FORMATS[suffix](frame, tmp_path / f"rows.{suffix}")
    out = tmp_path / "out.tsv"
    assert main([str(run_dir), str(tmp_path / f"rows.{suffix}"), "--out", str(out)]) == 0
    assert same(table(out), run_dir)
    accuracy = (RunRecord.read(run_dir).test or {})["accuracy"]
    said = capsys.readouterr().out
    assert f"accuracy {accuracy:.4f} (24 rows with labels)" in said
    assert f"24 rows to {out}" in said


def test_windows_and_kinds_of_output(
    run_dir: Path, toy_data: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    """The official file has no header line; windows are of four rows, batches of two."""
    monkeypatch.setattr(predict_rows, "_WINDOW", 2)
    outs = {suffix: tmp_path / f"out.{suffix}" for suffix in ("tsv", "csv", "jsonl")}
    for out in outs.values():
        command = [str(run_dir / "adapter"), str(toy_data / "test.tsv"), "--out", str(out)]
        assert main([*command, "--batch-size", "2"]) == 0
    rows = table(outs["tsv"])
    assert same(rows, run_dir)
    assert list(rows[0]) == ["index", "prediction", "label", "p(0)", "p(1)"]
    with outs["csv"].open(newline="") as file:
        assert list(csv.DictReader(file)) == rows
    records = [json.loads(line) for line in outs["jsonl"].read_text().splitlines()]
    assert [record["index"] for record in records] == list(range(24))
    assert all(
        record["p(0)"] == float(row["p(0)"]) for record, row in zip(records, rows, strict=True)
    )
    assert records[0]["prediction"] == rows[0]["prediction"]


def test_plain_lines_from_standard_input(
    run_dir: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    type_in(monkeypatch, "good film\n\nbad\tday\r\n")
    assert main([str(run_dir), "-"]) == 0
    found = capsys.readouterr()
    head, *rows = (line.split("\t") for line in found.out.splitlines())
    assert head == ["index", "prediction", "p(0)", "p(1)"]
    expected = Predictor(run_dir)(["good film", "", "bad\tday"])
    assert [row[1] for row in rows] == [p.label for p in expected]
    assert [float(row[2]) for row in rows] == pytest.approx(
        [p.probabilities["0"] for p in expected], abs=1e-6
    )
    assert "3 rows to standard output" in found.err


def test_json_from_standard_input_with_ids_and_labels(
    run_dir: Path, tmp_path: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    rows = [{"id": "a", "text": "good", "gold": "1"}, {"id": "a", "text": "bad", "gold": None}]
    type_in(monkeypatch, "".join(f"{json.dumps(row)}\n" for row in rows))
    out = tmp_path / "out.csv"
    command = [str(run_dir), "-", "--out", str(out), "--label-column", "gold"]
    assert main(command) == 0
    with out.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["id"] for row in found] == ["a", "a"]
    assert [row["label"] for row in found] == ["1", ""]
    assert "(1 row with labels)" in capsys.readouterr().out
    type_in(monkeypatch, '{"text": "good", "label": "of another task"}\n')
    assert main([str(run_dir), "-", "--label-column", ""]) == 0
    assert "with labels" not in capsys.readouterr().err


def test_a_shared_adapter_of_a_task_that_ships(
    checkpoints: dict[str, Path], tmp_path: Path, capsys: Capture
) -> None:
    """Official rows of COPA hold two candidates, of which one is predicted."""
    for split, count in (("train", 8), ("dev", 6), ("test", 6)):
        write_jsonl(tmp_path / "data" / f"{split}.jsonl", copa_rows(count))
    words = ("task.labels=['0','1']", "task.label_words=[bad,good]", "task=copa")
    changed = ("task.template='{premise} {link} {choice} <mask> .'", f"run_dir={tmp_path / 'run'}")
    run(configured(*toy_overrides(checkpoints, tmp_path / "data", "masked", *words, *changed)))
    written = table(tmp_path / "run" / "predictions.tsv")
    shared, out = tmp_path / "shared", tmp_path / "out.tsv"
    (tmp_path / "run" / "adapter").rename(shared)
    rows, model = str(tmp_path / "data" / "test.jsonl"), str(checkpoints["masked"])
    assert main([str(shared), rows, "--model", model, "--out", str(out)]) == 0
    names = ("index", "id", "group", "answer", "prediction", "label")
    assert [[r[n] for n in names] for r in table(out)] == [[r[n] for n in names] for r in written]
    accuracy = (RunRecord.read(tmp_path / "run").test or {})["accuracy"]
    assert f"accuracy {accuracy:.4f}" in capsys.readouterr().out


def test_a_regression(
    checkpoints: dict[str, Path], toy_data: Path, tmp_path: Path, capsys: Capture
) -> None:
    """Shared without its run: the metric is Pearson's r."""
    numbers = ("task.task_type=regression", "task.metric=pearson", f"run_dir={tmp_path / 'run'}")
    run(configured(*toy_overrides(checkpoints, toy_data, "masked", *numbers)))
    written = table(tmp_path / "run" / "predictions.tsv")
    shared, rows, out = tmp_path / "shared", tmp_path / "rows.tsv", tmp_path / "out.jsonl"
    (tmp_path / "run" / "adapter").rename(shared)
    rows.write_text("label\ttext\n" + (toy_data / "test.tsv").read_text())
    command = [str(shared), str(rows), "--model", str(checkpoints["masked"]), "--out", str(out)]
    assert main(command) == 0
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert list(found[0]) == ["index", "prediction", "label"]
    assert [float(row["prediction"]) for row in found] == pytest.approx(
        [float(row["prediction"]) for row in written], abs=1e-6
    )
    assert "pearson " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "messages"),
    [
        ("{run} {rows} --out {tmp}/x.xlsx", ["--out: {tmp}/x.xlsx", "a file name that ends in"]),
        ("{run} {rows} --out {tmp}/no/x.tsv", ["--out: {tmp}/no is no folder"]),
        ("{run} {rows} --out {tmp}/../{tmp.name}/rows.csv", ["rows.csv, which is the input"]),
        ("{run} {rows} --device gpu", ["device: gpu: no such device", "expected: cpu"]),
        ("{run} {rows} --dtype int8", ["dtype: int8"]),
        ("{run} {rows} --batch-size 0", ["--batch-size: 0"]),
        ("{run} {rows} --label-column gold", ["--label-column: no column gold (it has: text"]),
        ("{run} {rows} --model {tmp}", ["model.path: {tmp}"]),
        ("{run} {tmp}/absent.csv", ["{tmp}/absent.csv: No such file"]),
        ("{run} {tmp}/wrong.jsonl", ["no column text (it has: txt)", "give the column that name"]),
        ("{run} {tmp}/empty.csv", ["{tmp}/empty.csv: no rows"]),
        ("{run} {tmp}/mixed.jsonl", ["mixed.jsonl:2: 'text' is NaN", "mixed.jsonl:3: 'text' is a"]),
        ("{run} {tmp}/labels.csv", ["labels.csv:2: label 'neither'", "--label-column ''"]),
        ("{tmp} {rows}", ["adapter: {tmp}, which has no adapter.json"]),
        ("{tmp}/nothing {rows}", ["nothing, which is neither a local folder nor"]),
        ("{tmp} absent.csv", ["Found 2 problems", "adapter: {tmp}, ", "absent.csv: No such file"]),
        ("{tmp} {rows} --device gpu --dtype int8", ["Found 3 problems", "adapter: ", "device: "]),
    ],
)
def test_refused(
    command: str, messages: list[str], run_dir: Path, tmp_path: Path, capsys: Capture
) -> None:
    contents = {
        "rows.csv": "text,label\ngood,1\n",
        "wrong.jsonl": '{"txt": "good"}\n',
        "empty.csv": "text\n",
        "mixed.jsonl": '{"text": "good"}\n{"text": NaN}\n{"text": ["good"]}\n',
        "labels.csv": "text,label\ngood,neither\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    paths = {"run": run_dir, "tmp": tmp_path, "rows": tmp_path / "rows.csv"}
    assert main(command.format(**paths).split()) == USAGE_ERROR
    said = capsys.readouterr().err
    assert all(message.format(**paths) in said for message in messages)
    assert {path.name for path in tmp_path.iterdir()} == {*contents}


def test_a_late_fault_leaves_the_output_as_it_was(
    run_dir: Path, tmp_path: Path, monkeypatch: Patch, capsys: Capture
) -> None:
    monkeypatch.setattr(predict_rows, "_WINDOW", 1)
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.tsv"
    rows.write_text('{"text": "good"}\n' * 40 + "{\n")
    out.write_text("before")
    command = [str(run_dir), str(rows), "--batch-size", "8"]
    assert main([*command, "--out", str(out)]) == USAGE_ERROR
    assert f"{rows}:41: invalid JSON" in capsys.readouterr().err
    assert out.read_text() == "before"
    assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl", "out.tsv"}
    assert main(command) == USAGE_ERROR
    assert len(capsys.readouterr().out.splitlines()) == 41  # what was read before


def test_an_output_that_cannot_be_written(run_dir: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "rows.csv").write_text("text\ngood\n")
    assert main([str(run_dir), str(tmp_path / "rows.csv"), "--out", "/proc/out.tsv"]) == FAILURE
    assert "/proc/out.tsv: " in capsys.readouterr().err
