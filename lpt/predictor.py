"""A trained prompt as a function from rows of text to labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from lpt.artifact import find_adapter_backbone, load_adapter, read_description
from lpt.data.batching import Collator, eval_batches
from lpt.data.packing import PackedTokens
from lpt.data.tasks import UNKNOWN
from lpt.data.templates import Encoder, Template
from lpt.metrics import PredictionStore
from lpt.models.late_prompt import LabelScorer
from lpt.models.verbalizer import word_ids


class Prediction(NamedTuple):
    """The answer to one row.

    Attributes:
        label: As it stood in the training data.
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
        self.labels: list[str] = task["labels"]
        self.ids = word_ids(tokenizer, task["words"])
        template = Template.parse(task["template"], task["kind"])
        self.encoder = Encoder(tokenizer, template, task["words"], task["max_length"])
        self.scorer = LabelScorer(task["kind"], self.ids)
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
            store.update(batch.index, batch.labels, self.scorer(logits, batch))
        predictions = store.gather()
        return [
            Prediction(self.labels[best], dict(zip(self.labels, scores, strict=True)))
            for best, scores in zip(
                predictions.predicted.tolist(), predictions.scores.tolist(), strict=True
            )
        ]
