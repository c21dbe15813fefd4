"""A trained prompt as a function from rows of text to labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from lpt.data.batching import Collator, eval_batches
from lpt.data.packing import PackedTokens
from lpt.data.tasks import UNKNOWN, shown
from lpt.data.templates import Encoder, Template
from lpt.data.verbalizer import word_ids
from lpt.methods.late_prompt import LabelScorer
from lpt.runs.adapter import find_adapter_backbone, load_adapter, read_description
from lpt.training.evaluation import decide
from lpt.training.metrics import PredictionStore


class Prediction(NamedTuple):
    """The answer to one row.

    Attributes:
        label: As it stood in the training data; a number for a task whose answers are numbers. Of
            candidates that compete, the one whose second label leads by most is the answer.
        scores: Score of each label, the higher the better.
    """

    label: str
    scores: dict[str, float]


class Predictor:
    """Renders, tokenizes and scores rows as the training did.

    Args:
        folder: An adapter that a run left; its backbone is loaded, too.

    Raises:
        ConfigError: The folder is no adapter, or its backbone cannot be loaded.
    """

    def __init__(self, folder: Path | str) -> None:
        description = read_description(Path(folder))
        task = description.task
        tokenizer = find_adapter_backbone(description.backbone).tokenizer
        self.labels: list[str] = task.labels
        self.ids = word_ids(tokenizer, task.label_words)
        template = Template.parse(task.template, task.kind)
        self.encoder = Encoder(tokenizer, template, task.label_words, task.max_length)
        self.scorer = LabelScorer(task.kind, self.ids)
        self.value_range = task.value_range
        self.model = load_adapter(folder, word_ids=self.ids)

    @torch.no_grad()
    def __call__(self, rows: Sequence[Mapping[str, str]], batch_size: int = 32) -> list[Prediction]:
        """Predictions of rows that have the template's columns, in their order."""
        if not rows:
            return []
        columns = {name: [row[name] for row in rows] for name in self.encoder.template.columns}
        encoded = self.encoder.encode(columns)
        unknown = [UNKNOWN] * len(rows)
        packed = PackedTokens(encoded, self.encoder.pad_id)
        collate = Collator(packed, unknown, range(len(rows)), self.ids, score_all=True)
        store = PredictionStore()
        for batch in map(collate, eval_batches(packed.row_lengths().tolist(), batch_size)):
            logits = self.model(batch, words_only=self.scorer.words_only)
            store.update(batch.row_ids, self.scorer(logits, batch))
        scores = store.gather().scores
        answers = decide(
            "regression" if self.value_range else "classification", scores, self.value_range
        )
        names = [shown(answer, self.labels, self.value_range) for answer in answers.tolist()]
        return [
            Prediction(name, dict(zip(self.labels, of, strict=True)))
            for name, of in zip(names, scores.tolist(), strict=True)
        ]
