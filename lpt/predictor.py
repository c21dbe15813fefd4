"""A trained adapter as a function from rows of text to labels; several on one backbone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lpt.data.batching import Collator, eval_batches
from lpt.data.examples import UNKNOWN
from lpt.data.packing import PackedTokens, tokenize
from lpt.data.row_texts import text_columns
from lpt.data.tasks import format_label
from lpt.data.templates import Encoder, Template
from lpt.data.verbalizer import label_word_ids
from lpt.errors import Problems
from lpt.methods.base import Method
from lpt.methods.registry import BESIDE_THE_MODEL
from lpt.models.scoring import LabelScorer
from lpt.runs.adapter import (
    AdapterDescription,
    TaskDescription,
    describe_task,
    find_adapter_backbone,
    load_adapter,
    load_adapter_backbone,
)
from lpt.runs.environment import check_device
from lpt.runs.find_adapter import find_adapter
from lpt.training.evaluation import decide
from lpt.training.plan import Plan

BATCH_SIZE = 32


class Prediction(NamedTuple):
    """The prediction for one row.

    Attributes:
        label: Label as written in the training data; a number for a regression task. Of competing
            candidates (multiple choice), choose the one whose second label has the largest margin.
        scores: Score of each label, the higher the better: the logit of its word (masked models) or
            minus the mean token loss of its part (causal models).
        probabilities: Probability of each label: the softmax of the scores.
    """

    label: str
    scores: dict[str, float]
    probabilities: dict[str, float]


class Predictor:
    """Renders, tokenizes and scores rows as the training run did; several threads may share it.

    Rows are a list, a pandas DataFrame or a `datasets.Dataset`. Those of a list are dicts, text by
    column; or the texts themselves if the template has one column. Columns that the template lacks
    are ignored.

    Args:
        source: Folder of an adapter or of its run, or a Hub id; see `find_adapter`.
        device: Where the model runs, as torch names it: `cpu`, `cuda`, `cuda:1`.
        model: The backbone: its folder, its Hub id or the loaded model, which is changed unless the
            method is a late prompt, a prefix or a head. Needed if the adapter was trained on one in
            a local folder and is no longer in the folder of its run.
        dtype: `float32`, `bfloat16` or `float16` to run the backbone in; None: as in training.

    Raises:
        ConfigError: There is no adapter or no such device, or the backbone cannot be loaded.
    """

    def __init__(
        self,
        source: Path | str,
        device: str = "cpu",
        model: PreTrainedModel | Path | str | None = None,
        *,
        dtype: str | None = None,
    ) -> None:
        check_device(device, dtype)
        folder = find_adapter(source)
        task = AdapterDescription.read(folder).task
        tokenizer = find_adapter_backbone(folder, model).tokenizer
        template = Template.parse(task.template, task.kind)
        word_ids = label_word_ids(tokenizer, task.label_words, template)
        self._set(task, tokenizer, load_adapter(folder, model, word_ids=word_ids))
        self._move(device, dtype)

    @classmethod
    def of_model(cls, plan: Plan, model: Method) -> Predictor:
        """The predictor of a trained model at hand, and of the plan of its run."""
        predictor = cls.__new__(cls)
        task = describe_task(plan.config, plan.task)
        predictor._set(task, plan.backbone.tokenizer, model.eval())
        return predictor

    def _set(
        self, task: TaskDescription, tokenizer: PreTrainedTokenizerBase, model: Method
    ) -> None:
        template = Template.parse(task.template, task.kind)
        self.labels = task.labels
        self.value_range = task.value_range
        self.word_ids = label_word_ids(tokenizer, task.label_words, template)
        self.model = model
        plain = Encoder(tokenizer, template, task.label_words, task.max_length)
        self.encoder = model.encoder(plain)
        self.scorer = model.scorer(LabelScorer(task.kind, self.word_ids))
        self.device = next(model.parameters()).device

    @staticmethod
    def many(
        sources: Mapping[str, Path | str],
        device: str = "cpu",
        model: Path | str | None = None,
        *,
        dtype: str | None = None,
    ) -> Predictors:
        """Predictors of several adapters, of which those on the same backbone share it.

        `sources` has each by its name; the other arguments are those of `Predictor`, for all.

        Raises:
            ConfigError: As of `Predictor`.
        """
        check_device(device, dtype)
        predictors = Predictors()
        for name, source in sources.items():
            predictors.load(name, source, model)
        for predictor in predictors.values():  # after the fingerprints were compared
            predictor._move(device, dtype)
        return predictors

    def _move(self, device: str, dtype: str | None) -> None:
        if dtype is not None:
            for parameter in self.model.split.parameters():
                parameter.data = parameter.data.to(getattr(torch, dtype))
        self.to(device)

    def to(self, device: str) -> Self:
        """Move the model to a device."""
        self.device = check_device(device)
        self.model.to(self.device)
        return self

    def __call__(self, rows: Any, batch_size: int = BATCH_SIZE) -> list[Prediction]:
        """Label, scores and probabilities of each row, in order.

        Args:
            rows: See `Predictor`.
            batch_size: Rows per batch; batches are of rows of similar length.

        Raises:
            ConfigError: A row lacks a column of the template, has no text in it, or has a token
                that the tokenizer knows and the model does not.
        """
        return self._predictions(self._scores(rows, batch_size))

    def predict(self, rows: Any, batch_size: int = BATCH_SIZE) -> list[str] | list[float]:
        """The label of each row; of a regression task, the number. See `__call__`."""
        decided = self._decide(self._scores(rows, batch_size)).tolist()
        return decided if self.value_range else [self.labels[index] for index in decided]

    def predict_proba(self, rows: Any, batch_size: int = BATCH_SIZE) -> np.ndarray:
        """Probability of each label, (rows, labels) in the order of `labels`; see `__call__`."""
        return self._scores(rows, batch_size).double().softmax(1).numpy()

    def score(
        self,
        columns: Mapping[str, Sequence[str]],
        batch_size: int = BATCH_SIZE,
        location: Callable[[int], str] = "rows[{}]".format,
    ) -> Tensor:
        """Label scores of rows given as texts by column, (rows, labels) in float32 on the CPU.

        `location` names a row in messages.
        """
        [scores] = _score([self], columns, batch_size, location)
        return scores

    def _scores(self, rows: Any, batch_size: int) -> Tensor:
        return self.score(text_columns(rows, self.encoder.template.columns), batch_size)

    def _decide(self, scores: Tensor) -> Tensor:
        task_type = "regression" if self.value_range else "classification"
        return decide(task_type, scores, self.value_range)

    def _predictions(self, scores: Tensor) -> list[Prediction]:
        predicted = self._decide(scores).tolist()
        tables = scores.tolist(), scores.double().softmax(1).tolist()
        return [
            Prediction(
                format_label(value, self.labels),
                dict(zip(self.labels, row_scores, strict=True)),
                dict(zip(self.labels, shares, strict=True)),
            )
            for value, row_scores, shares in zip(predicted, *tables, strict=True)
        ]


class Predictors(dict[str, Predictor]):
    """Predictors by name, called together; where rows render alike, one lower pass serves all.

    That is so for adapters beside the same backbone with the same template (of a causal model, also
    the same label words), whatever their layers; others are called one by one.
    """

    def __init__(self) -> None:
        self._backbones: dict[tuple[str, str], PreTrainedModel] = {}

    def load(self, name: str, source: Path | str, model: Path | str | None = None) -> None:
        """Add a predictor, on the CPU, or replace it when the files of its adapter have changed.

        A `ConfigError`, as of `Predictor`, leaves the predictors as they are.
        """
        description = AdapterDescription.read(find_adapter(source))
        key = description.backbone.fingerprint, description.backbone.attention
        shared = description.method.name in BESIDE_THE_MODEL
        if shared and key not in self._backbones:
            self._backbones[key] = load_adapter_backbone(source, model)
        self[name] = Predictor(source, model=self._backbones[key] if shared else model)

    def __call__(self, rows: Any, batch_size: int = BATCH_SIZE) -> dict[str, list[Prediction]]:
        """The predictions of each for the same rows; see `Predictor.__call__`."""
        groups: dict[Any, list[str]] = {}
        for name, predictor in self.items():
            groups.setdefault(_shared_pass(predictor), []).append(name)
        found: dict[str, list[Prediction]] = {}
        for names in groups.values():
            members = [self[name] for name in names]
            columns = text_columns(rows, members[0].encoder.template.columns)
            scores = _score(members, columns, batch_size, "rows[{}]".format)
            for name, predictor, of_one in zip(names, members, scores, strict=True):
                found[name] = predictor._predictions(of_one)
        return {name: found[name] for name in self}

    def to(self, device: str) -> Self:
        """Move all models to a device."""
        for predictor in self.values():
            predictor.to(device)
        return self


def _shared_pass(predictor: Predictor) -> Any:
    """What predictors have in common that can share the lower pass over their rows."""
    model, encoder = predictor.model, predictor.encoder
    embeddings = model.split.lower.get_input_embeddings() if model.split.lower else None
    if model.position_shift or embeddings is None or model.demonstrations:
        return id(predictor)
    words = tuple(encoder.label_words) if encoder.template.kind == "causal" else ()
    return id(embeddings), encoder.template, words, encoder.max_length


@torch.no_grad()
def _score(
    predictors: Sequence[Predictor],
    columns: Mapping[str, Sequence[str]],
    batch_size: int,
    location: Callable[[int], str],
) -> list[Tensor]:
    """Label scores of the same rows by predictors that render them alike, (rows, labels) each."""
    first = predictors[0]
    count = len(columns[first.encoder.template.columns[0]])
    if not count:
        return [torch.zeros(0, len(predictor.labels)) for predictor in predictors]
    packed = tokenize(first.encoder, columns)
    _check_tokens(packed, first, location)
    collate = Collator(packed, [UNKNOWN] * count, range(count), first.word_ids, score_all=True)
    layers = [predictor.model.split.layer for predictor in predictors]
    found: list[list[Tensor]] = [[] for _ in predictors]
    for examples in (batches := eval_batches(packed.row_lengths(), batch_size)):
        batch = move_data_to_device(collate(examples), first.device)
        hidden: Mapping[int, Tensor | None] = dict.fromkeys(layers)
        if len(predictors) > 1:
            inputs = batch.input_ids, batch.attention_mask, batch.branches
            hidden = first.model.split.forward_lower_layers(layers, *inputs)
        for predictor, layer, scores in zip(predictors, layers, found, strict=True):
            own = batch._replace(hidden=hidden[layer])
            logits = predictor.model(own, words_only=predictor.scorer.words_only)
            scores.append(predictor.scorer(logits, own))
    order = torch.tensor([row for examples in batches for row in examples]).argsort()
    return [torch.cat(scores).float().cpu()[order] for scores in found]


def _check_tokens(
    packed: PackedTokens, predictor: Predictor, location: Callable[[int], str]
) -> None:
    size, tokenizer = predictor.model.split.config.vocab_size, predictor.encoder.tokenizer
    problems = Problems()
    with problems.rows("rows") as bad_rows:
        for token_id, rows in packed.examples_beyond(size).items():
            given = f"{tokenizer.convert_ids_to_tokens(token_id)!r} has the id {token_id}"
            for row in rows:
                expected = f"ids below {size}, the size of the model's embedding"
                bad_rows.add(location(row), given, expected)
    problems.raise_if_any()
