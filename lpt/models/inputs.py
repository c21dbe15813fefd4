"""The contract between data and models: what a batch holds.

Shapes: B rows, T tokens, D hidden size, E examples, U logit positions, N target tokens.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

IGNORE_INDEX = -100  # target of an example whose label is unknown, as in torch's cross-entropy


class Branches(NamedTuple):
    """Label parts that continue one context side by side in its row; none attends to another.

    A causal model reads the context once for all labels this way.

    Attributes:
        branch_ids: (B, T), 0 for context and padding, else the number of the label part, from 1.
        position_ids: (B, T), position of each token in its own sequence: context, then one part.
    """

    branch_ids: Tensor
    position_ids: Tensor


class Batch(NamedTuple):
    """Rows of text and the positions whose logits are needed.

    A masked example is a row with one logit position, the mask. A causal example is a row with the
    context and, side by side, the label parts to be scored; the tokens of the label parts are the
    targets. Indices refer to the unprompted text; the model shifts them by m.

    Attributes:
        input_ids: (B, T) token ids, padded on the right.
        attention_mask: (B, T), 1 for real tokens.
        summary_index: (B,) token that a naive generator reads.
        pool_length: (B,) number of leading tokens that a pooling generator reads.
        logit_rows: (U,) row of each logit position; no two positions are the same.
        logit_positions: (U,) token whose output goes through the head.
        target_to_logit: (N,) logit position that predicts each target. The first tokens of all
            label parts share one, the last token of the context.
        targets: (N,) token to be predicted; `IGNORE_INDEX` where the label is unknown.
        sequences: (N,) sequence that the target belongs to, numbered through the batch: a masked
            example, or one label part of a causal example.
        labels: (E,) label index of each example, or its number (regression); -1 if unknown.
        row_ids: (E,) row id of each example in its source.
        branches: Set where rows hold several label parts.
        hidden: (B, T, D) hidden states in front of the prompt layer, if precomputed.
        hidden_index: (B, T) rows of the precomputed hidden states, until `hidden` is filled in.
        final: (B, 1, D) hidden states behind the last layer at `summary_index`, before a final
            norm, if precomputed.
    """

    input_ids: Tensor
    attention_mask: Tensor
    summary_index: Tensor
    pool_length: Tensor
    logit_rows: Tensor
    logit_positions: Tensor
    target_to_logit: Tensor
    targets: Tensor
    sequences: Tensor
    labels: Tensor
    row_ids: Tensor
    branches: Branches | None = None
    hidden: Tensor | None = None
    hidden_index: Tensor | None = None
    final: Tensor | None = None
