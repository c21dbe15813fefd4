"""Late prompt tuning: a frozen split language model and the prompt generator that is trained.

    input_ids ── lower ──┬─────────────┐
                    h (B,T,D)    concat (B,m+T,D) ── upper ── logit positions ── head ── (U,V)
                         └─ generator ─┘ prompt (B,m,D)

Shapes: B rows, T tokens, m prompt vectors, D hidden size, U logit positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import PreTrainedModel

from lpt.config.method_schema import PromptConfig
from lpt.errors import Problems, config_error, did_you_mean
from lpt.methods.base import Method, Splitter
from lpt.models.generators import PromptGenerator, build_generator, generator_args
from lpt.models.inputs import Batch
from lpt.models.split import SplitModel


class LatePrompt(Method):
    """A frozen split model with a prompt that is inserted at `split.layer`.

    Args:
        split: The frozen language model.
        generator: Computes the prompt.
        further: Computes a further prompt in front of each of these later layers, from the hidden
            states of the text there; only the parameters of generators are trainable.
        prompt_dropout: Dropout rate on the finished prompt.
        frozen_dropout: Which frozen layers apply dropout in training: `above` the prompt, `all` or
            `none`.
    """

    def __init__(
        self,
        split: SplitModel,
        generator: PromptGenerator,
        further: Mapping[int, PromptGenerator] = MappingProxyType({}),
        *,
        prompt_dropout: float = 0.0,
        frozen_dropout: str = "above",
    ) -> None:
        generators = {"generator": generator}
        generators |= {f"further.{layer}": each for layer, each in further.items()}
        trainable = {
            f"{prefix}.{name}": parameter
            for prefix, each in generators.items()
            for name, parameter in each.named_parameters()
        }
        super().__init__(split, trainable, frozen_dropout=frozen_dropout)
        self.generator = generator
        self.further = nn.ModuleDict({str(layer): each for layer, each in further.items()})
        self.prompt_dropout = nn.Dropout(prompt_dropout)

    @torch.no_grad()
    def final_state(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Final state of each text, without prompt and dropout: (B, T, D) -> (B, 1, D).

        Final states that are narrower than D (OPT-350m) are padded with zeros.
        """
        if batch.final is not None:
            final = self.split.finish(batch.final)[:, 0]
        else:
            upper, rows = self.split.upper, torch.arange(len(hidden), device=hidden.device)
            training = upper.training
            upper.eval()
            final = self.split.forward_upper(
                hidden,
                batch.attention_mask,
                branches=batch.branches,
                positions=(rows, batch.summary_index),
            )
            upper.train(training)
        return pad(final, (0, self.split.hidden_size - final.shape[-1]))[:, None]

    def upper_inputs(self, hidden: Tensor, batch: Batch) -> dict[str, Any]:
        """The prompt (B, m, D), in front of the text, and how the further ones are made."""
        state = None
        if self.generator.reads_final_state:
            state = self.final_state(hidden, batch)
            batch = batch._replace(
                summary_index=torch.zeros_like(batch.summary_index),
                pool_length=torch.ones_like(batch.pool_length),
            )

        def make(generator: nn.Module, text: Tensor) -> Tensor:
            read = text if state is None else state
            return self.prompt_dropout(generator(read, batch.summary_index, batch.pool_length))

        prompt = make(self.generator, hidden)

        def replace(generator: nn.Module, full: Tensor) -> Tensor:
            text = full[:, prompt.shape[1] :]
            return torch.cat([make(generator, text).to(text.dtype), text], dim=1)

        further = {int(layer): partial(replace, each) for layer, each in self.further.items()}
        return {"prompt": prompt, "further_prompts": further}


def check_prompt(prompt: PromptConfig, hidden_size: int, problems: Problems) -> None:
    """Check `prompt.args` against the generator, and that it can be built for this D."""
    types = generator_args(prompt.kind)
    expected = ", ".join(types) or "nothing"
    for name, value in prompt.args.items():
        key = f"prompt.args.{name}"
        if name not in types:
            given, hint = f"not an argument of {prompt.kind}", did_you_mean(name, types)
            problems.add(key, given, expected, hint)
            continue
        try:
            TypeAdapter(types[name]).validate_python(value, strict=True)
        except ValidationError as error:
            problems.add(key, repr(value), error.errors()[0]["msg"])
    for name in sorted(types.keys() - prompt.args.keys()):
        problems.add(f"prompt.args.{name}", "no value", f"a value with prompt={prompt.kind}")
    if not problems.mentions("prompt.args"):
        try:
            with torch.device("meta"):
                make_generator(prompt, hidden_size)
        except ValueError as error:
            given = f"{prompt.args}: {error}"
            problems.add(
                "prompt.args", given, f"sizes that fit hidden states of width {hidden_size}"
            )


def make_generator(
    prompt: PromptConfig, hidden_size: int, init: Tensor | None = None
) -> PromptGenerator:
    """A new generator; `init` are the initial values of free vectors, (m, D), if not random."""
    return build_generator(
        prompt.kind,
        hidden_size=hidden_size,
        length=prompt.length,
        bottleneck=prompt.bottleneck,
        init=init,
        args=prompt.args,
    )


def build_late_prompt(model: PreTrainedModel, prompt: PromptConfig, split: Splitter) -> LatePrompt:
    """Split a loaded backbone and put a new generator in.

    Raises:
        ConfigError: `prompt.init` does not fit the backbone.
    """
    frozen = split(model, {})
    generators = []
    for _ in prompt.layers or [frozen.layer]:
        init = sample_embeddings(frozen, prompt.length) if prompt.init == "vocab" else None
        generators.append(make_generator(prompt, frozen.hidden_size, init))
    further = dict(zip(prompt.layers[1:], generators[1:], strict=True))
    return LatePrompt(frozen, generators[0], further, prompt_dropout=prompt.dropout or 0.0)


def sample_embeddings(split: SplitModel, length: int) -> Tensor:
    """Initial values of free vectors: word embeddings of random tokens, (m, D).

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
