"""A masked language model with random weights and a task of random words.

Speed does not depend on the values of the weights, so nothing has to be downloaded.
"""

from __future__ import annotations

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from lpt.models.inputs import Batch

_ROBERTA = {
    "vocab_size": 50_265,
    "max_position_embeddings": 514,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
SIZES = {
    "roberta-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
    "roberta-large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
    "small": {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4},
}
TEMPLATE = "{text} <mask>"
_AROUND = 3  # <s>, <mask> and </s>
_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_WORDS = ("bad", "good")


def save_model(size: str, folder: Path) -> None:
    """Write a RoBERTa model and a tokenizer with the words w0, w1, ..."""
    shape = SIZES[size]
    config = AutoConfig.for_model(
        "roberta", **_ROBERTA, **shape, intermediate_size=4 * shape["hidden_size"]
    )
    disable_progress_bar()
    torch.manual_seed(0)
    AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    rest = config.vocab_size - len(_SPECIALS) - len(_WORDS)
    tokens = [*_SPECIALS, *_WORDS, *(f"w{i}" for i in range(rest))]
    tokenizer = Tokenizer(WordLevel({t: i for i, t in enumerate(tokens)}, unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = ("bos_token", "pad_token", "eos_token", "unk_token", "mask_token")
    special = dict(zip(names, _SPECIALS, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


def save_task(folder: Path, examples: int, shortest: int, longest: int) -> None:
    """Write train.tsv of rows whose lengths in tokens are uniform over a range; dev and test tiny.

    Args:
        folder: Created if needed.
        examples: Rows of train.
        shortest: Minimum number of tokens, special tokens included.
        longest: Maximum number of tokens.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = random.Random(0)  # noqa: S311
    for split, count in (("train", examples), ("dev", 64), ("test", 64)):
        rows = ["label\ttext"]
        for i in range(count):
            words = generator.randint(shortest, longest) - _AROUND
            text = " ".join(f"w{generator.randrange(40_000)}" for _ in range(words))
            rows.append(f"{i % 2}\t{text}")
        (folder / f"{split}.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def make_batch(rows: int, tokens: int, device: str) -> Batch:
    """Random text without padding, one logit position in each row."""
    ids = torch.randint(10, 100, (rows, tokens), device=device)
    each = torch.arange(rows, device=device)
    return Batch(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        summary_index=torch.zeros_like(each),
        pool_length=torch.full_like(each, tokens),
        logit_rows=each,
        logit_positions=torch.full_like(each, tokens - 2),
        target_to_logit=each,
        targets=torch.full_like(each, 5),
        sequences=each,
        labels=torch.zeros_like(each),
        row_ids=each,
    )
