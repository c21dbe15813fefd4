"""What all methods share: a split model, the parameters that train, the way of a batch.

    input_ids ── lower ── h (B,T,D) ── upper ── logit positions ── head ── (U,V)

Shapes: B rows, T tokens, m prompt vectors, D hidden size, U logit positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lpt.data.examples import Examples
from lpt.data.templates import Encoder
from lpt.models.inputs import Batch
from lpt.models.scoring import LabelScorer
from lpt.models.split import SplitModel

Splitter = Callable[[PreTrainedModel, Mapping[str, nn.Parameter]], SplitModel]
"""Splits a language model at the layer of a method; the parameters are those of it that train."""

_LABEL_WORDS_COPY = "split.words_head."


class Method(nn.Module):
    """A split language model and what a method trains in it or beside it.

    A method that adds something to the upper pass overrides `upper_inputs`; one that has to be
    switched off for the language model as it was, `switched_off`; one that changes with the steps
    of the training, `start_training`, `after_step` and, for what a resumed run needs of it,
    `training_state`. See docs/add-a-method.md.

    Args:
        split: The language model, in which only parameters of `trainable` require a gradient.
        trainable: What is optimized, counted and saved, by the name that it is saved under.
        frozen_dropout: Which layers of the language model apply dropout in training: those `above`
            the split, `all` or `none`.
        position_shift: Positions in front of the text that the method takes, where the language
            model has absolute ones.
    """

    def __init__(
        self,
        split: SplitModel,
        trainable: Mapping[str, nn.Parameter],
        *,
        frozen_dropout: str = "above",
        position_shift: int = 0,
    ) -> None:
        super().__init__()
        assert frozen_dropout in ("above", "all", "none")
        self.split = split
        self.frozen_dropout = frozen_dropout
        self.position_shift = position_shift
        self._trainable = dict(trainable)

    demonstrations: tuple[str, ...] = ()
    """Texts in front of every text that the tuned model reads; saved with an adapter."""

    def trainable(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by name: what is optimized, counted and saved."""
        return dict(self._trainable)

    def tensors(self) -> dict[str, Tensor]:
        """What an adapter file holds, by name: the trainable parameters."""
        return dict(self._trainable)

    def save_config(self, folder: Path, base_model: str | None) -> None:
        """Write what other libraries need to load the adapter file; by default nothing.

        Args:
            folder: The folder of the adapter.
            base_model: Hub id of the language model; None for another source.
        """

    @torch.no_grad()
    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the content of an adapter file into the model.

        Raises:
            ValueError: Names, shapes or types differ from those of `tensors()`.
        """
        own = self.tensors()
        expected, found = (
            {(name, tuple(t.shape), str(t.dtype)) for name, t in content.items()}
            for content in (own, tensors)
        )
        if expected != found:
            different = sorted({name for name, *_ in expected ^ found})
            more = f" and {len(different) - 3} more" if len(different) > 3 else ""
            raise ValueError(f"other tensors: {', '.join(different[:3])}{more}")
        for name, tensor in own.items():
            tensor.copy_(tensors[name])

    def train(self, mode: bool = True) -> Self:
        """Training mode for what is trained and for the layers that apply dropout."""
        super().train(mode)
        for head in (self.split.head, self.split.words_head):
            if head is not None:
                head.eval()  # first, because it may share the embeddings with `lower`
        if self.split.lower is not None:
            below = self.split.lower_trains and self.frozen_dropout != "none"
            self.split.lower.train(mode and (below or self.frozen_dropout == "all"))
        self.split.upper.train(mode and self.frozen_dropout != "none")
        return self

    def count_parameters(self) -> dict[str, int]:
        """Number of trainable and of all parameters.

        Shared parameters count once, and the copied rows of the label words do not count: the total
        is that of the transformers model and of what the method adds.
        """
        counted = {
            name: parameter
            for name, parameter in self.named_parameters()
            if not name.startswith(_LABEL_WORDS_COPY)
        }
        return {
            "trainable": sum(p.numel() for p in self.trainable().values()),
            "total": sum(p.numel() for p in counted.values()),
        }

    def upper_inputs(self, hidden: Tensor, batch: Batch) -> dict[str, Any]:
        """Further arguments of `SplitModel.forward_upper`, from the hidden states (B, T, D)."""
        return {}

    def read_train(self, encoder: Encoder, train: Examples, seed: int) -> None:
        """Take from the training set what is not trained; by default nothing.

        Args:
            encoder: Renders its rows.
            train: The training set.
            seed: The seed of the data.
        """

    def encoder(self, plain: Encoder) -> Encoder:
        """What renders rows for the tuned model, if nothing trains; `plain` for another one."""
        return plain

    def scorer(self, plain: LabelScorer) -> LabelScorer:
        """What scores the labels from the tuned model's logits; `plain` for a language model."""
        return plain

    def switched_off(self) -> AbstractContextManager[None]:
        """While it is entered, the model computes what it did before the method was put in."""
        return nullcontext()

    def start_training(self, total_steps: int) -> None:
        """Called once before the training, with its number of optimizer steps."""

    def after_step(self, step: int) -> None:
        """Called after each optimizer step, from 1, while parameters still have its gradients.

        These are the same on all ranks, so what is computed from them is too.
        """

    def regularization(self) -> Tensor | float:
        """What is added to the loss of each optimizer step."""
        return 0.0

    def training_state(self) -> dict[str, Any]:
        """Besides the parameters, what a checkpoint needs for an exact resume."""
        return {}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Go on from the `training_state` of a checkpoint."""

    def forward(self, batch: Batch, *, tuned: bool = True, words_only: bool = False) -> Tensor:
        """Logits at the logit positions in float32: (U, V), or (U, labels) with `words_only`.

        `tuned=False` gives the language model without the method (the zero-shot baseline); weights
        of its own that a method has changed stay changed.
        """
        with nullcontext() if tuned else self.switched_off():
            # The head is the widest matrix product of all: it runs at the logit positions only.
            positions = (batch.logit_rows, batch.logit_positions)
            final = self.final_states(batch, positions, tuned=tuned)
            return self.split.logits(final, words_only=words_only).float()

    def final_states(
        self, batch: Batch, positions: tuple[Tensor, Tensor], *, tuned: bool = True
    ) -> Tensor:
        """Final hidden states at distinct rows and tokens, (U,) each: (U, D)."""
        hidden = batch.hidden
        if hidden is None:
            hidden = self.split.forward_lower(
                batch.input_ids,
                batch.attention_mask,
                batch.branches,
                position_shift=self.position_shift if tuned else 0,
            )
        return self.split.forward_upper(
            hidden,
            batch.attention_mask,
            branches=batch.branches,
            positions=positions,
            **(self.upper_inputs(hidden, batch) if tuned else {}),
        )
