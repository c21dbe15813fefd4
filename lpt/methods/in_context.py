"""In-context learning (Brown et al., 2020): labeled training texts stand in front of every text.

Nothing is trained; a causal language model scores the labels as without demonstrations.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from lpt.data.examples import Examples
from lpt.data.templates import Encoder, TokenIds
from lpt.methods.base import Method
from lpt.models.split import SplitModel

logger = logging.getLogger(__name__)

_DELIMITER = "\n\n"  # between texts, as in lm-evaluation-harness
_JOINT = 2  # tokens by which two texts may be shorter together than apart, at most


class InContext(Method):
    """A language model that reads demonstrations.

    Args:
        split: The frozen language model.
    """

    def __init__(self, split: SplitModel) -> None:
        super().__init__(split, {})

    def read_train(self, encoder: Encoder, train: Examples, seed: int) -> None:
        """Draw the demonstrations."""
        self.demonstrations = draw_demonstrations(encoder, train, seed)

    def encoder(self, plain: Encoder) -> Encoder:
        """Puts the demonstrations in front of every text."""
        return DemonstrationEncoder(plain, self.demonstrations)


def draw_demonstrations(encoder: Encoder, train: Examples, seed: int) -> tuple[str, ...]:
    """Training texts with the words of their labels, more than fit in front of any text.

    They come round by round, one of each label in random order, so that any number of them is
    balanced; the label with the fewest examples ends the last round.

    Args:
        encoder: Renders them.
        train: The training set.
        seed: Seed of choice and order.
    """
    random = np.random.default_rng(seed)
    of_label: dict[float, list[int]] = {}
    for position in random.permutation(len(train)).tolist():
        of_label.setdefault(train.labels[position], []).append(position)
    texts: list[str] = []
    tokens = 0
    for positions in zip(*of_label.values(), strict=False):
        for position in random.permutation(positions).tolist():
            values = {name: column[position] for name, column in train.columns.items()}
            texts.append(encoder.render(values, int(train.labels[position])))
            tokens += len(encoder.tokenizer.encode(texts[-1], add_special_tokens=False))
        if tokens > encoder.max_length:
            break
    return tuple(texts)


class DemonstrationEncoder(Encoder):
    """Renders and tokenizes rows behind as many demonstrations as fit in `max_length` with each.

    A text that is too long by itself has none, and is truncated.

    Args:
        plain: Renders and tokenizes rows alone.
        demonstrations: Texts; a row is behind the first ones, in their order.
    """

    def __init__(self, plain: Encoder, demonstrations: Sequence[str]) -> None:
        self._prompts: list[str] = [""]  # of the first 0, 1, 2 ... demonstrations
        self._sizes: list[int] = []  # of them in tokens, without the empty one
        super().__init__(plain.tokenizer, plain.template, plain.label_words, plain.max_length)
        self._prompts += accumulate(text + _DELIMITER for text in demonstrations)
        encode = self.tokenizer.encode
        self._sizes += [len(encode(text, add_special_tokens=False)) for text in self._prompts[1:]]

    def _text_ids(self, texts: Sequence[Sequence[str]]) -> list[list[TokenIds]]:
        room = self.max_length - len(self._start) - len(self._end)
        found = super()._text_ids(texts)
        # An upper bound: tokens may merge where texts meet, so what counts is their whole.
        numbers = [bisect_right(self._sizes, room + _JOINT - max(map(len, row))) for row in found]
        pending = [i for i, number in enumerate(numbers) if number]
        if self._sizes and len(pending) < len(texts):
            text = "No demonstration fits in front of %d of %d texts (data.max_length=%d)."
            logger.warning(text, len(texts) - len(pending), len(texts), self.max_length)
        while pending:
            shown = [[self._prompts[numbers[i]] + text for text in texts[i]] for i in pending]
            longer = []
            for i, row in zip(pending, super()._text_ids(shown), strict=True):
                if max(map(len, row)) <= room:
                    found[i] = row
                    continue
                numbers[i] -= 1
                if numbers[i]:
                    longer.append(i)
            pending = longer
        return found
