"""Late prompt tuning: a frozen split language model and the prompt generator that is trained.

    input_ids ── lower ──┬─────────────┐
                    h (B,T,D)    concat (B,m+T,D) ── upper ── logit positions ── head ── (U,V)
                         └─ generator ─┘ prompt (B,m,D)

Shapes: B rows, T tokens, m prompt vectors, D hidden size, U logit positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lpt.config.schema import Config
from lpt.errors import config_error
from lpt.models.families import get_family
from lpt.models.generators import PromptGenerator, build_generator
from lpt.models.inputs import Batch
from lpt.models.split import SplitModel

_LABEL_WORDS_COPY = "split.words_head."


class LatePrompt(nn.Module):
    """A frozen split model with a prompt that is inserted at `split.layer`.

    Args:
        split: The frozen language model.
        generator: Computes the prompt; its parameters are the only trainable ones.
        prompt_dropout: Dropout rate on the finished prompt.
        frozen_dropout: Which frozen layers apply dropout in training: `above` the prompt, `all` or
            `none`.
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
        """Training mode for the prompt and for the frozen layers that apply dropout."""
        super().train(mode)
        for head in (self.split.head, self.split.words_head):
            if head is not None:
                head.eval()  # first, because it may share the embeddings with `lower`
        if self.split.lower is not None:
            self.split.lower.train(mode and self.frozen_dropout == "all")
        self.split.upper.train(mode and self.frozen_dropout != "none")
        return self

    def trainable(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by name: what is optimized, counted and saved."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def count_parameters(self) -> dict[str, int]:
        """Number of trainable and of all parameters.

        Shared parameters count once, and the copied rows of the label words do not count: the total
        is that of the transformers model and the generator.
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

    def make_prompt(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Prompt of each row: (B, T, D) -> (B, m, D)."""
        return self.prompt_dropout(self.generator(hidden, batch.summary_index, batch.pool_length))

    def forward(self, batch: Batch, *, prompted: bool = True, words_only: bool = False) -> Tensor:
        """Logits at the logit positions in float32: (U, V), or (U, labels) with `words_only`.

        `prompted=False` gives the unprompted language model (the zero-shot baseline).
        """
        hidden = batch.hidden
        if hidden is None:
            hidden = self.split.forward_lower(batch.input_ids, batch.attention_mask, batch.branches)
        prompt = self.make_prompt(hidden, batch) if prompted else None
        # The head is the widest matrix product of all: it runs at the logit positions only.
        final = self.split.forward_upper(
            hidden,
            batch.attention_mask,
            prompt,
            batch.branches,
            (batch.logit_rows, batch.logit_positions),
        )
        return self.split.logits(final, words_only=words_only).float()


def build_late_prompt(
    config: Config, model: PreTrainedModel, word_ids: Sequence[int]
) -> LatePrompt:
    """Split a loaded backbone and put a new generator in.

    Args:
        config: Resolved configuration: model, prompt and trainer settings.
        model: The backbone with its language-model head.
        word_ids: Token of each label word.

    Raises:
        ConfigError: `prompt.init` does not fit the backbone.
    """
    prompt = config.prompt
    assert prompt.layer is not None
    assert prompt.dropout is not None
    masked = get_family(model.config.model_type).kind == "masked"
    split = SplitModel(
        model,
        prompt.layer,
        word_ids=word_ids if masked else None,
        gradient_checkpointing=config.trainer.gradient_checkpointing,
    )
    if config.trainer.compile:
        split.upper.compile(dynamic=True)
    generator = build_generator(
        prompt.kind,
        hidden_size=split.hidden_size,
        length=prompt.length,
        bottleneck=prompt.bottleneck,
        init=sample_embeddings(split, prompt.length) if prompt.init == "vocab" else None,
    )
    return LatePrompt(
        split, generator, prompt_dropout=prompt.dropout, frozen_dropout=config.model.dropout
    )


def sample_embeddings(split: SplitModel, length: int) -> Tensor:
    """Initial values of a static prompt: word embeddings of random tokens, (m, D).

    Raises:
        ConfigError: Embeddings and hidden states have different widths.
    """
    embeddings = split.embed(torch.randint(split.config.vocab_size, (length,)))
    if embeddings.shape[-1] != split.hidden_size:
        raise config_error(
            "prompt.init",
            f"vocab, with embeddings of width {embeddings.shape[-1]} for hidden states of width "
            f"{split.hidden_size}",
            "normal",
        )
    return embeddings.detach()
