"""The model of the paper: a frozen split language model and the one part that is trained.

    input_ids ── below ──┬─────────────┐
                    h (B,T,D)    concat (B,m+T,D) ── above ── scored positions ── head ── (U,V)
                         └─ generator ─┘ prompt (B,m,D)

Shapes: B rows, T tokens, m prompt vectors, D hidden size, U scored positions, N targets, V
vocabulary, E examples.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from lpt.models.generators import PromptGenerator
from lpt.models.split import Branches, SplitModel

IGNORED = -100


class Batch(NamedTuple):
    """Rows of text and the positions in them that are scored.

    A masked example is a row with one scored position, the mask. A causal example is a row with the
    context and, side by side, the label part of each label that is to be scored; the tokens of the
    label parts are scored. Indices refer to the unprompted text; the model shifts them by m.

    Attributes:
        input_ids: (B, T) token ids, padded on the right.
        attention_mask: (B, T), 1 for real tokens.
        summary_index: (B,) token that a naive generator reads.
        pool_length: (B,) leading tokens that a pooling generator reads.
        rows: (U,) row of each scored position; no two positions are the same.
        positions: (U,) token whose output is scored.
        scored: (N,) the scored position that predicts each target. The first tokens of all label
            parts are predicted by the same one, the last of the context.
        targets: (N,) the token to be predicted; -100 where the label is unknown.
        sequences: (N,) the scored sequence it belongs to: numbered through the batch, a masked
            example or one label part of a causal one each.
        labels: (E,) label index of each example, or its number; -1 unknown.
        row_ids: (E,) row id of each example in its source.
        branches: Where rows hold several label parts.
        hidden: (B, T, D) hidden states in front of the prompt layer, where they are known already.
        places: (B, T) where to find them, as long as `hidden` is not filled in.
    """

    input_ids: Tensor
    attention_mask: Tensor
    summary_index: Tensor
    pool_length: Tensor
    rows: Tensor
    positions: Tensor
    scored: Tensor
    targets: Tensor
    sequences: Tensor
    labels: Tensor
    row_ids: Tensor
    branches: Branches | None = None
    hidden: Tensor | None = None
    places: Tensor | None = None


class LatePrompt(nn.Module):
    """A frozen split model with a prompt that enters at `split.layer`.

    Args:
        split: The frozen language model.
        generator: Makes the prompt; its parameters are the only ones that train.
        prompt_dropout: Rate on the finished prompt, in training.
        frozen_dropout: Which frozen layers drop out in training: `above`, `all` or `none`.
    """

    def __init__(
        self,
        split: SplitModel,
        generator: PromptGenerator,
        *,
        prompt_dropout: float = 0.0,
        frozen_dropout: str = "above",
    ) -> None:
        super().__init__()
        assert frozen_dropout in ("above", "all", "none")
        self.split = split
        self.generator = generator
        self.prompt_dropout = nn.Dropout(prompt_dropout)
        self.frozen_dropout = frozen_dropout

    def train(self, mode: bool = True) -> Self:
        """Training mode for the prompt and for those frozen layers that are to drop out."""
        super().train(mode)
        for head in (self.split.head, self.split.words_head):
            if head is not None:
                head.eval()  # first: it may share the embeddings with `below`
        if self.split.below is not None:
            self.split.below.train(mode and self.frozen_dropout == "all")
        self.split.above.train(mode and self.frozen_dropout != "none")
        return self

    def trainable(self) -> dict[str, nn.Parameter]:
        """What trains, by name; said here once for counting, saving and testing."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def count_parameters(self) -> dict[str, int]:
        """Number of trainable and of all parameters, shared ones counted once."""
        return {
            "trainable": sum(p.numel() for p in self.trainable().values()),
            "total": sum(p.numel() for p in self.parameters()),
        }

    def make_prompt(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Prompt of each row: (B, T, D) -> (B, m, D)."""
        return self.prompt_dropout(self.generator(hidden, batch.summary_index, batch.pool_length))

    def forward(self, batch: Batch, *, prompted: bool = True, words_only: bool = False) -> Tensor:
        """Logits at the scored positions in float32: (U, V), or (U, labels) with `words_only`.

        `prompted=False` gives the unprompted language model (the zero-shot baseline).
        """
        hidden = batch.hidden
        if hidden is None:
            hidden = self.split.read(batch.input_ids, batch.attention_mask, batch.branches)
        prompt = self.make_prompt(hidden, batch) if prompted else None
        # The head is the widest product of all: it sees the scored positions only.
        final = self.split.answer(
            hidden, batch.attention_mask, prompt, batch.branches, (batch.rows, batch.positions)
        )
        return self.split.logits(final, words_only=words_only).float()


def sequence_losses(logits: Tensor, batch: Batch, count: int) -> Tensor:
    """Mean cross-entropy over the vocabulary of each of `count` scored sequences.

    Args:
        logits: (U, V).
        batch: The scored positions and their targets.
        count: Number of scored sequences S.

    Returns:
        (S,)
    """
    # Not one row of logits for each target: several targets may share one.
    log_likelihoods = logits.log_softmax(-1)[batch.scored, batch.targets.clamp(min=0)]
    losses = -log_likelihoods.masked_fill(batch.targets == IGNORED, 0.0)
    total = losses.new_zeros(count).index_add(0, batch.sequences, losses)
    tokens = losses.new_zeros(count).index_add(0, batch.sequences, torch.ones_like(losses))
    return total / tokens


class LabelScorer:
    """Turns logits into one score a label, the higher the better.

    Masked models: the logit of the label's word at the mask. Causal models: minus the mean token
    loss of the label part (as the reference release).

    Args:
        kind: `masked` or `causal`.
        word_ids: Token of each label's word.
        scale: The range of a number, whose ends the two words stand for; None for labels.
    """

    def __init__(
        self, kind: str, word_ids: list[int], scale: tuple[float, float] | None = None
    ) -> None:
        self.kind = kind
        self.word_ids = word_ids
        self.value_range = scale

    @property
    def words_only(self) -> bool:
        """Whether scores need the logits of the label words alone."""
        return self.kind == "masked"

    def __call__(self, logits: Tensor, batch: Batch) -> Tensor:
        """Logits of a batch with every label scored -> (E, labels).

        They are (U, labels) where `words_only`, else (U, V).
        """
        if self.words_only:
            return logits
        shape = len(batch.labels), len(self.word_ids)
        return -sequence_losses(logits, batch, shape[0] * shape[1]).view(shape)

    def loss(self, logits: Tensor, batch: Batch, over: str) -> Tensor:
        """Training loss, a scalar: cross-entropy over the `vocabulary` or over `label_words`.

        For a causal model, `vocabulary` expects only the right label's part, `label_words` all. The
        logits are those of the whole vocabulary, unless the scores alone count and need no more.
        The target of a number is its place in the range, as the share of the second word (LM-BFF,
        Gao et al. 2021, section 4.2).
        """
        if over == "label_words":
            target = batch.labels
            if self.value_range is not None:
                low, high = self.value_range
                share = (batch.labels - low) / (high - low)
                target = torch.stack([1 - share, share], dim=1)
            return nn.functional.cross_entropy(self(logits, batch), target)
        return sequence_losses(logits, batch, len(batch.labels)).mean()
