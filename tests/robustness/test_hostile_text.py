"""Text as people, scrapers and programs leave it, through whole runs."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from lpt.data.tables import read_table
from lpt.data.templates import Encoder, Template
from lpt.experiment import run
from tests.conftest import MakeConfig
from tests.support.hostile import BREAKS, HOSTILE, LONG, LONGEST, SPECIAL
from tests.support.tokenizers import longest, tokenizer_named
from tests.support.trained import table

SPLITS = ("train", "dev", "test")
TEXTS = [*HOSTILE.values(), *SPECIAL, *(text[:5000] for text in LONGEST.values())]
LABELS = ["b\u2028ad", "g\tood"]


def write_splits(folder: Path, name: str, lines: list[str]) -> None:
    folder.mkdir()
    for split in SPLITS:
        content = "".join(f"{line}\n" for line in lines)
        (folder / f"{split}.{name}").write_text(content, encoding="utf-8", newline="")


def test_one_line_of_predictions_per_line_of_text(toy: MakeConfig, tmp_path: Path) -> None:
    lines = ["label\ttext", *(f"{i % 2}\t{text}" for i, text in enumerate(TEXTS))]
    folder = tmp_path / "data"
    write_splits(folder, "tsv", lines)
    assert list(read_table(folder / "test.tsv").columns["text"]) == TEXTS
    run(toy("masked", f"data.path={folder}", "trainer.max_steps=2"))
    rows = table(tmp_path / "run" / "predictions.tsv")
    assert list(rows[0]) == ["index", "prediction", "label", "p(0)", "p(1)", "text"]
    expected = [(str(i), str(i % 2)) for i in range(len(TEXTS))]
    assert [(row["index"], row["label"]) for row in rows] == expected
    assert {row["prediction"] for row in rows} <= {"0", "1"}


def test_texts_ids_and_labels_stay_on_their_line(toy: MakeConfig, tmp_path: Path) -> None:
    texts = [*TEXTS, *BREAKS.values()]
    rows = [{"id": text, "label": LABELS[i % 2], "text": text} for i, text in enumerate(texts)]
    write_splits(tmp_path / "data", "jsonl", list(map(json.dumps, rows)))
    path = f"data.path={tmp_path / 'data'}"
    config = toy("causal", path, "trainer.max_steps=2", "task.id_columns=[id]")
    config.task.labels = LABELS
    run(config)
    written = table(tmp_path / "run" / "predictions.tsv")
    assert list(written[0])[:4] == ["index", "id", "prediction", "label"]
    assert list(written[0])[4:] == ["p(b ad)", "p(g ood)", "text"]
    assert [row["index"] for row in written] == [str(i) for i in range(len(texts))]


@pytest.mark.parametrize("name", LONGEST)
@pytest.mark.parametrize("tokenizer_name", ["wordpiece", "roberta", "causal"])
def test_long_texts_are_truncated_quickly(tokenizer_name: str, name: str) -> None:
    """Tokenizing dominates, three times; cutting takes less than that."""
    tokenizer = tokenizer_named(tokenizer_name)
    masked, causal = Template.parse("{a} <mask>", "masked"), Template.parse("{a} {word}", "causal")
    template = masked if tokenizer.mask_token else causal
    encoder = Encoder(tokenizer, template, ["great", "bad"], 64)
    assert len(LONGEST[name]) >= LONG - 10
    started = time.perf_counter()
    tokenizer(LONGEST[name], verbose=False)
    tokenizing = time.perf_counter() - started
    started = time.perf_counter()
    encoded = encoder.encode({"a": [LONGEST[name]]})
    assert time.perf_counter() - started < 0.5 + 10 * tokenizing
    assert longest(encoded, 0) <= 64
