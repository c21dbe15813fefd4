"""Text as it comes, in every file format, through whole runs."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import PreTrainedTokenizerFast

from lpt.data.tables import read_table
from lpt.data.templates import Encoder, Template
from lpt.experiment import run
from tests.conftest import MakeConfig
from tests.support.hostile import BREAKS, HOSTILE, LONG, LONGEST, SPECIAL
from tests.support.tokenizers import causal, longest, roberta_like, wordpiece

Rows = Sequence[tuple[str, str]]  # labels and texts
GOOD = ["a good film", "bad food"]


def write_tsv(path: Path, rows: Rows) -> None:
    lines = [f"{label}\t{text}" for label, text in (("label", "text"), *rows)]
    path.write_bytes("\n".join(lines).encode() + b"\n")


def write_csv(path: Path, rows: Rows) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("label", "text"), *rows])


def write_jsonl(path: Path, rows: Rows) -> None:
    lines = [json.dumps({"label": label, "text": text}) for label, text in rows]
    path.write_text("\n".join(lines), encoding="utf-8")


def write_parquet(path: Path, rows: Rows) -> None:
    columns = dict(zip(("label", "text"), map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table(columns), path)


WRITERS: dict[str, Callable[[Path, Rows], None]] = {
    "tsv": write_tsv,
    "csv": write_csv,
    "jsonl": write_jsonl,
    "parquet": write_parquet,
}


def texts_of(suffix: str) -> list[str]:
    """All that a file of that kind can hold."""
    hostile = [*HOSTILE.values(), *SPECIAL, *(text[:5000] for text in LONGEST.values())]
    breaks = [LONGEST["words"], *BREAKS.values()]
    return [*GOOD, *hostile, *(b for b in breaks if suffix != "tsv" or not {*b} & {*"\t\n\r"})]


@pytest.mark.parametrize(
    ("suffix", "model"),
    [("tsv", "masked"), ("csv", "causal"), ("jsonl", "masked"), ("parquet", "causal")],
)
def test_a_run_answers_each_example_on_a_line(
    toy: MakeConfig, tmp_path: Path, suffix: str, model: str
) -> None:
    texts = texts_of(suffix)
    rows = [(str(i % 2), text) for i, text in enumerate(texts)]
    folder = tmp_path / "data"
    folder.mkdir()
    for split in ("train", "dev", "test"):
        WRITERS[suffix](folder / f"{split}.{suffix}", rows)
    assert list(read_table(folder / f"test.{suffix}").columns["text"]) == texts
    metrics = run(toy(model, f"data.path={folder}", "trainer.max_steps=2"))
    assert metrics is not None
    written = (tmp_path / "run" / "predictions.tsv").read_bytes().decode()
    header, *lines = written.removesuffix("\n").split("\n")
    assert header == "index\tprediction\tlabel"
    answers = [line.split("\t") for line in lines]
    assert [(index, label) for index, _, label in answers] == [
        (str(i), label) for i, (label, _) in enumerate(rows)
    ]
    assert {prediction for _, prediction, _ in answers} <= {"0", "1"}
    assert len(written.splitlines()) == len(texts) + 1


def test_ids_and_labels_stay_on_their_line(toy: MakeConfig, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    ids = [*HOSTILE.values(), *BREAKS.values()]
    labels = ["b\u2028ad", "g\tood"]
    records = [{"id": of, "label": labels[i % 2], "text": "a"} for i, of in enumerate(ids)]
    for split in ("train", "dev", "test"):
        content = "\n".join(map(json.dumps, records))
        (folder / f"{split}.jsonl").write_text(content, encoding="utf-8")
    config = toy("masked", f"data.path={folder}", "trainer.max_steps=2", "task.id_columns=[id]")
    config.task.labels = labels
    run(config)
    written = (tmp_path / "run" / "predictions.tsv").read_bytes().decode()
    rows = [line.split("\t") for line in written.splitlines()]
    assert rows[0] == ["index", "id", "prediction", "label"]
    assert {len(row) for row in rows} == {4}
    assert [row[0] for row in rows[1:]] == [str(i) for i in range(len(ids))]


@pytest.mark.parametrize("name", LONGEST)
@pytest.mark.parametrize(
    ("make", "template"),
    [(wordpiece, "{a} <mask>"), (roberta_like, "{a} <mask>"), (causal, "{a} {word}")],
)
def test_a_long_line_is_shortened_at_once(
    make: Callable[[], PreTrainedTokenizerFast], template: str, name: str
) -> None:
    """Tokenizing is what takes time, three times; cutting takes less than that."""
    tokenizer = make()
    kind = "causal" if "{word}" in template else "masked"
    parsed = Template.parse(template, "causal" if kind == "causal" else "masked")
    encoder = Encoder(tokenizer, parsed, ["great", "bad"], 64)
    text = LONGEST[name]
    assert len(text) >= LONG - 10
    started = time.perf_counter()
    tokenizer(text, verbose=False)
    tokenizing = time.perf_counter() - started
    started = time.perf_counter()
    encoded = encoder.encode({"a": [text]})
    assert time.perf_counter() - started < 0.5 + 10 * tokenizing
    assert longest(encoded, 0) <= 64
