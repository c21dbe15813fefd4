"""A trained adapter as a function from rows of text to labels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.fabric.utilities import move_data_to_device
from transformers import PreTrainedTokenizerBase

from lpt.data.batching import Collator, eval_batches
from lpt.data.examples import UNKNOWN
from lpt.data.packing import PackedTokens, tokenize
from lpt.data.tasks import format_label
from lpt.data.templates import Encoder, Template
from lpt.data.verbalizer import label_word_ids
from lpt.errors import Problems
from lpt.models.scoring import LabelScorer
from lpt.runs.adapter import AdapterDescription, find_adapter_backbone, load_adapter
from lpt.training.evaluation import decide
from lpt.training.metrics import Predictions, gather_predictions

_SURROGATE = re.compile(r"[\ud800-\udfff]")  # half a character, which no tokenizer takes


class Prediction(NamedTuple):
    """The prediction for one row.

    Attributes:
        label: Label as written in the training data; a number for a regression task. Of competing
            candidates (multiple choice), choose the one whose second label has the largest margin.
        scores: Score of each label, the higher the better.
    """

    label: str
    scores: dict[str, float]


class Predictor:
    """Renders, tokenizes and scores rows as the training run did.

    Args:
        folder: The `adapter/` folder of a run; its backbone is loaded as well.
        device: Where the model runs, as torch names it: `cpu`, `cuda`.
        model: Local folder or Hub id of the backbone, if the adapter was trained on one in a local
            folder and is no longer in the folder of its run.

    Raises:
        ConfigError: The folder holds no adapter, or its backbone cannot be loaded.
    """

    def __init__(
        self, folder: Path | str, device: str = "cpu", model: Path | str | None = None
    ) -> None:
        task = AdapterDescription.read(Path(folder)).task
        tokenizer = find_adapter_backbone(folder, model).tokenizer
        self.device = torch.device(device)
        self.labels = task.labels
        template = Template.parse(task.template, task.kind)
        self.word_ids = label_word_ids(tokenizer, task.label_words, template)
        self.value_range = task.value_range
        self.model = load_adapter(folder, model, word_ids=self.word_ids).to(self.device)
        plain = Encoder(tokenizer, template, task.label_words, task.max_length)
        self.encoder = self.model.encoder(plain)
        self.scorer = self.model.scorer(LabelScorer(task.kind, self.word_ids))

    @torch.no_grad()
    def __call__(self, rows: Sequence[Mapping[str, str]], batch_size: int = 32) -> list[Prediction]:
        """Predictions for rows, in order; several threads may call it at once.

        Args:
            rows: Text by column; other columns than the template's are ignored.
            batch_size: Rows per batch.

        Raises:
            ConfigError: A row lacks a column of the template, has no text in it, or has a token
                that the tokenizer knows and the model does not.
        """
        names = self.encoder.template.columns
        _check_rows(rows, names)
        if not rows:
            return []
        packed = tokenize(self.encoder, {name: [row[name] for row in rows] for name in names})
        _check_tokens(packed, self.encoder.tokenizer, self.model.split.config.vocab_size)
        unknown = [UNKNOWN] * len(rows)
        collate = Collator(packed, unknown, range(len(rows)), self.word_ids, score_all=True)
        batches = []
        for examples in eval_batches(packed.row_lengths(), batch_size):
            batch = move_data_to_device(collate(examples), self.device)
            logits = self.model(batch, words_only=self.scorer.words_only)
            batches.append(Predictions(batch.row_ids, self.scorer(logits, batch)))
        scores = gather_predictions(batches).scores
        task_type = "regression" if self.value_range else "classification"
        predicted = decide(task_type, scores, self.value_range)
        return [
            Prediction(
                format_label(value, self.labels),
                dict(zip(self.labels, row_scores, strict=True)),
            )
            for value, row_scores in zip(predicted.tolist(), scores.tolist(), strict=True)
        ]


def _check_rows(rows: Any, names: Sequence[str]) -> None:
    expected = f"a list of rows, each with text in {', '.join(names)}"
    problems = Problems()
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        problems.add("rows", f"a {type(rows).__name__}", expected)
        problems.raise_if_any()
    with problems.rows("rows") as bad_rows:
        for number, row in enumerate(rows):
            if not isinstance(row, Mapping):
                bad_rows.add(f"rows[{number}]", f"a {type(row).__name__}", expected)
                continue
            for name in names:
                if not isinstance(row.get(name), str) or _SURROGATE.search(row[name]):
                    given = f"{row[name]!r}, which is no text" if name in row else "no such column"
                    bad_rows.add(f"rows[{number}].{name}", given, expected)
    problems.raise_if_any()


def _check_tokens(packed: PackedTokens, tokenizer: PreTrainedTokenizerBase, size: int) -> None:
    problems = Problems()
    with problems.rows("rows") as bad_rows:
        for token_id, rows in packed.examples_beyond(size).items():
            given = f"{tokenizer.convert_ids_to_tokens(token_id)!r} has the id {token_id}"
            for row in rows:
                expected = f"ids below {size}, the size of the model's embedding"
                bad_rows.add(f"rows[{row}]", given, expected)
    problems.raise_if_any()
