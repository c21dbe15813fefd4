"""From logits to label scores and to the training loss.

Shapes: E examples, U logit positions, N target tokens, S sequences, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lpt.models.inputs import IGNORE_INDEX, Batch


def sequence_losses(logits: Tensor, batch: Batch, count: int) -> Tensor:
    """Mean cross-entropy over the vocabulary of each sequence.

    Args:
        logits: (U, V).
        batch: Targets and the sequences that they belong to.
        count: Number of sequences S.

    Returns:
        (S,)
    """
    # Indexed instead of gathered per target: several targets may share one row of logits.
    log_likelihoods = logits.log_softmax(-1)[batch.target_to_logit, batch.targets.clamp(min=0)]
    losses = -log_likelihoods.masked_fill(batch.targets == IGNORE_INDEX, 0.0)
    total = losses.new_zeros(count).index_add(0, batch.sequences, losses)
    tokens = losses.new_zeros(count).index_add(0, batch.sequences, torch.ones_like(losses))
    return total / tokens


@dataclass(frozen=True)
class LabelScorer:
    """Scores each label, the higher the better, and computes the training loss.

    Masked models: the logit of the label word at the mask. Causal models: minus the mean token loss
    of the label part, as in the reference implementation.

    Args:
        kind: `masked` or `causal`.
        word_ids: Token of each label word.
        value_range: Ends of the range for a regression task, which the two label words stand for.
    """

    kind: str
    word_ids: list[int]
    value_range: tuple[float, float] | None = None

    @property
    def words_only(self) -> bool:
        """Whether scores need only the logits of the label words."""
        return self.kind == "masked"

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """Scores of a batch with the label parts of all labels: (E, labels).

        Args:
            logits: (U, labels) if `words_only`, else (U, V).
            batch: What the logits were computed from.
        """
        if self.words_only:
            return logits
        shape = len(batch.labels), len(self.word_ids)
        return -sequence_losses(logits, batch, shape[0] * shape[1]).view(shape)

    def loss(self, logits: Tensor, batch: Batch, over: str) -> Tensor:
        """Training loss, a scalar: cross-entropy over the `vocabulary` or over `label_words`.

        A causal batch holds only the right label's part for `vocabulary`, all parts for
        `label_words`. The regression target is the share of the second label word: the number's
        place in the value range (LM-BFF, Gao et al. 2021, section 4.2).

        Args:
            logits: (U, V), or (U, labels) for `label_words` if `words_only`.
            batch: What the logits were computed from.
            over: `vocabulary` or `label_words`.
        """
        if over == "label_words":
            target = batch.labels
            if self.value_range is not None:
                low, high = self.value_range
                share = (batch.labels - low) / (high - low)
                target = torch.stack([1 - share, share], dim=1)
            return nn.functional.cross_entropy(self(logits, batch), target)
        return sequence_losses(logits, batch, len(batch.labels)).mean()
